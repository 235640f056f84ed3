"""The embedded models: small stock diffusers pipelines that ship with the package and need no network.

* ``emoji``: text to 64-pixel emoji, many steps (DDIM 50, guidance about 4).
* ``emoji-turbo``: distilled from it, four steps without guidance (ancestral Euler or LCM). It shares text encoder and
  auto-encoder with ``emoji``.

Their cards (weights/*/README.md) say how they were trained and how they score; training/ rebuilds them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from renoise.judge import Judge
from renoise.pipelines import loading
from renoise.pipelines.families import denoiser
from renoise.pipelines.loading import network_dtype, scheduler_class

WEIGHTS = Path(__file__).parent / "weights"
ABOUT = {
    "emoji": "text to 64-pixel emoji, many steps with guidance (DDIM 50)",
    "emoji-turbo": "the same in four steps without guidance (ancestral Euler or LCM)",
}
NAMES = tuple(ABOUT)
EXAMPLE = Path(__file__).parent / "assets/red-apple-blob.png"
"""A picture to try the embedded models on, which none of them ever saw: "red apple, blob style"."""


def load(name: str | os.PathLike[str], *, dtype: str | torch.dtype = "float32", scheduler: str | None = None) -> Any:
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
    if name not in NAMES:
        loading.check_name(name, NAMES)
    kind = scheduler_class(scheduler) if scheduler else None
    pipe = _embedded(name) if name in NAMES else loading.load(name, precision)
    if kind is not None:
        pipe.scheduler = kind.from_config(pipe.scheduler.config)
    if name in NAMES:
        # its auto-encoder stays float32: it is small, and its precision is the ceiling
        for network, wanted in ((pipe.unet, precision), (pipe.text_encoder, precision), (pipe.vae, torch.float32)):
            torch.nn.Module.to(network, wanted)  # not network.to, which logs a warning about any cast
    return pipe


def _embedded(name: str) -> Any:
    """A `StableDiffusionPipeline`; the few-step model shares all but UNet and scheduler with the other."""
    own = ("unet", "scheduler") if name == "emoji-turbo" else ()
    pipe = loading.load_embedded(WEIGHTS / "emoji", {part: WEIGHTS / name / part for part in own})
    # Convolutions on a CPU are faster in this layout.
    pipe.unet.to(memory_format=torch.channels_last)
    pipe.vae.to(memory_format=torch.channels_last)
    return pipe


def name_of(pipe: Any) -> str | None:
    """Which embedded model a pipeline is, or None."""
    source = Path(str(getattr(denoiser(pipe).config, "_name_or_path", "")))
    return source.parent.name if source.parent.parent == WEIGHTS else None


def judge() -> Judge:
    """The embedded image-text scorer that benchmarks and tests measure generated and edited pictures with."""
    from transformers import CLIPTokenizer

    return Judge.load(
        WEIGHTS / "judge", CLIPTokenizer.from_pretrained(WEIGHTS / "emoji/tokenizer", local_files_only=True)
    )
