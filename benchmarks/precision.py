"""What bfloat16 networks do to a reconstruction: the same pictures and settings in float32 and in bfloat16.

    python -m benchmarks.precision

The latents of the inversion and the auto-encoder are float32 in both cases.

    python -m benchmarks.precision --autoencoder

measures the auto-encoder alone instead, in float32, bfloat16 and float16: its round trip against the picture.
"""

import argparse
import statistics
from dataclasses import replace

import torch
from torch import Tensor

import renoise
from benchmarks import pictures
from renoise import metrics, models
from renoise.images import to_pil
from renoise.pipelines.adapter import Adapter
from renoise.pipelines.loading import DTYPES
from renoise.presets import PRESETS

BATCH = 16


def round_trips(pixels: Tensor, dtype: str) -> list[float]:
    """PSNR in dB of pictures through the embedded auto-encoder in a precision."""
    pipe = models.load("emoji-turbo")
    torch.nn.Module.to(pipe.vae, DTYPES[dtype])
    codec, size = Adapter(pipe).codec, (pixels.shape[2], pixels.shape[3])
    found = torch.cat([codec.decode(codec.encode(part), size) for part in torch.split(pixels, BATCH)])
    trips: list[float] = metrics.psnr(found, pixels).tolist()
    return trips


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", default="validation", choices=pictures.SPLITS)
    parser.add_argument("--count", type=int, default=32, help="how many pictures, from the first on")
    parser.add_argument("--autoencoder", action="store_true", help="measure the auto-encoder alone")
    args = parser.parse_args()
    chosen = pictures.load(args.split).first(args.count)
    if args.autoencoder:
        print(f"the auto-encoder's round trip, {args.count} pictures of {args.split}")
        for dtype in DTYPES:
            trips = round_trips(chosen.pixels, dtype)
            low, high = metrics.interval(trips)
            print(f"{dtype:9s} {statistics.mean(trips):.2f} dB [{low:.2f}, {high:.2f}] to the picture")
        return
    images = to_pil(chosen.pixels)
    settings = replace(PRESETS["paper-sdxl-turbo"].settings, edit_losses=None, correction=0.0)
    print(f"ancestral Euler, 4 steps, K = 9 with averaging, {args.count} pictures of {args.split}")
    for dtype in ("float32", "bfloat16"):
        pipe = models.load("emoji-turbo", dtype=dtype)
        pipe.set_progress_bar_config(disable=True)
        image, trip, seconds = [], [], 0.0
        for start in range(0, args.count, BATCH):
            part = slice(start, start + BATCH)
            inversion = renoise.invert(pipe, images[part], chosen.captions[part], preset=settings)
            found = inversion.regenerate(inversion.scene)
            image += metrics.psnr(found, inversion.pixels).tolist()
            trip += metrics.psnr(found, inversion.round_trip()).tolist()
            seconds += inversion.seconds
        low, high = metrics.interval(image)
        print(
            f"{dtype:9s} {statistics.mean(image):.2f} dB [{low:.2f}, {high:.2f}] to the picture, "
            f"{statistics.mean(trip):.2f} to the round trip, {seconds / args.count:.3f} s per picture"
        )


if __name__ == "__main__":
    main()
