"""The demonstration: one image that the models never saw in training, inverted, reconstructed and edited."""

from __future__ import annotations

from typing import Any

from PIL import Image

from renoise import images, metrics
from renoise.api import invert
from renoise.core.settings import plain
from renoise.figures import Panel, comparison
from renoise.models import EXAMPLE
from renoise.pipelines.adapter import Adapter
from renoise.presets import PRESETS, chosen_settings, name_of

PROMPT = "red apple, blob style"
EDITS = ("green apple, blob style", "tangerine, blob style")


def figure(pipe: Any, *, seed: int = 0) -> tuple[Image.Image, list[str]]:
    """A row of panels that compares ways of inversion, and its scores.

    The panels are: original | auto-encoder | plain reversal | preset "paper" | preset "fast" | two edits with it.

    Args:
        pipe: an embedded model.
        seed: seed of the sampler's noise.

    Returns:
        The figure, and one line of text per panel.
    """
    settings = chosen_settings(Adapter(pipe))
    if name_of(settings) == "few-step":
        settings = PRESETS["fast"].settings  # as in the README: its edits keep more of the picture
    reversal, published, inversion = (
        invert(pipe, EXAMPLE, PROMPT, preset=preset, seed=seed) for preset in (plain(settings), "paper", settings)
    )
    original = images.to_pil(inversion.pixels)[0]
    panels = [
        Panel(original, "original", PROMPT),
        Panel(
            images.to_pil(inversion.round_trip())[0],
            "auto-encoder",
            f"{float(inversion.ceiling()[0]):.1f} dB\nthe ceiling",
        ),
    ]
    for name, result in (
        ("plain reversal", reversal),
        ("ReNoise, preset paper", published),
        (f"renoise, preset {name_of(settings)}", inversion),
    ):
        picture = result.reconstruct()
        score = float(metrics.psnr(images.to_tensor([picture]), inversion.pixels.cpu())[0])
        panels.append(Panel(picture, name, f"{score:.1f} dB\n{result.passes} passes, {result.seconds:.1f} s"))
    panels += [Panel(inversion.edit(prompt), "edit", prompt) for prompt in EDITS]
    lines = [f"{panel.title}: {panel.caption.replace(chr(10), ', ')}" for panel in panels]
    return comparison(panels), lines
