"""Stage 3: the auto-encoder that ships, 128x128 pixels to 8x16x16 latents, grown from the one for 64 pixels.

    python -m training.grow --work WORK
    python -m training.grow --work WORK --measure test

The new outermost level starts as the mean of 2x2 pixels on the way in and as bilinear enlargement on the way out. The
first four channels of the latents are held near those of the small auto-encoder for the picture at 64 pixels, so that
a UNet that was trained on these can go on; the four channels beside them are free to carry detail, and stay smaller.

One run in three parts: crops of 64 pixels with the first loss of stage 2; crops with its loss of polish, most of them
from pictures whose error is large; then whole pictures, chosen in the same way, since the norms of whole pictures see
other statistics. Four crops cost as much as one whole picture and are counted so. The errors are kept in memory only:
a run that is resumed starts to collect them again. Writes WORK/grown/checkpoint.safetensors (resumable) and
WORK/grown/model (diffusers format).
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from training.autoencoder import build, latents_of, psnr, recoloured, reconstruction_loss, round_trip_psnr, standardise
from training.fused import fuse
from training.loop import DEVICE, Run, fast_precision, keep_memory, load_average, train
from training.pictures import Pictures, load_split

SIDE, CROP = 128, 64
WIDTHS = (32, 32, 64, 128)
CHANNELS, ANCHORED = 8, 4
POLISH, WHOLE = 0.5, 0.65  # shares of the run after which the loss, then the pictures change
SHIPPED = Path(__file__).parents[1] / "src/renoise/weights/emoji/vae"


def small_autoencoder(work: Path) -> AutoencoderKL:
    """The one of stage 2, or where it was not trained here, the one that is shipped."""
    trained = work / "autoencoder/model"
    small = AutoencoderKL.from_pretrained(trained if trained.exists() else SHIPPED)
    if small.config.sample_size * 2 != SIDE:
        raise SystemExit(f"needs an auto-encoder for {SIDE // 2} pixels: run stage 2, python -m training.autoencoder")
    return small.to(memory_format=torch.channels_last).requires_grad_(False)


@torch.no_grad()
def grow(small: AutoencoderKL) -> AutoencoderKL:
    """A larger auto-encoder that starts out close to the small one between a halving and an enlargement."""
    large = build(SIDE, WIDTHS, CHANNELS)
    state = large.state_dict()
    for name, value in small.state_dict().items():
        place = name.split(".")
        if name.startswith("encoder.down_blocks"):
            place[2] = str(int(place[2]) + 1)
        if state[".".join(place)].shape == value.shape and name not in (
            "encoder.conv_in.weight",
            "encoder.conv_in.bias",
        ):
            state[".".join(place)].copy_(value)
    _halve(state, small.encoder.conv_in)
    # Bilinear enlargement: nearest neighbours, then this filter on every channel alone. The block behind adds nothing.
    tent = torch.tensor([0.25, 0.5, 0.25])
    up = state["decoder.up_blocks.2.upsamplers.0.conv.weight"].zero_()
    up.diagonal(dim1=0, dim2=1).copy_((tent[:, None] * tent)[:, :, None].expand(3, 3, len(up)))
    state["decoder.up_blocks.2.upsamplers.0.conv.bias"].zero_()
    for block in ("encoder.down_blocks.0.resnets.0", "decoder.up_blocks.3.resnets.0", "decoder.up_blocks.3.resnets.1"):
        state[f"{block}.conv2.weight"].zero_()
        state[f"{block}.conv2.bias"].zero_()
    # The door: means of the known channels, means of the new ones, then logarithms of variances in the same order.
    known = [*range(ANCHORED), *range(CHANNELS, CHANNELS + ANCHORED)]
    for part in ("weight", "bias"):
        state[f"encoder.conv_out.{part}"][CHANNELS + ANCHORED :] = 0
        state[f"encoder.conv_out.{part}"][known] = getattr(small.encoder.conv_out, part)
    for name, module, places in (
        ("quant_conv", small.quant_conv, known),
        ("post_quant_conv", small.post_quant_conv, list(range(ANCHORED))),
    ):
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        weight.copy_(torch.eye(len(weight))[:, :, None, None])
        bias.zero_()
        for i, row in enumerate(places):
            weight[row, places] = module.weight[i]
            bias[row] = module.bias[i]
    state["quant_conv.bias"][CHANNELS + ANCHORED :] = -4
    state["decoder.conv_in.weight"].zero_()[:, :ANCHORED] = small.decoder.conv_in.weight
    large.load_state_dict(state)
    return large


def _halve(state: dict[str, Tensor], old: nn.Conv2d) -> None:
    """The first convolution and the halving one behind it do what ``old`` does on means of 2x2 pixels.

    The halving convolution looks right and down only, so the first one lays out for every pixel the mean of it and
    its right neighbour, and beside it its left neighbour (the same down the picture). The mean of the farther pair to
    the left would reach one pixel too far: its nearer pixel stands for it.
    """
    pair, left = torch.tensor([0, 0.5, 0.5]), torch.tensor([1.0, 0, 0])
    first, halving = state["encoder.conv_in.weight"], state["encoder.down_blocks.0.downsamplers.0.conv.weight"]
    state["encoder.conv_in.bias"][:12] = 0
    first[:12] = 0
    halving.zero_()
    for colour in range(3):
        for i, down in enumerate((left, pair)):
            for j, across in enumerate((left, pair)):
                channel = 4 * colour + 2 * i + j
                first[channel, colour] = down[:, None] * across
                for y in (1, 2) if i else (0,):
                    for x in (1, 2) if j else (0,):
                        halving[:, channel, max(0, 2 * y - 2), max(0, 2 * x - 2)] = old.weight[:, colour, y, x]
    assert old.bias is not None
    state["encoder.down_blocks.0.downsamplers.0.conv.bias"].copy_(old.bias)


def crops_of(pictures: Pictures, index: Tensor, generator: torch.Generator) -> Tensor:
    """One crop of each picture: of two random ones that which has more in it."""
    corners = torch.randint(0, SIDE - CROP + 1, (len(index), 2, 2), generator=generator).tolist()
    crops = []
    for i, pair in zip(index.tolist(), corners, strict=True):
        both = [pictures.large[i, :, y : y + CROP, x : x + CROP].float() / 127.5 - 1 for y, x in pair]
        crops.append(max(both, key=lambda crop: float(crop.diff(dim=2).abs().mean())))
    return torch.stack(crops)


def measure(model: AutoencoderKL, small: AutoencoderKL, work: Path, split: str) -> dict[str, Any]:
    """The round trip in float32, and how far the anchored latents are today's."""
    pictures = load_split(work, split)
    scores = round_trip_psnr(model, pictures, fast=False)
    latents, goal = latents_of(model, pictures), latents_of(small, pictures)
    left = (latents[:, :ANCHORED] - goal).square().mean() / goal.square().mean()
    neighbours = (latents[..., 1:] * latents[..., :-1]).mean((0, 2, 3)) / latents.square().mean((0, 2, 3))
    return {
        "n": len(scores),
        "mean_db": round(float(scores.mean()), 2),
        "p5_db": round(float(scores.quantile(0.05)), 2),
        "worst_db": round(float(scores.min()), 2),
        "anchor_r2": round(1 - float(left), 4),
        "channel_std": [round(x, 2) for x in latents.std((0, 2, 3)).tolist()],
        "neighbour_correlation": [round(x, 2) for x in neighbours.tolist()],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/training"))
    parser.add_argument("--images", type=int, default=56_000, help="whole pictures, four crops counted as one")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--measure", metavar="SPLIT", help="only measure what is there, and print it")
    args = parser.parse_args()
    keep_memory()
    torch.manual_seed(0)
    small = small_autoencoder(args.work).to(DEVICE)
    model = grow(small.cpu()).to(DEVICE, memory_format=torch.channels_last)
    small.to(DEVICE)
    trained = nn.ModuleDict({"vae": model})
    run = Run(args.work / "grown", args.images, batch=args.batch, learning_rate=5e-4)
    if args.measure:
        if (run.folder / "model").exists():
            model = AutoencoderKL.from_pretrained(run.folder / "model").to(DEVICE, memory_format=torch.channels_last)
        elif (run.folder / "checkpoint.safetensors").exists():
            load_average(run.folder / "checkpoint.safetensors", trained)
        print(json.dumps({"split": args.measure} | measure(model, small, args.work, args.measure)))
        return
    pictures, validation = load_split(args.work, "train"), load_split(args.work, "validation")
    fuse(model)
    fuse(small)
    total = run.images / run.batch
    error = torch.full((len(pictures),), 0.05)

    def loss_of(step: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(step)
        polish, whole = step >= POLISH * total, step >= WHOLE * total
        count = run.batch if whole else 4 * run.batch
        even = torch.randint(len(pictures), (count,), generator=generator)
        hard = torch.multinomial(error, count, generator=generator)
        index = torch.cat([hard[: count * 3 // 4], even[count * 3 // 4 :]]) if polish else even
        image = pictures.sized(SIDE, index) if whole else crops_of(pictures, index, generator)
        plain = count * 3 // 4 if polish else count // 2
        recoloured(image[plain:], generator)
        image = image.to(DEVICE, memory_format=torch.channels_last)
        with fast_precision():
            posterior = model.encode(image).latent_dist
            output = model.decode(posterior.sample(generator)).sample.float()
            with torch.no_grad():
                goal = small.encode(F.avg_pool2d(image, 2)).latent_dist.mode()
        spread = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).float().mean()
        anchor = (posterior.mean[:, :ANCHORED].float() - goal.float()).square().mean()
        squared = (output - image).square().mean((1, 2, 3))
        error[index] = error[index].lerp(squared.detach().sqrt().cpu(), 0.5)
        if polish:
            loss = 20 * squared.mean() + 0.1 * (output - image).abs().mean() + 2e-5 * spread
        else:
            loss = reconstruction_loss(output, image) + 2e-4 * spread
        return {
            "loss": loss + 0.1 * anchor,
            "psnr": psnr(output, image)[:plain].mean(),
            "anchor": anchor,
            "spread": spread,
        }

    def evaluate() -> dict[str, float]:
        scores = round_trip_psnr(model, validation)
        return {"validation_psnr": float(scores.mean()), "validation_psnr_5th": float(scores.quantile(0.05))}

    train(run, trained, loss_of, evaluate)
    standardise(model, latents_of(model, pictures), scaled=ANCHORED)
    model.cpu().save_pretrained(run.folder / "model")


if __name__ == "__main__":
    main()
