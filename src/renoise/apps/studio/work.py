"""What runs on the model: an inversion with all that the page shows of it, a saved inversion opened, and an edit.

Everything that outlives its piece of work lies on the CPU; it goes to the pipeline's device while it is used.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import renoise
from renoise import archive, images, metrics
from renoise.apps.studio.choices import EditChoices, InvertChoices, Refused
from renoise.apps.studio.pictures import Source, decoded, encoded
from renoise.apps.studio.words import Scores, noise_share
from renoise.core.progress import Progress
from renoise.record import Record

__all__ = ["Found", "Made", "edit", "invert", "open_saved"]


@dataclass(frozen=True, eq=False)
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
    """

    record: Record
    source: Source | None
    choices: InvertChoices | None
    original: bytes
    ceiling: bytes
    reconstruction: bytes
    scores: Scores

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
        edited: what the edit returned, for a chain of edits.
        picture: the same as a file (PNG).
        mask: where it was edited (PNG, white), or None for everywhere.
        passes: network passes of the edit.
        seconds: wall time of the edit.
    """

    edited: Any
    picture: bytes
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
    began = time.perf_counter()
    inversion = renoise.Inversion(_on(found.record, pipe._execution_device), pipe)
    picture = inversion.edit(
        choices.prompt, progress=progress, **{k: v for k, v in choices.keywords().items() if k == "guidance_scale"}
    )  # TODO
    return Made(picture, encoded(picture), None, progress.passes, time.perf_counter() - began)


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

    return Found(
        _on(record, torch.device("cpu")), source, choices, cut(record.pixels), cut(through), cut(again), scores
    )


def _on(record: Record, device: torch.device) -> Record:
    """A record with its latents, noises and pixels on a device."""
    moved = record.trajectory.mapped(lambda latents: latents.to(device))
    return replace(record, trajectory=moved, z_0=record.z_0.to(device), pixels=record.pixels.to(device))
