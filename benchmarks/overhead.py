"""How much time of an inversion is spent outside the network: a batch of 8 on emoji-turbo, with several settings.

    python -m benchmarks.overhead

The time inside the network is measured by hooks, from entering to leaving the UNet.  The rest of `renoise.invert`
without the auto-encoder (loop, solver, edit losses, correction, prompts, copies) is the share outside.  Prints medians
over runs in one process.
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
    """Seconds of an inversion without the auto-encoder, and the share of them outside the network, 0 to 1."""
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
    parser.add_argument("--runs", type=int, default=7, help="timed inversions of each kind")
    parser.add_argument("--dtype", default="float32", help="precision of the network")
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
        print(f"{name:14s} {seconds:6.2f} s per inversion, outside the network {outside:.1%} (runs from {spread})")


if __name__ == "__main__":
    main()
