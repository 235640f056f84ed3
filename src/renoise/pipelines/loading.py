"""Load a diffusers pipeline by name, in a precision, with a scheduler of one's choice."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

__all__ = ["DTYPES", "check_name", "load", "load_embedded", "network_dtype", "quieten", "scheduler_class"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Precisions of networks by name."""


def network_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """A floating dtype from its name.

    Raises:
        ValueError: not one of float32, bfloat16 and float16.
    """
    found = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or found not in DTYPES.values():
        raise ValueError(f"dtype={dtype!r} is not a network precision; choose one of {', '.join(DTYPES)}")
    return found


def scheduler_class(name: str) -> Any:
    """A scheduler's class from its name.

    Raises:
        ValueError: diffusers has no such scheduler.
    """
    import diffusers

    kind = getattr(diffusers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)):
        raise ValueError(
            f"diffusers has no scheduler {name!r}; try EulerAncestralDiscreteScheduler, LCMScheduler or DDIMScheduler"
        )
    return kind


def check_name(name: str, embedded: Sequence[str]) -> None:
    """Refuses what is neither the folder of a pipeline nor a name on the hub, before any library is imported.

    Args:
        name: of a pipeline that is no embedded model.
        embedded: names of the embedded models, for the error.

    Raises:
        ValueError: such a name.
    """
    if (Path(name) / "model_index.json").is_file():
        return
    if name and Path(name).is_dir():
        raise ValueError(f"the folder {name!r} holds no model_index.json, so it is no diffusers pipeline")
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name):
        raise ValueError(
            f"no embedded model is called {name!r}; there are {', '.join(embedded)}; or name the folder of a "
            "diffusers pipeline, or one on the hub as owner/name"
        )


def load(name: str, dtype: torch.dtype) -> Any:
    """A pipeline from a folder, or from the hub as owner/name."""
    import diffusers

    return diffusers.DiffusionPipeline.from_pretrained(name, dtype=dtype)


def load_embedded(folder: Path, parts: Mapping[str, Path]) -> Any:
    """A `StableDiffusionPipeline` from a folder, offline, with its UNet or scheduler from folders of their own."""
    import diffusers

    # low_cpu_mem_usage=True, the default, asks for accelerate
    files: dict[str, Any] = {"local_files_only": True, "low_cpu_mem_usage": False}
    made: dict[str, Any] = {}
    if "unet" in parts:
        made["unet"] = diffusers.UNet2DConditionModel.from_pretrained(parts["unet"], **files)
    if "scheduler" in parts:
        config = json.loads((parts["scheduler"] / "scheduler_config.json").read_text())
        made["scheduler"] = scheduler_class(config["_class_name"]).from_config(config)
    return diffusers.StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, **files, **made)


def quieten() -> None:
    """Keeps the loading bars of the libraries off the screen; diffusers still says where a prompt is too long."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
