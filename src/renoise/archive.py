"""A record as bytes: tensors in safetensors, everything else as JSON in its header. No pickle, no pipeline.

The bytes are what a file of an inversion holds (see `renoise.load`), and what another process may be handed.  Of
keywords of the pipeline's own call (`pipe_kwargs`) only the names are kept, and of solvers and methods of one's own.

A SHA-256 digest of the JSON and of all tensors is part of the header.  Reading compares it, so that a changed bit is an
error and not another picture.  It protects against damage, not against somebody who computes it anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Any, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load as deserialise
from safetensors.torch import save as serialise
from torch import Tensor

from renoise.core.checks import keywords, scalar
from renoise.core.settings import EditLosses, Region, Settings
from renoise.core.solvers import SOLVERS
from renoise.core.table import COLUMNS, StepTable
from renoise.core.trajectory import StepReport, Trajectory
from renoise.record import Driver, Identity, Record, Scene
from renoise.schema import HEADER, SETTINGS, check, check_tensors

__all__ = ["VERSION", "ArchiveError", "digest", "dumps", "loads"]

VERSION = 2
"""Of the format written here.  Format 1 is read too: it has no digest, no latents of single steps, and no kind of
timesteps, knows a network by sixteen numbers of eight weights, and has a score and a source among the settings."""
_REPORT_TENSORS = ("residuals", "noise_travel", "noise_std", "noise_correlation")


class ArchiveError(ValueError):
    """A file that is no inversion, or one that does not belong to the pipeline at hand."""


def dumps(record: Record, *, latents: torch.dtype | None = None) -> bytes:
    """A record as bytes, whatever device its tensors are on.

    Args:
        record: what to write.
        latents: a precision to keep latents and noises in, such as torch.float16, which takes half the room and is read
            back as float32; by default their own.
    """
    if latents is not None:
        trajectory = record.trajectory.mapped(lambda value: value.to(latents))
        record = replace(record, trajectory=trajectory, z_0=record.z_0.to(latents))
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
    weights: dict[str, Any] = {"weights": identity.weights} if identity.sampling == 1 else {}
    if identity.sampling == 2:
        weights = {"networks": sorted(identity.weights), "quantised": sorted(identity.quantised)}
        tensors |= {f"weights.{name}": torch.tensor(numbers) for name, numbers in identity.weights.items()}
    header = {
        "version": VERSION,
        "model": record.model,
        "pipeline": {
            "class": identity.pipeline,
            "source": identity.source,
            "denoiser": identity.architecture,
            **weights,
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
    complete = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    told = json.loads(json.dumps(header, default=_number))
    told["sha256"] = digest(told, complete)
    data: bytes = serialise(_apart(complete), {"renoise": json.dumps(told)})
    return data


def digest(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256, in hexadecimal digits, of the JSON but for itself, and of all tensors: names, dtypes, shapes, bytes."""
    told = {name: value for name, value in header.items() if name != "sha256"}
    total = hashlib.sha256(json.dumps(told).encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        total.update(f"\0{name}\0{value.dtype}\0{list(value.shape)}\0".encode())
        row = value.as_strided((value.numel(),), (1,))  # a stride of 1, also where there is one element
        total.update(row.view(torch.uint8).numpy().data)
    return total.hexdigest()


def loads(data: bytes, pipe_kwargs: Mapping[str, Any] | None = None, *, name: str = "this inversion") -> Record:
    """A record from bytes.

    Args:
        data: what `dumps` returned.
        pipe_kwargs: those that the inversion was made with; the bytes hold their names only.
        name: what errors call it, such as a path.

    Raises:
        ArchiveError: no inversion, a damaged one, a newer format, or pipe_kwargs that it was not made with.
    """
    given = sorted(keywords("pipe_kwargs", pipe_kwargs))
    header, tensors = _read(data, name)
    try:
        check(header, HEADER)
        record = _record(header, tensors, pipe_kwargs or {})
    except KeyError as error:
        raise ArchiveError(f"{name} is damaged (it lacks {error}); save the inversion again") from error
    except (AttributeError, IndexError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        if "is above the limit" in str(error):
            raise ArchiveError(f"{name} was made with a limit raised: {error}") from error
        raise ArchiveError(f"{name} is damaged ({type(error).__name__}: {error}); save the inversion again") from error
    names = sorted(header["pipe_kwargs"])
    if names != given:
        raise ArchiveError(
            f"{name} was made with pipe_kwargs for {', '.join(names) or 'nothing'}, not for "
            f"{', '.join(given) or 'nothing'}; a file holds no values of theirs: pass them, "
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
        told = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {}).get("renoise")
        header = None if told is None else json.loads(told)
        version = 1 if header is None else header["version"]
        if isinstance(version, bool) or not isinstance(version, int) or version < 1:
            raise ValueError(f"version {version!r} is no number of a format")
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ArchiveError(f"{name} has a damaged header ({error}); save the inversion again") from error
    if header is None:
        raise ArchiveError(f"{name} holds tensors but no inversion; pass a file that Inversion.save wrote")
    if version > VERSION:
        raise ArchiveError(f"{name} has format {version}, this renoise reads up to {VERSION}; update renoise")
    kept = header.get("sha256")
    if kept is None and version > 1:
        raise ArchiveError(f"{name} is damaged: its digest is missing; take a copy of it, or save the inversion again")
    if kept is not None and kept != digest(header, tensors):
        raise ArchiveError(
            f"{name} is damaged: its content is not what was saved (its SHA-256 digest differs); take another copy of "
            "it, or save the inversion again"
        )
    return header, tensors


def _record(header: dict[str, Any], tensors: dict[str, Tensor], pipe_kwargs: Mapping[str, Any]) -> Record:
    check_tensors(header, tensors)
    timesteps = tensors["table.timesteps"]
    whole = bool((timesteps == timesteps.round()).all())  # what format 1 leaves to be inferred
    table = StepTable(
        **{name: tensors[f"table.{name}"] for name in COLUMNS},
        num_train_timesteps=header["num_train_timesteps"],
        integer_timesteps=bool(header.get("integer_timesteps", whole)),
    )
    tensors |= {name: _wide(tensors[name]) for name in ("z_T", "z_0", "noises", "step_latents") if name in tensors}
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
    if header["driver"] not in get_args(Driver):
        raise ValueError(f"driver {header['driver']!r} is none of {', '.join(get_args(Driver))}")
    return Record(
        identity=_identity(header["pipeline"], tensors),
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


def _wide(latents: Tensor) -> Tensor:
    """float32 in place of half precision, which latents may be kept in and nothing is computed in."""
    return latents.float() if latents.element_size() < 4 else latents


def _identity(made_with: dict[str, Any], tensors: dict[str, Tensor]) -> Identity:
    told = (made_with["class"], made_with["source"], made_with["denoiser"])
    if "weights" in made_with:
        return Identity(*told, {key: tuple(numbers) for key, numbers in made_with["weights"].items()}, sampling=1)
    weights = {name: tuple(tensors[f"weights.{name}"].tolist()) for name in made_with["networks"]}
    return Identity(*told, weights, quantised=tuple(made_with["quantised"]))


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, none of which shares memory with another: safetensors refuses those that do."""
    seen: set[int] = set()
    for name, value in tensors.items():
        memory = value.untyped_storage().data_ptr()
        tensors[name] = value.clone() if memory in seen else value
        seen.add(memory)
    return tensors


def _number(value: object) -> Any:
    """Numbers of numpy and torch, which a method of one's own may report, as JSON knows them."""
    found = scalar(value)
    if found is value:
        raise TypeError(f"{value!r} in a record is no number, text or list: report plain numbers")
    return found


def _plain(settings: Settings) -> dict[str, Any]:
    """Settings as JSON, with functions by name."""
    values = {field.name: getattr(settings, field.name) for field in fields(settings)}
    values["regions"] = [asdict(region) for region in settings.regions]
    values["edit_losses"] = settings.edit_losses and asdict(settings.edit_losses)
    return {name: _name(value) if callable(value) else value for name, value in values.items()}


def _settings(values: dict[str, Any]) -> Settings:
    values = {name: value for name, value in values.items() if name not in ("score", "source")}  # of format 1
    check(values, SETTINGS, "settings")
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
    name = getattr(function, "name", None)
    if isinstance(name, str):
        return name
    named = function if hasattr(function, "__qualname__") else type(function)  # an object that can be called
    return f"{named.__module__}.{named.__qualname__}"


@dataclass(frozen=True)
class _Absent:
    """Stands for a function of which a file knows the name alone."""

    name: str

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise ValueError(
            f"this inversion was made with {self.name}, and a file holds the name alone: pass settings with that "
            "function to invert"
        )
