"""A record as bytes: tensors in safetensors, everything else as JSON in its header. No pickle, no pipeline.

The bytes are what a file of an inversion holds (see `renoise.load`), and what another process may be handed.  Of
keywords of the pipeline's own call (`pipe_kwargs`) only the names are kept, and of solvers and methods of one's own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as deserialise
from safetensors.torch import save as serialise
from torch import Tensor

from renoise.core.settings import EditLosses, Region, Settings
from renoise.core.solvers import SOLVERS
from renoise.core.table import COLUMNS, StepTable
from renoise.core.trajectory import StepReport, Trajectory
from renoise.record import Identity, Record, Scene

__all__ = ["VERSION", "ArchiveError", "dumps", "loads"]

VERSION = 2
"""Of the format written here.  Format 1 is read too: it has no latents of single steps, no kind of timesteps, and a
score and a source among the settings."""
_REPORT_TENSORS = ("residuals", "noise_travel", "noise_std", "noise_correlation")


class ArchiveError(ValueError):
    """A file that is no inversion, or one that does not belong to the pipeline at hand."""


def dumps(record: Record) -> bytes:
    """A record as bytes, whatever device its tensors are on."""
    trajectory, table, scene = record.trajectory, record.trajectory.table, record.scene
    tensors = {"z_T": trajectory.z_T, "z_0": record.z_0, "pixels": (record.pixels * 255).round().to(torch.uint8)}
    tensors |= {f"table.{name}": getattr(table, name) for name in COLUMNS}
    for name in ("noises", "step_latents"):
        if getattr(trajectory, name) is not None:
            tensors[name] = getattr(trajectory, name)
    for number, report in enumerate(trajectory.steps):
        measured = {name: getattr(report, name) for name in _REPORT_TENSORS}
        tensors |= {f"steps.{number}.{name}": value for name, value in measured.items() if value is not None}
    identity = record.identity
    header = {
        "version": VERSION,
        "model": record.model,
        "pipeline": {
            "class": identity.pipeline,
            "source": identity.source,
            "denoiser": identity.architecture,
            "weights": dict(identity.weights),
        },
        "scheduler": record.scheduler,
        "num_train_timesteps": table.num_train_timesteps,
        "integer_timesteps": table.integer_timesteps,
        "settings": _plain(record.settings),
        "prompts": scene.prompts,
        "negative_prompts": scene.negative_prompts,
        "inversion_guidance_scale": scene.guidance_scale,
        "pipe_kwargs": sorted(scene.pipe_kwargs),
        "driver": record.driver,
        "boxes": record.boxes,
        "batched": record.batched,
        "seconds": record.seconds,
        "passes": trajectory.passes,
        "steps": [{name: getattr(report, name) for name in ("step", "passes")} for report in trajectory.steps],
    }
    complete = {name: value.cpu().contiguous() for name, value in tensors.items()}
    data: bytes = serialise(complete, {"renoise": json.dumps(header)})
    return data


def loads(data: bytes, pipe_kwargs: Mapping[str, Any] | None = None, *, name: str = "this inversion") -> Record:
    """A record from bytes.

    Args:
        data: what `dumps` returned.
        pipe_kwargs: those that the inversion was made with; the bytes hold their names only.
        name: what errors call it, such as a path.

    Raises:
        ArchiveError: no inversion, a damaged one, a newer format, or pipe_kwargs that it was not made with.
    """
    header, tensors = _read(data, name)
    try:
        names: list[str] = header["pipe_kwargs"]
        record = _record(header, tensors, pipe_kwargs or {})
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ArchiveError(f"{name} is damaged ({type(error).__name__}: {error}); save the inversion again") from error
    if names != sorted(pipe_kwargs or {}):
        raise ArchiveError(
            f"{name} was made with pipe_kwargs for {', '.join(names) or 'nothing'}, not for "
            f"{', '.join(sorted(pipe_kwargs or {})) or 'nothing'}; a file holds no values of theirs: pass them, "
            "renoise.load(path, pipe, pipe_kwargs={...})"
        )
    return record


def _read(data: bytes, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of a version that is known here."""
    try:
        tensors = deserialise(data)
    except SafetensorError as error:
        raise ArchiveError(
            f"{name} is not a complete safetensors file ({error}); pass one that Inversion.save wrote"
        ) from error
    try:
        told = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        header = json.loads(told.get("__metadata__", {}).get("renoise", "null"))
        version = None if header is None else int(header["version"])
    except (KeyError, TypeError, ValueError) as error:
        raise ArchiveError(f"{name} has a damaged header ({error}); save the inversion again") from error
    if version is None:
        raise ArchiveError(f"{name} holds tensors but no inversion; pass a file that Inversion.save wrote")
    if version > VERSION:
        raise ArchiveError(f"{name} has format {version}, this renoise reads up to {VERSION}; update renoise")
    return header, tensors


def _record(header: dict[str, Any], tensors: dict[str, Tensor], pipe_kwargs: Mapping[str, Any]) -> Record:
    timesteps = tensors["table.timesteps"]
    whole = bool((timesteps == timesteps.round()).all())  # what format 1 leaves to be inferred
    table = StepTable(
        **{name: tensors[f"table.{name}"] for name in COLUMNS},
        num_train_timesteps=header["num_train_timesteps"],
        integer_timesteps=bool(header.get("integer_timesteps", whole)),
    )
    z_0, noises, step_latents = tensors["z_0"], tensors.get("noises"), tensors.get("step_latents")
    if tensors["z_T"].shape != z_0.shape or (table.stochastic and noises is None):
        raise ValueError("latents or noises are missing")
    for rows in (noises, step_latents):
        if rows is not None and rows.shape != (len(table), *z_0.shape):
            raise ValueError(f"noises or latents {list(rows.shape)} for {len(table)} steps of {list(z_0.shape)}")
    prompts, negatives = (
        None if texts is None else tuple(texts) for texts in (header["prompts"], header["negative_prompts"])
    )
    if not len(header["boxes"]) == len(tensors["pixels"]) == len(z_0) == len(z_0 if prompts is None else prompts):
        raise ValueError("it holds not as many pictures as prompts")
    reports = []
    for number, row in enumerate(header["steps"]):
        step = row["step"]
        measured: dict[str, Any] = {key: tensors.get(f"steps.{number}.{key}") for key in _REPORT_TENSORS}
        measured["residuals"] = tensors[f"steps.{number}.residuals"]
        reports.append(StepReport(step, float(table.timesteps[step]), table.level(step), row["passes"], **measured))
    made_with = header["pipeline"]
    return Record(
        identity=Identity(
            made_with["class"],
            made_with["source"],
            made_with["denoiser"],
            {key: tuple(numbers) for key, numbers in made_with["weights"].items()},
        ),
        model=header["model"],
        scheduler=header["scheduler"],
        settings=_settings(header["settings"]),
        scene=Scene(prompts, negatives, header["inversion_guidance_scale"], dict(pipe_kwargs)),
        driver=header["driver"],
        trajectory=Trajectory(table, tensors["z_T"], noises, tuple(reports), header["passes"], step_latents),
        z_0=z_0,
        pixels=tensors["pixels"].float() / 255,
        boxes=tuple((left, top, right, bottom) for left, top, right, bottom in header["boxes"]),
        seconds=header["seconds"],
        batched=header["batched"],
    )


def _plain(settings: Settings) -> dict[str, Any]:
    """Settings as JSON, with functions by name."""
    values = {field.name: getattr(settings, field.name) for field in fields(settings)}
    values["regions"] = [asdict(region) for region in settings.regions]
    values["edit_losses"] = settings.edit_losses and asdict(settings.edit_losses)
    return {name: _name(value) if callable(value) else value for name, value in values.items()}


def _settings(values: dict[str, Any]) -> Settings:
    values = {name: value for name, value in values.items() if name not in ("score", "source")}  # of format 1
    regions = [{**region, "weights": region["weights"] and tuple(region["weights"])} for region in values["regions"]]
    losses = values["edit_losses"] and EditLosses(**values["edit_losses"])
    values |= {"regions": tuple(Region(**region) for region in regions), "edit_losses": losses}
    if values["solver"] not in SOLVERS:
        values["solver"] = _Absent(values["solver"])
    if values.get("method") is not None:
        values["method"] = _Absent(values["method"])
    return Settings(**values)


def _name(function: Callable[..., Any]) -> str:
    while isinstance(function, partial):
        function = function.func
    return getattr(function, "name", None) or f"{function.__module__}.{function.__qualname__}"


@dataclass(frozen=True)
class _Absent:
    """Stands for a function of which a file knows the name alone."""

    name: str

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise ValueError(
            f"this inversion was made with {self.name}, and a file holds the name alone: pass settings with that "
            "function to invert"
        )
