"""Stage 2: the small auto-encoder, 64x64 pixels to 4x16x16 latents, from which stage 3 grows the one that ships.

    python -m training.autoencoder --work WORK

Two phases. The first learns from pictures, crops and changed colours with a loss that keeps edges; the second polishes
for squared error, which is what PSNR measures, and meets hard pictures more often. Writes the resumable checkpoints
WORK/autoencoder{,-polish}/checkpoint.safetensors and WORK/autoencoder/model (diffusers format), whose latents have
mean 0 and standard deviation 1 per channel, so that its scaling_factor is 1.
"""

import argparse
import math
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from training.fused import fuse
from training.loop import DEVICE, Run, fast_precision, keep_memory, train
from training.pictures import Pictures, load_split


def build(side: int = 64, widths: tuple[int, ...] = (32, 64, 128), channels: int = 4) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=widths,
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=8,
        sample_size=side,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )


def recoloured(images: Tensor, generator: torch.Generator) -> Tensor:
    """A third of them with channels swapped, tinted or inverted, in place."""
    for i in torch.nonzero(torch.rand(len(images), generator=generator) < 1 / 3).flatten().tolist():
        kind = int(torch.randint(3, (), generator=generator))
        if kind == 0:
            images[i] = images[i, torch.randperm(3, generator=generator)]
        elif kind == 1:
            images[i] = -images[i]
        else:
            tint = torch.rand(3, 1, 1, generator=generator) * 0.7 + 0.3
            images[i] = (images[i] + 1) * tint - 1
    return images


def augmented(pictures: Pictures, batch: int, step: int) -> Tensor:
    """Half whole pictures, half random crops; a third of all recoloured."""
    generator = torch.Generator().manual_seed(step)
    index = torch.randint(len(pictures), (batch,), generator=generator)
    whole = pictures.small(index[: batch // 2])
    side = int(torch.randint(64, 129, (), generator=generator))
    top, left = torch.randint(0, 129 - side, (2,), generator=generator).tolist()
    crops = pictures.large[index[batch // 2 :], :, top : top + side, left : left + side].float() / 127.5 - 1
    crops = F.interpolate(crops, (64, 64), mode="bilinear", antialias=True, align_corners=False)
    images = recoloured(torch.cat([whole, crops]), generator)
    return images.to(memory_format=torch.channels_last)


def reconstruction_loss(output: Tensor, image: Tensor) -> Tensor:
    """Mean absolute and squared error, and the absolute error of the image gradients at three scales."""
    loss = (output - image).abs().mean() + 4 * (output - image).square().mean()
    difference = output - image
    for _ in range(3):
        loss = loss + (difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean()) / 6
        difference = F.avg_pool2d(difference, 2)
    return loss


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Per image, for pictures in [-1, 1]: peak 2."""
    return 10 * torch.log10(4 / (a - b).square().flatten(1).mean(1))


@torch.no_grad()
def round_trip_psnr(model: AutoencoderKL, pictures: Pictures, fast: bool = True) -> Tensor:
    """Per picture, at the side that the auto-encoder is made for; not ``fast`` is float32, as it is shipped to run."""
    scores = []
    for start in range(0, len(pictures), 32):
        image = pictures.sized(model.config.sample_size, slice(start, start + 32)).to(DEVICE)
        image = image.to(memory_format=torch.channels_last)
        with fast_precision() if fast else nullcontext():
            output = model.decode(model.encode(image).latent_dist.mode()).sample
        scores.append(psnr(output.float().clamp(-1, 1), image).cpu())
    return torch.cat(scores)


@torch.no_grad()
def latents_of(model: AutoencoderKL, pictures: Pictures) -> Tensor:
    parts = []
    for start in range(0, len(pictures), 64):
        image = pictures.sized(model.config.sample_size, slice(start, start + 64)).to(DEVICE)
        parts.append(model.encode(image.to(memory_format=torch.channels_last)).latent_dist.mode().cpu())
    return torch.cat(parts).float().contiguous()


@torch.no_grad()
def standardise(model: AutoencoderKL, latents: Tensor, scaled: int) -> None:
    """Folds each channel's mean over the training set into the 1x1 convolutions at the door, and the standard
    deviation of the first ``scaled`` channels: those beyond hold detail and stay as small as it is.
    """
    door, back, n = model.quant_conv, model.post_quant_conv, latents.shape[1]
    mean, std = (x.to(door.weight.device) for x in (latents.mean((0, 2, 3)), latents.std((0, 2, 3))))
    std[scaled:] = 1
    door.weight[:n] /= std[:, None, None, None]
    door.bias[:n] = (door.bias[:n] - mean) / std
    door.bias[n:] -= 2 * std.log()
    back.bias += (back.weight[:, :, 0, 0] * mean).sum(1)
    back.weight *= std[None, :, None, None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/training"))
    parser.add_argument("--images", type=int, default=110_000)
    parser.add_argument("--polish", type=int, default=60_000)
    args = parser.parse_args()
    keep_memory()
    torch.manual_seed(0)
    pictures, validation = load_split(args.work, "train"), load_split(args.work, "validation")
    model = fuse(build()).to(DEVICE, memory_format=torch.channels_last)

    def round_trip(image: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """The output, and the mean divergence of the posterior from white noise."""
        with fast_precision():
            posterior = model.encode(image).latent_dist
            output = model.decode(posterior.sample(torch.Generator().manual_seed(step))).sample
        spread = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).float().mean()
        return output.float(), spread

    def first_loss(step: int) -> dict[str, Tensor]:
        image = augmented(pictures, first.batch, step).to(DEVICE)
        output, spread = round_trip(image, step)
        return {
            "loss": reconstruction_loss(output, image) + 2e-4 * spread,
            "psnr": psnr(output, image)[: first.batch // 2].mean(),
        }

    def polish_loss(step: int) -> dict[str, Tensor]:
        hard = torch.multinomial(error, polish.batch * 3 // 4, generator=torch.Generator().manual_seed(step))
        image = torch.cat([pictures.small(hard), augmented(pictures, polish.batch // 4, step)])
        image = image.to(DEVICE, memory_format=torch.channels_last)
        output, spread = round_trip(image, step)
        loss = 20 * (output - image).square().mean() + 0.1 * (output - image).abs().mean() + 2e-5 * spread
        return {"loss": loss, "psnr": psnr(output, image)[: len(hard)].mean()}

    def evaluate() -> dict[str, float]:
        scores = round_trip_psnr(model, validation)
        return {"validation_psnr": float(scores.mean()), "validation_psnr_5th": float(scores.quantile(0.05))}

    trained = nn.ModuleDict({"vae": model})
    first = Run(args.work / "autoencoder", args.images, batch=16, learning_rate=5e-4)
    train(first, trained, first_loss, evaluate)
    error = 10 ** (-round_trip_psnr(model, pictures) / 20)
    polish = Run(args.work / "autoencoder-polish", args.polish, batch=16, learning_rate=2.5e-4, weight_decay=0.0)
    train(polish, trained, polish_loss, evaluate)
    standardise(model, latents_of(model, pictures), scaled=4)
    model.save_pretrained(args.work / "autoencoder/model")
    assert math.isclose(float(latents_of(model, validation).mean()), 0, abs_tol=0.2)


if __name__ == "__main__":
    main()
