"""Inversions that were saved: read, held against a pipeline, and joined with it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from renoise import archive, models
from renoise.archive import ArchiveError
from renoise.core.checks import file_path, shown
from renoise.files import missing
from renoise.inverted import Inversion
from renoise.pipelines.adapter import Adapter
from renoise.pipelines.identity import difference
from renoise.pipelines.measure import NotInvertible
from renoise.record import Record

__all__ = ["joined", "load", "moved"]


def load(path: str | os.PathLike[str], pipe: Any = None, *, pipe_kwargs: Mapping[str, Any] | None = None) -> Inversion:
    """Reads an inversion back.

    Args:
        path: a file that ``Inversion.save`` wrote.
        pipe: the pipeline to regenerate with: that of the inversion, or an equal one in any floating precision. Needed
            unless the inversion was made with an embedded model, which is then loaded.
        pipe_kwargs: those that the inversion was made with; a file holds their names only.

    Raises:
        ArchiveError: no such file, no inversion, a damaged one, a newer format, or a pipeline, scheduler or pipe_kwargs
            that it was not made with.
        TypeError: a path that is no path, pipe_kwargs that are no dict, or a pipeline of no known kind.
    """
    path = Path(file_path(path))
    return joined(archive.loads(_bytes(path), pipe_kwargs, name=str(path)), pipe, str(path))


def joined(record: Record, pipe: Any, name: str) -> Inversion:
    """An inversion of a record that was read from bytes, on the device of the pipeline.

    Args:
        record: what `renoise.archive.loads` returned.
        pipe: as for `load`.
        name: what errors call it, such as a path.

    Raises:
        ArchiveError: a pipeline or scheduler that it was not made with.
    """
    if pipe is None:
        if record.model is None:
            made_with = record.identity
            raise ArchiveError(
                f"{name} was made with a {made_with.pipeline} of yours ({made_with.source or 'not from a file'}); "
                "load that and pass it: renoise.load(path, pipe), or --model on the command line"
            )
        pipe = _embedded(name, record)
    _check(name, record, pipe)
    return moved(record, pipe)


def moved(record: Record, pipe: Any) -> Inversion:
    """An inversion of a record that is known to belong to the pipeline, on the pipeline's device."""
    device = pipe._execution_device
    trajectory = record.trajectory.mapped(lambda latents: latents.to(device))
    there = replace(record, trajectory=trajectory, z_0=record.z_0.to(device), pixels=record.pixels.to(device))
    return Inversion(there, pipe)


def _embedded(name: str, record: Record) -> Any:
    """The embedded model that a file names; no other name in a file is obeyed."""
    if record.model not in models.NAMES:
        raise ArchiveError(
            f"{name} names {shown(record.model)} as its model, and only {', '.join(models.NAMES)} are loaded by a "
            "name in a file: load the pipeline yourself, and pass it: renoise.load(path, pipe)"
        )
    try:
        return models.load(record.model, scheduler=record.scheduler)
    except ValueError as error:
        raise ArchiveError(f"{name} was made with a scheduler that is not to be had: {error}") from error


def _bytes(path: Path) -> bytes:
    try:
        what = missing(path)
        if what:
            raise ArchiveError(f"{path} {what}; pass a file that Inversion.save or `renoise invert` wrote")
        return path.read_bytes()
    except OSError as error:
        raise ArchiveError(f"{path} cannot be read ({error.strerror or error})") from error


def _check(name: str, record: Record, pipe: Any) -> None:
    """Refuses a pipeline that would regenerate something else."""
    other = difference(record.identity, pipe)
    if other:
        raise ArchiveError(f"{name} was made {other}")
    now, table = type(pipe.scheduler).__name__, record.trajectory.table
    if record.scheduler != now:
        raise ArchiveError(
            f"{name} was made with {record.scheduler}, this pipeline has {now}; "
            f"use pipe.scheduler = {record.scheduler}.from_config(pipe.scheduler.config)"
        )
    try:
        live = Adapter(pipe).known_schedule(record.driver, record.settings.num_inference_steps)
    except NotInvertible as error:
        raise ArchiveError(f"{name} was made with a {record.scheduler} that can be inverted: {error}") from error
    column = None if live is None else table.difference(live)
    if column:
        raise ArchiveError(
            f"{name} was made with a {record.scheduler} whose steps differ from this one's (in {column}); "
            "give the scheduler the configuration that it had then"
        )
