"""`renoise models`: what there is to choose from."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from renoise.apps.cli.output import console

__all__ = ["models", "recognised"]


# What makes a difference to the preset of a pipeline: words for it, and what stands for it in presets.preset_name.
_FLOW: dict[str, Any] = {"scheduler": "FlowMatchEulerDiscreteScheduler", "config": {}}
_DIFFUSION_SAMPLERS: dict[str, dict[str, Any]] = {
    "LCM, TCD": {"scheduler": "LCMScheduler", "config": {}},
    "Euler, trailing": {"scheduler": "EulerDiscreteScheduler", "config": {"timestep_spacing": "trailing"}},
    "any other": {"scheduler": "DDIMScheduler", "config": {}},
}
_FLOW_SAMPLERS: dict[str, dict[str, Any]] = {"any": _FLOW}
_DISTILLABLE_SAMPLERS: dict[str, dict[str, Any]] = {"any, few-step model": {**_FLOW, "few_step": True}, "any": _FLOW}


_TASKS: dict[str, str] = {
    "words": "Pipelines of diffusers that make pictures from words, and the preset that each gets by its sampler",
    "editing": "Editing models: they see a picture beside the one that they make, in pipe_kwargs",
    "control": "Pipelines that follow a control picture, in pipe_kwargs",
    "start": "Pipelines that start from a picture: inverted as the networks that they have, for words",
}


def recognised(task: str) -> dict[tuple[str, str], list[str]]:
    """Samplers with the presets that they get, a line each, and the pipelines for a task of which that holds."""
    from renoise.pipelines.families import FAMILIES
    from renoise.presets import preset_name

    groups: dict[tuple[str, str], list[str]] = {}
    for rules in (rules for rules in FAMILIES.values() if rules.task == task):
        flow = _DISTILLABLE_SAMPLERS if rules.few_step else _FLOW_SAMPLERS
        samplers = flow if rules.sampler == "flow" else _DIFFUSION_SAMPLERS
        for pipeline in rules.pipelines:
            names = [preset_name(pipeline, **sampler) for sampler in samplers.values()]
            groups.setdefault(("\n".join(samplers), "\n".join(names)), []).append(pipeline)
    return groups


def models() -> None:
    """List the embedded models, the pipelines that are recognised with the preset of each, and the presets."""
    from renoise.models import ABOUT
    from renoise.presets import PRESETS

    table = _table("Embedded models", "model", "what it is")
    for name, about in ABOUT.items():
        table.add_row(name, escape(about))
    console.print(table)
    for task, title in _TASKS.items():
        table = _table(title, "pipeline", "sampler", "preset")
        for (samplers, names), pipelines in recognised(task).items():
            table.add_row("\n".join(pipelines), samplers, names)
        console.print(table)
    table = _table(
        "Presets: where the numbers come from, and what they should reach", "preset", "steps", "source; score"
    )
    for preset in PRESETS.values():
        steps = str(preset.settings.num_inference_steps)
        table.add_row(preset.name, steps, f"{preset.source}\n[dim]{preset.score}[/dim]")
    console.print(table)
    console.print(
        "The paper is ReNoise (Garibi et al., ECCV 2024). Networks that do not predict noise go without its edit "
        "losses. SD3.5 Turbo and Z-Image Turbo do not say of themselves that they take few steps: pass --preset "
        "few-step. --preset paper takes what was published for a pipeline.",
        highlight=False,
    )


def _table(title: str, *columns: str) -> Table:
    return Table(*columns, title=title, title_justify="left", title_style="bold", show_lines=True)
