"""The embedded models: small stock diffusers pipelines that ship with the package and need no network.

* ``emoji``: text to 64-pixel emoji, many steps (DDIM 50, guidance about 4).
* ``emoji-turbo``: distilled from it, four steps without guidance (ancestral Euler or LCM). It shares text encoder and
  auto-encoder with ``emoji``.

Their cards (weights/*/README.md) say how they were trained and how they score; training/ rebuilds them.
"""

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from renoise.pipelines.families import denoiser

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

    from renoise.judge import Judge

WEIGHTS = Path(__file__).parent / "weights"
ABOUT = {
    "emoji": "text to 64-pixel emoji, many steps with guidance (DDIM 50)",
    "emoji-turbo": "the same in four steps without guidance (ancestral Euler or LCM)",
}
NAMES = tuple(ABOUT)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def network_dtype(dtype: "str | torch.dtype") -> torch.dtype:
    """A floating dtype from its name.

    Raises:
        ValueError: not one of float32, bfloat16 and float16.
    """
    found = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or found not in DTYPES.values():
        raise ValueError(f"dtype={dtype!r} is not a network precision; choose one of {', '.join(DTYPES)}")
    return found


def load(
    name: "str | os.PathLike[str]", *, dtype: "str | torch.dtype" = "float32", scheduler: str | None = None
) -> Any:
    """Loads an embedded model as a stock ``StableDiffusionPipeline``, or any diffusers pipeline from a folder or hub.

    Args:
        name: one of ``NAMES`` (local files only), the folder of a diffusers pipeline, or its name on the hub.
        dtype: precision that the networks run in; the inversion keeps its own state in float32 whatever it is.
        scheduler: name of a diffusers scheduler class to put in place of the model's own, e.g. ``"LCMScheduler"``.

    Raises:
        ValueError: an unknown name, precision or scheduler.
    """
    precision = network_dtype(dtype)
    name = os.fspath(name)
    embedded = name in NAMES
    if not embedded and not (Path(name) / "model_index.json").is_file():
        if name and Path(name).is_dir():
            raise ValueError(f"the folder {name!r} holds no model_index.json, so it is no diffusers pipeline")
        if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name):
            raise ValueError(
                f"no embedded model is called {name!r}; there are {', '.join(NAMES)}; or name the folder of a "
                "diffusers pipeline, or one on the hub as owner/name"
            )
    import diffusers

    kind = getattr(diffusers, scheduler, None) if scheduler else None
    if scheduler and not (isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)):
        raise ValueError(
            f"diffusers has no scheduler {scheduler!r}; try EulerAncestralDiscreteScheduler, LCMScheduler or "
            "DDIMScheduler"
        )
    pipe = _embedded(name) if embedded else diffusers.DiffusionPipeline.from_pretrained(name, dtype=precision)
    if kind is not None:
        pipe.scheduler = kind.from_config(pipe.scheduler.config)
    if not embedded:
        return pipe
    # its auto-encoder stays float32: it is small, and its precision is the ceiling
    for network, wanted in ((pipe.unet, precision), (pipe.text_encoder, precision), (pipe.vae, torch.float32)):
        torch.nn.Module.to(network, wanted)  # not network.to, which logs a warning about any cast
    return pipe


def _embedded(name: str) -> "StableDiffusionPipeline":
    import diffusers

    parts: dict[str, Any] = {}
    files = {"local_files_only": True, "low_cpu_mem_usage": False}  # True, the default, asks for accelerate
    if name == "emoji-turbo":
        config = json.loads((WEIGHTS / name / "scheduler/scheduler_config.json").read_text())
        parts = {
            "unet": diffusers.UNet2DConditionModel.from_pretrained(WEIGHTS / name / "unet", **files),
            "scheduler": getattr(diffusers, config["_class_name"]).from_config(config),
        }
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(WEIGHTS / "emoji", safety_checker=None, **files, **parts)
    # Convolutions on a CPU are faster in this layout.
    pipe.unet.to(memory_format=torch.channels_last)
    pipe.vae.to(memory_format=torch.channels_last)
    return pipe


def name_of(pipe: Any) -> str | None:
    """Which embedded model a pipeline is, or None."""
    source = Path(str(getattr(denoiser(pipe).config, "_name_or_path", "")))
    return source.parent.name if source.parent.parent == WEIGHTS else None


def judge() -> "Judge":
    """The embedded image-text scorer that benchmarks and tests measure generated and edited pictures with."""
    from transformers import CLIPTokenizer

    from renoise.judge import Judge

    return Judge.load(
        WEIGHTS / "judge", CLIPTokenizer.from_pretrained(WEIGHTS / "emoji/tokenizer", local_files_only=True)
    )
