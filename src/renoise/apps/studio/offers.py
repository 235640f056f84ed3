"""The presets to choose from, each with what it costs and what it gives in one line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from renoise.core.loop import count_passes
from renoise.pipelines.adapter import Adapter
from renoise.presets import chosen_settings, preset_name

__all__ = ["Offer", "offers"]

_GIVES = {
    "few-step": "close in few steps; the noise stays as white as the sampler draws it.",
    "fast": "half the time of few-step, a little less exact; edits keep more of the picture.",
    "fast-latent": "nothing of the picture hides in the noise; all of it is in the starting point.",
    "sharp": "for few-step models that draw sharply, which are harder to invert; the noise stays white.",
    "many-step": "for models of many steps: close at about one pass a step.",
    "flow": "for flow-matching models: close at about one pass a step.",
    "paper": "ReNoise exactly as it was published, for comparison.",
}


@dataclass(frozen=True)
class Offer:
    """A preset.

    Attributes:
        name: as `renoise.invert` takes it.
        line: what it costs and gives.
        recommended: whether it is what the model and its scheduler get by default.
    """

    name: str
    line: str
    recommended: bool


def offers(pipe: Any) -> list[Offer]:
    """Presets that work with a pipeline, the recommended one first."""
    adapter = Adapter(pipe)
    scheduler = pipe.scheduler
    usual = preset_name(type(pipe).__name__, type(scheduler).__name__, scheduler.config, few_step=adapter.few_step)
    found = []
    for name, gives in _GIVES.items():
        try:
            settings = chosen_settings(adapter, name)
        except ValueError:  # edit losses need a network that predicts noise
            continue
        table = adapter.known_schedule(adapter.driver(None, {}), settings.num_inference_steps)
        steps = settings.num_inference_steps
        cost = f"{steps} steps" if table is None else f"{count_passes(table, settings)} passes for {steps} steps"
        found.append(Offer(name, f"{cost}: {gives}", name == usual))
    return sorted(found, key=lambda offer: not offer.recommended)
