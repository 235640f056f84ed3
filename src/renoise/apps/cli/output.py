"""What commands print and write."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from rich.console import Console
from rich.markup import escape

from renoise.files import write as write_file
from renoise.pipelines.families import denoiser

if TYPE_CHECKING:
    import renoise

__all__ = ["console", "encoded", "say_written", "summary", "write"]

console = Console()


def write(pictures: Any, output: Path) -> None:
    """Writes one picture, or the pictures of a batch with numbers in their names."""
    if not isinstance(pictures, list):
        write_file(output, encoded(pictures, output))
        say_written(output)
        return
    for number, picture in enumerate(pictures, 1):
        write(picture, output.with_stem(f"{output.stem}-{number}"))


def encoded(picture: Image.Image, path: Path) -> bytes:
    """The bytes of a picture file of the kind that its name says."""
    kind = Image.registered_extensions()[path.suffix.lower()]
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


def say_written(path: Path) -> None:
    """Says where the result is."""
    console.print(f"[green]wrote[/green] {escape(str(path))}", highlight=False, soft_wrap=True)


def summary(inversion: renoise.Inversion) -> None:
    """Prints how good an inversion is and what it cost, a line for each picture."""
    precision = str(denoiser(inversion.pipe).dtype).removeprefix("torch.")
    for found, ceiling in zip(inversion.fidelity().tolist(), inversion.ceiling().tolist(), strict=True):
        console.print(
            f"reconstruction {found:.1f} dB, auto-encoder ceiling {ceiling:.1f} dB, "
            f"{inversion.passes} passes, {inversion.seconds:.1f} s, {precision}",
            soft_wrap=True,
        )
