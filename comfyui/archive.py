"""An inversion as one file: tensors in safetensors, everything else as JSON in its header.  No pickle.

The file is of the same kind as those of `renoise.archive`, with the same names for the same tensors and the same
SHA-256 digest over JSON and tensors.  `renoise.load` refuses it in words, because a diffusers pipeline cannot use it.
Conditioning, which may hold whole networks (ControlNet), stays out: wire it again after loading.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as deserialise
from safetensors.torch import save as serialise
from torch import Tensor

from renoise import ArchiveError, files
from renoise.archive import digest
from renoise.core.settings import Region, Settings
from renoise.core.table import COLUMNS, StepTable
from renoise.core.trajectory import StepReport, Trajectory

from .inversion import Inversion, Model

__all__ = ["dumps", "load", "loads", "save"]

_KEY, _VERSION = "renoise-comfyui", 1
_REPORTS = ("residuals", "noise_travel", "noise_std", "noise_correlation")


def dumps(inversion: Inversion) -> bytes:
    """An inversion as bytes."""
    trajectory, table, settings = inversion.trajectory, inversion.table, inversion.settings
    tensors = {"z_T": trajectory.z_T, "z_0": inversion.z_0, "samples": inversion.samples, "sigmas": inversion.sigmas}
    tensors |= {f"table.{name}": getattr(table, name) for name in COLUMNS}
    optional = {"noises": trajectory.noises, "step_latents": trajectory.step_latents, "mask": inversion.mask}
    for report in trajectory.steps:
        optional |= {f"steps.{report.step}.{name}": getattr(report, name) for name in _REPORTS}
    tensors |= {name: value for name, value in optional.items() if value is not None}
    header: dict[str, Any] = {
        "version": _VERSION,
        "model": asdict(inversion.model),
        "sampler": [inversion.sampler[0], dict(inversion.sampler[1])],
        "start": list(inversion.start),
        "num_train_timesteps": table.num_train_timesteps,
        "settings": {**asdict(settings), "regions": [asdict(region) for region in settings.regions]},
        "cfg": inversion.cfg,
        "seconds": inversion.seconds,
        "passes": [report.passes for report in trajectory.steps],
    }
    complete = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    told = json.loads(json.dumps(header))
    told["sha256"] = digest(told, complete)
    data: bytes = serialise(complete, {_KEY: json.dumps(told)})
    return data


def loads(data: bytes, name: str = "this inversion") -> Inversion:
    """An inversion from bytes, without its conditioning.

    Raises:
        ArchiveError: no such inversion, a damaged one, or a newer format.
    """
    try:
        tensors: dict[str, Tensor] = deserialise(data)
        metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
    except (SafetensorError, ValueError) as error:
        raise ArchiveError(f"{name} is no complete safetensors file ({error}): save the inversion again") from error
    if _KEY not in metadata:
        of = "a diffusers pipeline" if "renoise" in metadata else "another program"
        raise ArchiveError(f"{name} is a file of {of}: load one that ReNoise Save Inversion wrote")
    try:
        header = json.loads(metadata[_KEY])
        if header["version"] > _VERSION:
            raise ArchiveError(f"{name} has format {header['version']}, newer than {_VERSION}: update the node pack")
        if header["sha256"] != digest(header, tensors):
            raise ArchiveError(f"{name} is damaged, its digest differs: take another copy, or save the inversion again")
        return _inversion(header, tensors)
    except ArchiveError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise ArchiveError(f"{name} is damaged ({type(error).__name__}: {error}): save the inversion again") from error


def save(inversion: Inversion, path: Path) -> None:
    """Writes a file; an earlier one is replaced when the new one is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, dumps(inversion))


def load(path: str | os.PathLike[str]) -> Inversion:
    """Reads a file that `save` wrote.

    Raises:
        ArchiveError: no such file, or what `loads` raises.
    """
    path = Path(path)
    if not path.is_file():
        raise ArchiveError(f"{path} does not exist: pick a file that ReNoise Save Inversion wrote")
    return loads(path.read_bytes(), path.name)


def _inversion(header: dict[str, Any], tensors: dict[str, Tensor]) -> Inversion:
    columns: dict[str, Any] = {name: tensors[f"table.{name}"] for name in COLUMNS}
    table = StepTable(**columns, num_train_timesteps=header["num_train_timesteps"])
    values = header["settings"]
    values["regions"] = tuple(Region(**region) for region in values["regions"])
    reports = []
    for step, passes in enumerate(header["passes"]):
        report = StepReport(
            step, float(table.timesteps[step]), table.level(step), passes, tensors[f"steps.{step}.residuals"]
        )
        found: dict[str, Any] = {
            name: tensors[key] for name in _REPORTS[1:] if (key := f"steps.{step}.{name}") in tensors
        }
        reports.append(replace(report, **found))
    z_T, noises, latents = (tensors.get(name) for name in ("z_T", "noises", "step_latents"))  # noqa: N806
    z_0, sigmas = tensors["z_0"], tensors["sigmas"]
    for name, rows in (("noises", noises), ("step_latents", latents)):
        if rows is not None and rows.shape != (len(table), *z_0.shape):
            raise ValueError(f"{name} are {list(rows.shape)} for {len(table)} steps of {list(z_0.shape)}")
    if z_T is None or z_T.shape != z_0.shape or (noises is None and table.stochastic) or len(sigmas) != len(table) + 1:
        raise ValueError("latents, noises or sigmas are missing")
    if not all(value.isfinite().all() for key, value in tensors.items() if not key.startswith("table.")):
        raise ValueError("a tensor is not finite")
    return Inversion(
        model=Model(**header["model"]),
        trajectory=Trajectory(table, z_T, noises, tuple(reports), sum(header["passes"]), latents),
        z_0=z_0,
        samples=tensors["samples"],
        mask=tensors.get("mask"),
        sigmas=sigmas,
        sampler=(header["sampler"][0], header["sampler"][1]),
        start=(header["start"][0], header["start"][1]),
        settings=Settings(**values),
        cfg=header["cfg"],
        seconds=header["seconds"],
    )
