"""An inversion in one file: tensors in safetensors, everything else as JSON in its header. No pickle.

The pipeline is not in the file. What is there is enough to tell whether a pipeline is the one that the inversion was
made with: its class, the configuration of its denoiser, a sample of the weights of its denoiser and text encoders, and
the sampler's measured steps. The precision of the pipeline may differ, and so may its auto-encoder.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from renoise import models
from renoise.api import Inversion, Scene, measured_table, plainly_scheduled
from renoise.core.loop import StepReport, Trajectory
from renoise.core.table import COLUMNS, StepTable
from renoise.pipelines.families import denoiser
from renoise.presets import EditLosses, Region, Settings

__all__ = ["VERSION", "ArchiveError", "load", "save", "write"]

VERSION = 1
_REPORT_TENSORS = ("residuals", "noise_travel", "noise_std", "noise_correlation")
_NETWORKS = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")
_SAME_WEIGHTS = 0.005  # relative distance of samples: rounding to bfloat16 is 0.001, fine-tuning 0.01 and more


class ArchiveError(ValueError):
    """A file that is no inversion, or one that does not belong to the pipeline at hand."""


def save(inversion: Inversion, path: str | os.PathLike[str]) -> None:
    """Writes an inversion to ``path``; an earlier file is replaced when the new one is complete, and not before."""
    trajectory, table = inversion.trajectory, inversion.table
    tensors = {"z_T": trajectory.z_T, "z_0": inversion.z_0, "pixels": (inversion.pixels * 255).round().to(torch.uint8)}
    tensors |= {f"table.{name}": getattr(table, name) for name in COLUMNS}
    if trajectory.noises is not None:
        tensors["noises"] = trajectory.noises
    for number, report in enumerate(trajectory.steps):
        measured = {name: getattr(report, name) for name in _REPORT_TENSORS}
        tensors |= {f"steps.{number}.{name}": value for name, value in measured.items() if value is not None}
    header = {
        "version": VERSION,
        "model": models.name_of(inversion.pipe),
        "pipeline": _identity(inversion.pipe),
        "scheduler": inversion.scheduler,
        "num_train_timesteps": table.num_train_timesteps,
        "settings": asdict(inversion.settings),
        "prompts": inversion.scene.prompts,
        "negative_prompts": inversion.scene.negative_prompts,
        "inversion_guidance_scale": inversion.scene.guidance_scale,
        "pipe_kwargs": sorted(inversion.scene.pipe_kwargs),
        "driver": inversion.driver,
        "boxes": inversion.boxes,
        "batched": inversion.batched,
        "seconds": inversion.seconds,
        "passes": trajectory.passes,
        "steps": [{name: getattr(report, name) for name in ("step", "passes")} for report in trajectory.steps],
    }
    complete = {name: value.cpu().contiguous() for name, value in tensors.items()}
    write(Path(path), serialise(complete, {"renoise": json.dumps(header)}))


def write(path: Path, data: bytes) -> None:
    """Writes a file and its folders under a temporary name first, so that nobody ever sees half of it.

    Raises:
        OSError: a place that cannot be written; what was there before stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def load(path: str | os.PathLike[str], pipe: Any = None, *, pipe_kwargs: Mapping[str, Any] | None = None) -> Inversion:
    """Reads an inversion back.

    Args:
        path: a file that ``Inversion.save`` wrote.
        pipe: the pipeline to regenerate with: that of the inversion, or an equal one in any floating precision. Needed
            unless the inversion was made with an embedded model, which is then loaded.
        pipe_kwargs: those that the inversion was made with; a file holds their names only.

    Raises:
        ArchiveError: no such file, no inversion, a newer format, or a pipeline, scheduler or pipe_kwargs that it was
            not made with.
    """
    path = Path(path)
    header, tensors = _read(path)
    try:
        inversion = _parse(header, tensors, pipe_kwargs or {})
        names: list[str] = header["pipe_kwargs"]
        made_with: dict[str, Any] = header["pipeline"]
        model: str | None = header["model"]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ArchiveError(f"{path} is damaged ({type(error).__name__}: {error}); save the inversion again") from error
    if pipe is None:
        if model is None:
            raise ArchiveError(
                f"{path} was made with a {made_with['class']} of yours ({made_with['source'] or 'not from a file'}); "
                "load that and pass it: renoise.load(path, pipe), or --model on the command line"
            )
        pipe = models.load(model, scheduler=inversion.scheduler)
    if names != sorted(pipe_kwargs or {}):
        raise ArchiveError(
            f"{path} was made with pipe_kwargs for {', '.join(names) or 'nothing'}, not for "
            f"{', '.join(sorted(pipe_kwargs or {})) or 'nothing'}; a file holds no values of theirs: pass them, "
            "renoise.load(path, pipe, pipe_kwargs={...})"
        )
    _check(path, made_with, inversion, pipe)
    device = pipe._execution_device
    trajectory = inversion.trajectory
    noises = None if trajectory.noises is None else trajectory.noises.to(device)
    return replace(
        inversion,
        pipe=pipe,
        trajectory=replace(trajectory, z_T=trajectory.z_T.to(device), noises=noises),
        z_0=inversion.z_0.to(device),
        pixels=inversion.pixels.to(device),
    )


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of a file of a version that is known here."""
    try:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "does not exist"
            raise ArchiveError(f"{path} {what}; pass a file that Inversion.save or `renoise invert` wrote")
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get("renoise")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ArchiveError(
            f"{path} is not a complete safetensors file ({error}); pass one that Inversion.save wrote"
        ) from error
    try:
        header = json.loads(text or "null")
        version = None if header is None else int(header["version"])
    except (KeyError, TypeError, ValueError) as error:
        raise ArchiveError(f"{path} has a damaged header ({error}); save the inversion again") from error
    if version is None:
        raise ArchiveError(f"{path} holds tensors but no inversion; pass a file that Inversion.save wrote")
    if version > VERSION:
        raise ArchiveError(f"{path} has format {version}, this renoise reads up to {VERSION}; update renoise")
    return header, tensors


def _parse(header: dict[str, Any], tensors: dict[str, Tensor], pipe_kwargs: Mapping[str, Any]) -> Inversion:
    """The inversion, without a pipeline."""
    table = StepTable(
        **{name: tensors[f"table.{name}"] for name in COLUMNS}, num_train_timesteps=header["num_train_timesteps"]
    )
    z_0, noises = tensors["z_0"], tensors.get("noises")
    if tensors["z_T"].shape != z_0.shape or (table.stochastic and noises is None):
        raise ValueError("latents or noises are missing")
    if noises is not None and noises.shape != (len(table), *z_0.shape):
        raise ValueError(f"noises {list(noises.shape)} for {len(table)} steps of latents {list(z_0.shape)}")
    prompts, negatives = (
        None if texts is None else tuple(texts) for texts in (header["prompts"], header["negative_prompts"])
    )
    if not len(header["boxes"]) == len(tensors["pixels"]) == len(z_0) == len(z_0 if prompts is None else prompts):
        raise ValueError("it holds not as many pictures as prompts")
    reports = []
    for number, row in enumerate(header["steps"]):
        step = row["step"]
        measured = {name: tensors.get(f"steps.{number}.{name}") for name in _REPORT_TENSORS}
        measured["residuals"] = tensors[f"steps.{number}.residuals"]
        reports.append(
            StepReport(step, float(table.timesteps[step]), table.level(step), row["passes"], **measured)  # type: ignore[arg-type]
        )
    return Inversion(
        pipe=None,
        scheduler=header["scheduler"],
        table=table,
        settings=_settings(header["settings"]),
        scene=Scene(prompts, negatives, header["inversion_guidance_scale"], dict(pipe_kwargs)),
        driver=header["driver"],
        trajectory=Trajectory(tensors["z_T"], noises, tuple(reports), header["passes"]),
        z_0=z_0,
        pixels=tensors["pixels"].float() / 255,
        boxes=tuple((left, top, right, bottom) for left, top, right, bottom in header["boxes"]),
        seconds=header["seconds"],
        batched=header["batched"],
    )


def _settings(values: dict[str, Any]) -> Settings:
    regions = [{**region, "weights": region["weights"] and tuple(region["weights"])} for region in values["regions"]]
    losses = values["edit_losses"] and EditLosses(**values["edit_losses"])
    return Settings(**{**values, "regions": tuple(Region(**region) for region in regions), "edit_losses": losses})


def _identity(pipe: Any) -> dict[str, Any]:
    """What tells one pipeline from another, whatever precision it is in, and where it came from."""
    networks = {name: getattr(pipe, name, None) for name in _NETWORKS}
    source = pipe.config.get("_name_or_path")
    return {
        "class": type(pipe).__name__,
        "source": str(source) if source else None,
        "denoiser": hashlib.sha256(_architecture(denoiser(pipe)).encode()).hexdigest()[:16],
        "weights": {name: _sample(network) for name, network in networks.items() if network is not None},
    }


def _architecture(network: Any) -> str:
    """The configuration as far as it is not the default, which later versions of diffusers add to."""
    kind = type(getattr(network, "_orig_mod", network))  # of a compiled network too
    default = {name: parameter.default for name, parameter in inspect.signature(kind.__init__).parameters.items()}
    told = {
        name: json.dumps(value, default=str) for name, value in dict(network.config).items() if not name.startswith("_")
    }
    usual = {name: json.dumps(value, default=str) for name, value in default.items()}
    return json.dumps({name: value for name, value in told.items() if usual.get(name) != value}, sort_keys=True)


def _sample(network: torch.nn.Module) -> list[float]:
    """Some numbers of eight weights spread over a network: enough to tell it from a fine-tuned one."""
    owners = {
        weight: (module, name)
        for module in network.modules()
        for name, weight in module.named_parameters(recurse=False)
        if weight.ndim > 1
    }
    weights = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    numbers: list[float] = []
    for chosen in weights[:: max(1, len(weights) // 8)]:
        module, name = owners[chosen]
        with _at_hand(module):
            weight = getattr(module, name).detach()
            if type(weight) is not Tensor:  # quantised
                weight = weight.dequantize()
            numbers += weight.flatten()[:16].tolist()
    return numbers


def _at_hand(module: torch.nn.Module) -> AbstractContextManager[Any]:
    """Has the weights of a module that accelerate offloads loaded inside."""
    if not hasattr(module, "_hf_hook"):
        return nullcontext()
    from accelerate.utils import align_module_device

    aligned: AbstractContextManager[Any] = align_module_device(module)
    return aligned


def _check(path: Path, then: dict[str, Any], inversion: Inversion, pipe: Any) -> None:
    """Refuses a pipeline that would regenerate something else."""
    table, scheduler = inversion.table, inversion.scheduler
    now: dict[str, Any] = (
        _identity(pipe)
        if any(hasattr(pipe, name) for name in ("unet", "transformer"))
        else {"class": type(pipe).__name__}
    )
    if then["class"] != now["class"]:
        raise ArchiveError(f"{path} was made with a {then['class']}, not a {now['class']}; pass one like that")
    if then["denoiser"] != now["denoiser"]:
        raise ArchiveError(
            f"{path} was made with a denoiser of another architecture; pass the pipeline that it was made with"
            f" ({then['source'] or 'not from a file'})"
        )
    for name in then["weights"].keys() & now["weights"].keys():  # a text encoder may be missing where embeddings came
        before, after = (torch.tensor(identity["weights"][name]) for identity in (then, now))
        if before.shape != after.shape or (after - before).norm() > _SAME_WEIGHTS * before.norm():
            raise ArchiveError(
                f"{path} was made with other weights in {name}; pass the checkpoint that it was made with"
                f" ({then['source'] or 'not from a file'})"
            )
    if scheduler != type(pipe.scheduler).__name__:
        raise ArchiveError(
            f"{path} was made with {scheduler}, this pipeline has {type(pipe.scheduler).__name__}; "
            f"use pipe.scheduler = {scheduler}.from_config(pipe.scheduler.config)"
        )
    if not plainly_scheduled(pipe, inversion.driver):
        return
    live = measured_table(pipe, inversion.settings.num_inference_steps).tail(len(table))
    for name in COLUMNS:
        if not torch.allclose(getattr(live, name), getattr(table, name), rtol=1e-5, atol=1e-7, equal_nan=True):
            raise ArchiveError(
                f"{path} was made with a {scheduler} whose steps differ from this one's (in {name}); "
                "give the scheduler the configuration that it had then"
            )
