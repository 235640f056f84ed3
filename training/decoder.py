"""Stage 2b: polish of the auto-encoder's decoder alone, so that latents, and all that was trained on them, stay.

    python -m training.decoder --work WORK

The auto-encoder was trained on samples of its posterior; pictures are encoded by the mean of it. Here the decoder meets
those means, for squared error alone, hard pictures more often. Writes the resumable WORK/decoder/checkpoint.safetensors
and WORK/autoencoder/model. Starts from the auto-encoder of stage 2, or where it was not trained here, the shipped one.
"""

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from training.autoencoder import latents_of, psnr, round_trip_psnr
from training.fused import fuse
from training.loop import Run, fast_precision, keep_memory, train
from training.pictures import load_split
from training.text_to_emoji import autoencoder_folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/training"))
    parser.add_argument("--images", type=int, default=20_000)
    args = parser.parse_args()
    keep_memory()
    torch.manual_seed(0)
    pictures, validation = load_split(args.work, "train"), load_split(args.work, "validation")
    model = fuse(AutoencoderKL.from_pretrained(autoencoder_folder(args.work), torch_dtype=torch.float32))
    model.to(memory_format=torch.channels_last).requires_grad_(False)
    latents = latents_of(model, pictures)
    error = 10 ** (-round_trip_psnr(model, pictures) / 20)
    trained = nn.ModuleDict({"post_quant_conv": model.post_quant_conv, "decoder": model.decoder}).requires_grad_(True)
    run = Run(
        args.work / "decoder", args.images, batch=16, learning_rate=2e-4, average=0.995, warmup=50, weight_decay=0.0
    )

    def evaluate() -> dict[str, float]:
        scores = round_trip_psnr(model, validation)
        return {"validation_psnr": float(scores.mean()), "validation_psnr_5th": float(scores.quantile(0.05))}

    def loss_of(step: int) -> dict[str, Tensor]:
        index = torch.multinomial(error, run.batch, generator=torch.Generator().manual_seed(step))
        with fast_precision():
            output = model.decode(latents[index].to(memory_format=torch.channels_last)).sample.float()
        image = pictures.small(index)
        return {"loss": 20 * (output - image).square().mean(), "psnr": psnr(output, image).mean()}

    print("before:", evaluate())
    train(run, trained, loss_of, evaluate)
    model.save_pretrained(args.work / "autoencoder/model")


if __name__ == "__main__":
    main()
