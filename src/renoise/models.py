"""The embedded models: small stock diffusers pipelines that ship with the package and need no internet access.

* ``emoji``: text to small emoji images, in many steps (DDIM 50, guidance about 4).
* ``emoji-turbo``: distilled from ``emoji``, in four steps without guidance (ancestral Euler or LCM). It shares the text
  encoder and the auto-encoder with ``emoji``.
* ``emoji-turbo-sharp``: ``emoji-turbo`` with a LoRA that was trained by distribution matching, as SDXL Turbo's kin are.
  It draws sharper and is harder to invert. It needs peft.

Their model cards (weights/*/README.md) say how they were trained and how they score. The scripts in training/ rebuild
them.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import torch

from renoise import shipped
from renoise.core.checks import shown
from renoise.judge import Judge
from renoise.pipelines import loading
from renoise.pipelines.families import denoiser
from renoise.pipelines.loading import network_dtype, scheduler_class
from renoise.pipelines.names import check_name

WEIGHTS = shipped.WEIGHTS
NAMES = shipped.NAMES
ABOUT = {name: shipped.SHIPPED[name].about for name in NAMES}
EXAMPLE = Path(__file__).parent / "assets/red-apple-blob.png"
"""A picture to try the embedded models on, which none of them ever saw: "red apple, blob style"."""


def load(name: str | os.PathLike[str], *, dtype: str | torch.dtype = "float32", scheduler: str | None = None) -> Any:
    """Loads an embedded model as a stock ``StableDiffusionPipeline``, or any diffusers pipeline from a folder or hub.

    Args:
        name: one of ``NAMES`` (these need local files only), the folder of a diffusers pipeline, or its name on the
            Hugging Face hub.
        dtype: precision in which the networks run. The inversion keeps its latents in float32 in any case.
        scheduler: name of a diffusers scheduler class that replaces the model's own, e.g. ``"LCMScheduler"``.

    Raises:
        TypeError: the name is neither text nor a path.
        ValueError: the name, the precision or the scheduler is unknown.
        ImportError: the model is a LoRA, and there is no peft.
    """
    precision = network_dtype(dtype)
    name = os.fspath(name) if isinstance(name, os.PathLike) else name
    if not isinstance(name, str):
        raise TypeError(f"name={shown(name)} is no name: pass one of {', '.join(NAMES)}, a folder, or owner/name")
    if name not in NAMES:
        check_name(name, NAMES)
    kind = None if scheduler is None else scheduler_class(scheduler)
    pipe = _embedded(name) if name in NAMES else loading.load(name, precision)
    if kind is not None:
        pipe.scheduler = kind.from_config(pipe.scheduler.config)
    if name in NAMES:
        # The auto-encoder stays float32: it is small, and no reconstruction can be better than its round trip.
        for network, wanted in ((pipe.unet, precision), (pipe.text_encoder, precision), (pipe.vae, torch.float32)):
            torch.nn.Module.to(network, wanted)  # because network.to logs a warning about the cast
    return pipe


def _embedded(name: str) -> Any:
    """A `StableDiffusionPipeline`, with a LoRA as an adapter that has the model's name."""
    loras = shipped.loras(name)
    if loras and importlib.util.find_spec("peft") is None:
        raise ImportError(
            f'{name} is a LoRA, which diffusers loads by peft: pip install "renoise[lora]", or pip install peft'
        )
    whole, parts = shipped.parts(name)
    pipe = loading.load_embedded(WEIGHTS / whole, {part: WEIGHTS / owner / part for part, owner in parts.items()})
    for lora in loras:
        loading.load_lora(pipe, WEIGHTS / lora, lora)
    # Convolutions on a CPU are faster in this layout.
    pipe.unet.to(memory_format=torch.channels_last)
    pipe.vae.to(memory_format=torch.channels_last)
    return pipe


def name_of(pipe: Any) -> str | None:
    """The name of the embedded model that a pipeline is, or None."""
    network = denoiser(pipe)
    source = Path(str(getattr(network.config, "_name_or_path", "")))
    if source.parent.parent != WEIGHTS:
        return None
    adapters = getattr(network, "peft_config", {})
    return next((name for name in NAMES if shipped.SHIPPED[name].lora and name in adapters), source.parent.name)


def judge() -> Judge:
    """The embedded image-text scorer, with which benchmarks and tests measure generated and edited images."""
    from transformers import CLIPTokenizer

    return Judge.load(
        WEIGHTS / "judge", CLIPTokenizer.from_pretrained(WEIGHTS / "emoji/tokenizer", local_files_only=True)
    )
