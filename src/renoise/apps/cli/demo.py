"""`renoise demo`."""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape

from renoise.apps.cli.options import Dtype, Embedded, PictureOutput, Seed
from renoise.apps.cli.output import console, write
from renoise.apps.cli.pipes import Chosen, pipeline

__all__ = ["demo"]


def demo(
    output: PictureOutput = Path("renoise-demo.png"),
    model: Embedded = "emoji-turbo",
    dtype: Dtype = None,
    seed: Seed = None,
) -> None:
    """Invert, reconstruct and edit a picture that the model never saw; no network needed."""
    from renoise.apps.demo import figure

    picture, lines = figure(pipeline(Chosen(model, dtype=dtype)), seed=seed or 0)
    for line in lines:
        console.print(escape(line), highlight=False, soft_wrap=True)
    write(picture, output)
