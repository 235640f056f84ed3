"""The demonstration: one image that the models never saw in training, inverted, reconstructed and edited."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from renoise import images, metrics
from renoise.api import invert
from renoise.core.settings import plain
from renoise.edit_controls import PRESERVE
from renoise.edited import Edited
from renoise.figures import Panel, comparison
from renoise.inverted import Inversion
from renoise.models import EXAMPLE
from renoise.pipelines.adapter import Adapter
from renoise.presets import chosen_settings, name_of

PROMPT = "red apple, blob style"
EDIT = "tangerine, blob style"
STYLE = "red apple, noto style"


def figure(pipe: Any, *, seed: int = 0) -> tuple[Image.Image, list[str]]:
    """Two rows of panels: ways of inversion with their scores, and edits after the last of them.

    The upper row is original | auto-encoder | plain reversal | preset "paper" | preset "fast", where the model takes
    few steps | the default preset.  The lower row is three points of the dial `preserve` | an automatic mask | the
    edit that it was made for | an edit of the style.

    Args:
        pipe: an embedded model.
        seed: seed of the sampler's noise.

    Returns:
        The figure, and one line of text per panel.
    """
    settings = chosen_settings(Adapter(pipe))
    name = name_of(settings)
    ways: dict[str, Any] = {"plain reversal": plain(settings), "ReNoise, preset paper": "paper"}
    if name == "few-step":
        ways["renoise, preset fast"] = "fast"
    ways[f"renoise, preset {name}"] = settings
    found = {
        title: invert(pipe, EXAMPLE, PROMPT, preset=preset, seed=seed, keep_latents=True)
        for title, preset in ways.items()
    }
    inversion = found[f"renoise, preset {name}"]
    above = [
        Panel(images.to_pil(inversion.pixels)[0], "original", PROMPT),
        Panel(
            images.to_pil(inversion.round_trip())[0],
            "auto-encoder",
            f"{float(inversion.ceiling()[0]):.1f} dB\nthe ceiling",
        ),
    ]
    for title, result in found.items():
        picture = result.reconstruct()
        score = float(metrics.psnr(images.to_tensor([picture]), inversion.pixels.cpu())[0])
        above.append(Panel(picture, title, f"{score:.1f} dB\n{result.passes} passes"))
    below = _edits(inversion, f"preset {name}")
    seconds = {title: f", {result.seconds:.1f} s" for title, result in found.items()}  # not in the figure: they vary
    lines = [
        f"{panel.title}: {panel.caption}".replace("\n", ", ") + seconds.get(panel.title, "") for panel in above + below
    ]
    return _stacked(comparison(above), comparison(below)), lines


def _edits(inversion: Inversion, preset: str) -> list[Panel]:
    """Edits of a picture that was inverted with a preset of that name."""
    dials = list(PRESERVE)
    edits = inversion.edit(EDIT, preserve=dials)
    masked = inversion.edit(EDIT, preserve="balanced", mask="auto")
    styled = inversion.edit(STYLE, preserve="balanced")

    def panel(edit: Edited, title: str) -> Panel:
        return Panel(edit, f"{title}\n{preset}", f"{edit.prompt}\n{edit.passes} passes")

    return [
        *(panel(edit, f"edit, {dial}") for edit, dial in zip(edits, dials, strict=True)),
        Panel(_drawn(masked), f"automatic mask\n{preset}", "white may change"),
        panel(masked, "edit, balanced, in the mask"),
        panel(styled, "edit of the style, balanced"),
    ]


def _drawn(edit: Edited) -> Image.Image:
    """The mask of an edit as a picture."""
    assert edit.mask is not None
    return Image.fromarray((255 * edit.mask.numpy()).round().astype(np.uint8))


def _stacked(above: Image.Image, below: Image.Image) -> Image.Image:
    """One figure above another."""
    both = Image.new("RGB", (max(above.width, below.width), above.height + below.height), "white")
    both.paste(above, (0, 0))
    both.paste(below, (0, above.height))
    return both
