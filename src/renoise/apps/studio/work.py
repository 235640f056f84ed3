"""What runs on the model: an inversion with all that the page shows of it, a saved inversion opened, and an edit.

Everything that outlives its piece of work lies on the CPU; it goes to the pipeline's device while it is used.
"""

from __future__ import annotations

import io
import secrets
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import renoise
from renoise import archive, images, metrics
from renoise.apps.studio.choices import EditChoices, InvertChoices, Refused
from renoise.apps.studio.pictures import Source, decoded, encoded
from renoise.apps.studio.words import Scores, noise_share
from renoise.core.progress import Progress
from renoise.core.trajectory import Trajectory
from renoise.editable import Editable
from renoise.editable import Found as Way
from renoise.record import Record

__all__ = ["Found", "Made", "edit", "invert", "open_saved"]


@dataclass(eq=False)
class Found:
    """An inversion, and what it gives back.

    Attributes:
        record: all that was found, on the CPU.
        source: the picture as it was handed over; None where the inversion came from a file.
        choices: how it was inverted; None likewise.
        original: the picture as the model saw it, without padding (PNG).
        ceiling: the same through the auto-encoder alone (PNG).
        reconstruction: regenerated with its own prompt (PNG).
        scores: how good it is.
        way: the trajectory, with the latents of every step once an edit has needed them; on the CPU.
    """

    record: Record
    source: Source | None
    choices: InvertChoices | None
    original: bytes
    ceiling: bytes
    reconstruction: bytes
    scores: Scores
    way: Trajectory

    @property
    def caption(self) -> str:
        """What the picture shows; empty where it was inverted with embeddings."""
        prompts = self.record.scene.prompts
        return prompts[0] if prompts else ""

    def saved(self) -> bytes:
        """The inversion file."""
        return archive.dumps(self.record)


@dataclass(frozen=True, eq=False)
class Made:
    """An edited picture.

    Attributes:
        picture: the file (PNG).
        after: itself as the source of further edits, on the CPU, without the way that its inversion found.
        mask: where it was edited (PNG, white), or None for everywhere.
        passes: network passes of the edit.
        seconds: wall time of the edit.
    """

    picture: bytes
    after: Editable
    mask: bytes | None
    passes: int
    seconds: float


def invert(pipe: Any, source: Source, choices: InvertChoices, progress: Progress) -> Found:
    """Inverts a picture, and reconstructs it.

    Raises:
        Cancelled, and whatever `renoise.invert` refuses.
    """
    picture = decoded(source.png)
    inversion = renoise.invert(pipe, picture, choices.caption, progress=progress, **choices.keywords())
    return _found(inversion, source, choices, progress)


def open_saved(pipe: Any, data: bytes, folder: Path, progress: Progress) -> Found:
    """Opens an inversion file, and reconstructs its picture.

    Args:
        pipe: the pipeline that it belongs to.
        data: the bytes of the file.
        folder: where they may lie while they are read.
        progress: of the reconstruction.

    Raises:
        Refused: it holds a batch.
        ArchiveError: no inversion, or one of another pipeline.
    """
    file = folder / f"{secrets.token_hex(16)}.safetensors"
    try:
        file.write_bytes(data)
        inversion = renoise.load(file, pipe)
    except renoise.ArchiveError as error:
        raise Refused(str(error).replace(str(file), "This file")) from None
    finally:
        file.unlink(missing_ok=True)
    count = len(inversion.pixels)
    if count != 1:
        raise Refused(f"This file holds {count} pictures, and the studio edits one at a time: save them one by one.")
    return _found(inversion, None, None, progress)


def edit(pipe: Any, found: Found, base: Made | None, choices: EditChoices, progress: Progress) -> Made:
    """Edits an inverted picture, or an edit of it once more.

    Raises:
        Cancelled, and whatever an edit refuses.
    """
    began, device = time.perf_counter(), pipe._execution_device
    given = choices.keywords()
    if choices.mask == "automatic":
        given["mask"] = "auto"
    elif choices.painted is not None:
        given["mask"] = Image.open(io.BytesIO(choices.painted))
    source: renoise.Inversion | renoise.Edited
    if base is None:
        record = _on(replace(found.record, trajectory=found.way), device)
        source = renoise.Inversion(record, pipe)
    else:
        before = replace(base.after, found=Way(found.way, found.record.scene))
        source = renoise.Edited(decoded(base.picture), _placed(before, device), None, base.passes)
    edited = source.edit(choices.prompt, progress=progress, **given)
    after = _placed(edited.editable, torch.device("cpu"))
    assert after.found is not None
    found.way = after.found.trajectory
    mask = None if edited.mask is None else _grey(edited.mask)
    seconds = time.perf_counter() - began
    return Made(encoded(edited), replace(after, found=None), mask, edited.passes, seconds)


def _found(
    inversion: renoise.Inversion, source: Source | None, choices: InvertChoices | None, progress: Progress
) -> Found:
    record = inversion.record
    through = inversion.round_trip()
    again = inversion.regenerate(inversion.scene, progress=progress)
    steps = record.trajectory.steps
    scores = Scores(
        fidelity=float(metrics.psnr(again, record.pixels)[0]),
        ceiling=float(metrics.psnr(through, record.pixels)[0]),
        passes=inversion.passes,
        seconds=inversion.seconds,
        noise_share=noise_share(record.trajectory),
        residuals=tuple(tuple(float(value) for value in step.residuals[:, 0]) for step in steps),
        timesteps=tuple(step.timestep for step in steps),
    )

    def cut(pixels: torch.Tensor) -> bytes:
        return encoded(images.unfit(images.to_pil(pixels)[0], record.boxes[0]))

    kept = _on(record, torch.device("cpu"))
    pictures = (cut(record.pixels), cut(through), cut(again))
    return Found(kept, source, choices, *pictures, scores, kept.trajectory)


def _grey(mask: torch.Tensor) -> bytes:
    """A mask (height, width) in [0, 1] as a PNG."""
    return encoded(Image.fromarray((mask * 255).round().to(torch.uint8).numpy()))


def _on(record: Record, device: torch.device) -> Record:
    """A record with its latents, noises and pixels on a device."""
    moved = record.trajectory.mapped(lambda latents: latents.to(device))
    return replace(record, trajectory=moved, z_0=record.z_0.to(device), pixels=record.pixels.to(device))


def _placed(source: Editable, device: torch.device) -> Editable:
    """The source of edits with all its latents and pixels on a device."""
    way = source.found and Way(source.found.trajectory.mapped(lambda latents: latents.to(device)), source.found.scene)
    shift = None if source.shift is None else source.shift.to(device)
    return replace(source, z_0=source.z_0.to(device), pixels=source.pixels.to(device), shift=shift, found=way)
