"""What share of an inversion is not the network: batch 8 of the embedded UNet, by default and as published.

    python -m benchmarks.overhead

Network time is that between entering and leaving the UNet, by hooks; the rest of `renoise.invert` after its
auto-encoder (loop, solver, edit losses, correction, prompts, copies) is the share. Medians of runs in one process.
"""

import argparse
import statistics
import time
from dataclasses import replace
from typing import Any

import torch
from PIL import Image

from benchmarks import pictures
from renoise import models
from renoise.api import invert
from renoise.core.settings import Settings
from renoise.images import to_pil
from renoise.pipelines.adapter import Adapter
from renoise.presets import PRESETS

BATCH = 8


def share(pipe: Any, images: list[Image.Image], captions: list[str], settings: Settings) -> tuple[float, float]:
    """(seconds of the inversion without the auto-encoder, share of them outside the network)."""
    entered, network = 0.0, 0.0

    def enter(*_: object) -> None:
        nonlocal entered
        entered = time.perf_counter()

    def leave(*_: object) -> None:
        nonlocal network
        network += time.perf_counter() - entered

    hooks = [pipe.unet.register_forward_pre_hook(enter), pipe.unet.register_forward_hook(leave)]
    inversion = invert(pipe, images, captions, preset=settings)
    for hook in hooks:
        hook.remove()
    started = time.perf_counter()
    Adapter(pipe).codec.encode(inversion.pixels)
    total = inversion.seconds - (time.perf_counter() - started)
    return total, 1 - network / total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    chosen = pictures.load("validation").first(BATCH)
    images = to_pil(chosen.pixels)
    full = PRESETS["paper-sdxl-turbo"].settings
    variants = {
        "few-step": PRESETS["few-step"].settings,
        "averaging": replace(full, edit_losses=None, correction=0.0),
        "+ correction": replace(full, edit_losses=None),
        "+ edit losses": full,
    }
    pipe = models.load("emoji-turbo", dtype=args.dtype)
    pipe.set_progress_bar_config(disable=True)
    print(f"{torch.get_num_threads()} threads, {args.dtype}, batch {BATCH}, {args.runs} runs")
    for name, settings in variants.items():
        share(pipe, images, chosen.captions, settings)
        runs = [share(pipe, images, chosen.captions, settings) for _ in range(args.runs)]
        seconds, outside = (statistics.median(column) for column in zip(*runs, strict=True))
        spread = f"{min(r[1] for r in runs):.1%} to {max(r[1] for r in runs):.1%}"
        print(f"{name:14s} {seconds:6.2f} s an inversion, outside the network {outside:.1%} (of the runs: {spread})")


if __name__ == "__main__":
    main()
