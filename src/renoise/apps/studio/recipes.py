"""The Python and the command line that repeat a result exactly, from the files that the page gives."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any

from renoise.apps.studio.choices import EditChoices, InvertChoices
from renoise.apps.studio.sessions import Inverted, Result

__all__ = ["Model", "command_line", "files", "python"]


@dataclass(frozen=True)
class Model:
    """The pipeline as the command line named it.

    Attributes:
        name: an embedded model, a folder, or a name on the hub.
        scheduler: a scheduler class in place of the model's own.
        dtype: precision of the networks.
        scheduler_config: settings of the scheduler, each as (key, value).
        make_invertible: whether a scheduler that cannot be inverted was exchanged.
        device: where it runs, as torch names it.
    """

    name: str
    scheduler: str | None = None
    dtype: str = "float32"
    scheduler_config: tuple[tuple[str, Any], ...] = ()
    make_invertible: bool = False
    device: str = "cpu"


def python(model: Model, result: Result | Inverted) -> str:
    """A script of a few lines; the files that it reads are those of `files`."""
    inverted = result.inverted if isinstance(result, Result) else result
    chain = result.chain() if isinstance(result, Result) else []
    lines = ["import renoise", "", *_pipeline(model), *_inversion(inverted)]
    name = "inv"
    for edit in chain:
        lines.append(f"edit_{edit.number} = {name}.edit({_arguments(edit)})")
        name = f"edit_{edit.number}"
    lines.append(
        f'{name}.save("edit-{chain[-1].number}.png")' if chain else 'inv.reconstruct().save("reconstruction.png")'
    )
    return "\n".join(lines) + "\n"


def command_line(model: Model, result: Result | Inverted) -> str | None:
    """One command, or None where the command line cannot say it: a chain of edits takes Python."""
    inverted = result.inverted if isinstance(result, Result) else result
    if not isinstance(result, Result):
        words = ["renoise", "reconstruct", _saved(inverted), "--output", "reconstruction.png"]
    elif result.base is not None:
        return None
    else:
        choices = inverted.found.choices
        words = ["renoise", "edit"]
        if choices is None or not _in_one_go(choices, result.choices):
            words += [_saved(inverted), "--to", result.choices.prompt]
        else:
            words += ["source.png", "--prompt", choices.caption, "--to", result.choices.prompt]
            words += _options(_invert_options(choices))
        words += [*_options(_edit_options(result)), "--output", f"edit-{result.number}.png"]
    return shlex.join([*words, *_model_options(model)])


def files(result: Result | Inverted) -> list[str]:
    """The names of the files that the script reads, to be downloaded beside it."""
    inverted = result.inverted if isinstance(result, Result) else result
    named = ["source.png" if inverted.found.choices is not None else _saved(inverted)]
    chain = result.chain() if isinstance(result, Result) else []
    return named + [_mask(edit) for edit in chain if edit.choices.mask == "painted"]


def _saved(inverted: Inverted) -> str:
    return f"inversion-{inverted.number}.safetensors"


def _mask(result: Result) -> str:
    return f"edit-{result.number}-painted.png"


def _pipeline(model: Model) -> list[str]:
    given = [repr(model.name)]
    given += [f"dtype={model.dtype!r}"] if model.dtype != "float32" else []
    given += [f"scheduler={model.scheduler!r}"] if model.scheduler else []
    lines = [f"pipe = renoise.models.load({', '.join(given)})"]
    if model.scheduler_config:
        changes = ", ".join(f"{key}={value!r}" for key, value in model.scheduler_config)
        lines.append(f"pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, {changes})")
    if model.make_invertible:
        lines.append("renoise.make_invertible(pipe)")
    if model.device != "cpu":
        lines.append(f"pipe.to({model.device!r})")
    return lines


def _inversion(inverted: Inverted) -> list[str]:
    choices = inverted.found.choices
    if choices is None:
        return [f"inv = renoise.load({_saved(inverted)!r}, pipe)"]
    given = "".join(f", {name}={value!r}" for name, value in choices.keywords().items())
    return [f'inv = renoise.invert(pipe, "source.png", {choices.caption!r}{given})']


def _arguments(edit: Result) -> str:
    given = {name: repr(value) for name, value in edit.choices.keywords().items()}
    if edit.choices.mask == "automatic":
        given["mask"] = repr("auto")
    if edit.choices.mask == "painted":
        given["mask"] = repr(_mask(edit))
    return ", ".join([repr(edit.choices.prompt), *(f"{name}={value}" for name, value in given.items())])


def _invert_options(choices: InvertChoices) -> dict[str, Any]:
    names = {"num_inference_steps": "steps"}
    return {names.get(name, name): value for name, value in choices.keywords().items()}


def _in_one_go(inversion: InvertChoices, edit: EditChoices) -> bool:
    """Whether one command inverts and edits: its only strength is the inversion's, its only seed that of both."""
    seeds = not edit.randomness or edit.seed == (inversion.seed or 0)
    return seeds and edit.strength is None and inversion.inversion_guidance_scale is None


def _edit_options(result: Result) -> dict[str, Any]:
    given = result.choices.keywords()
    if "guidance_scale" in given:
        given["guidance"] = given.pop("guidance_scale")
    masks = {"everywhere": None, "automatic": "auto", "painted": _mask(result)}
    choices = result.inverted.found.choices
    if choices is not None and choices.seed is not None and _in_one_go(choices, result.choices):
        given.pop("seed", None)  # it is there already
    return {"mask": masks[result.choices.mask]} | {name.replace("_", "-"): value for name, value in given.items()}


def _model_options(model: Model) -> list[str]:
    given: dict[str, Any] = {"model": model.name, "scheduler": model.scheduler}
    given["dtype"] = model.dtype if model.dtype != "float32" else None
    words = _options(given)
    for key, value in model.scheduler_config:
        words += ["--scheduler-config", f"{key}={value}"]
    return [*words, *(["--make-invertible"] if model.make_invertible else [])]


def _options(given: dict[str, Any]) -> list[str]:
    return [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]
