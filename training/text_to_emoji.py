"""Stage 6: the many-step model. A stock UNet and a CLIP text encoder, trained together to predict noise.

    python -m training.text_to_emoji --work WORK

It starts from the shipped weights. Where the latents have more channels than these were trained with, the first and
the last convolution get the new ones beside those that they know. Writes WORK/emoji/checkpoint.safetensors (resumable);
training/export.py makes the pipeline.
"""

import argparse
import hashlib
import json
import random
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from training.autoencoder import latents_of
from training.fused import fuse
from training.loop import DEVICE, Run, fast_precision, keep_memory, load_average, train
from training.pictures import caption, load_split, varied_caption
from training.tokenizer import LENGTH

WIDTH = 256  # of the text encoder
WEIGHTS = Path(__file__).parents[1] / "src/renoise/weights"


def build_unet(channels: int) -> UNet2DConditionModel:
    """For latents of so many channels.

    Besides cross-attention, the pooled caption joins the time embedding: concepts bind much sooner that way.
    """
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(64, 128, 192),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=32,
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
    )
    nn.init.zeros_(unet.add_embedding.norm2.weight)
    return unet


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            projection_dim=WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.eos_token_id,
        )
    )


def build_scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def token_ids(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    return tokenizer(texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt").input_ids


def autoencoder_folder(work: Path) -> Path:
    """The auto-encoder of stage 3, or where it was not trained here, the shipped one."""
    trained = work / "grown/model"
    return trained if trained.exists() else WEIGHTS / "emoji/vae"


def latent_channels(work: Path) -> int:
    return json.loads((autoencoder_folder(work) / "config.json").read_text())["latent_channels"]


def load_tokenizer(work: Path) -> CLIPTokenizer:
    """The tokenizer of stage 4, or where it was not trained here, that which the shipped weights were trained with."""
    trained = work / "tokenizer"
    return CLIPTokenizer.from_pretrained(trained if trained.exists() else WEIGHTS / "emoji/tokenizer")


def cached_latents(work: Path, split: str) -> Tensor:
    """Latents of a split, encoded once by the auto-encoder of stage 3."""
    source = autoencoder_folder(work)
    weights = source / "diffusion_pytorch_model.safetensors"
    # Named by the auto-encoder's weights, so that latents of an earlier one are not taken for its own.
    path = work / f"emoji/latents-{split}-{hashlib.sha256(weights.read_bytes()).hexdigest()[:12]}.safetensors"
    if not path.exists():
        vae = AutoencoderKL.from_pretrained(source).to(DEVICE, memory_format=torch.channels_last)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"latents": latents_of(vae, load_split(work, split))}, path)
    return load_file(path)["latents"]


def spread(batch: int, generator: torch.Generator) -> Tensor:
    """One number from each of ``batch`` equal parts of [0, 1): the same mean over levels, less variance."""
    return (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch


@torch.no_grad()
def add_known(unet: nn.Module, changes: dict[str, Tensor]) -> None:
    """Adds to the weights of the same name; a smaller tensor is added to the first channels of a wider one."""
    state = unet.state_dict()
    for name, change in changes.items():
        state[name][tuple(slice(length) for length in change.shape)] += change


@torch.no_grad()
def start_from_shipped(unet: UNet2DConditionModel, text: CLIPTextModel) -> None:
    """Where no checkpoint is at hand, training goes on from the weights that the package ships.

    New channels start with a tenth of the usual random weights: enough to learn from, too little to disturb.
    """
    if (WEIGHTS / "emoji/unet").exists():
        shipped = UNet2DConditionModel.from_pretrained(WEIGHTS / "emoji/unet").float()
        known = shipped.config.in_channels
        state = unet.state_dict()
        for name in shipped.state_dict():
            if name.startswith(("conv_in.weight", "conv_out")):
                wide = state[name].mul_(0.1)
                (wide[:, :known] if name == "conv_in.weight" else wide[:known]).zero_()
            else:
                state[name].zero_()
        add_known(unet, shipped.state_dict())
        text.load_state_dict(CLIPTextModel.from_pretrained(WEIGHTS / "emoji/text_encoder").state_dict())


def load_emoji(work: Path) -> tuple[UNet2DConditionModel, CLIPTextModel, CLIPTokenizer]:
    """The averaged weights of this stage's newest checkpoint, or the shipped ones."""
    tokenizer = load_tokenizer(work)
    unet, text = build_unet(latent_channels(work)), build_text_encoder(tokenizer)
    checkpoint = work / "emoji/checkpoint.safetensors"
    if checkpoint.exists():
        load_average(checkpoint, nn.ModuleDict({"unet": unet, "text": text}))
    else:
        unet.load_state_dict(UNet2DConditionModel.from_pretrained(WEIGHTS / "emoji/unet").state_dict())
        text.load_state_dict(CLIPTextModel.from_pretrained(WEIGHTS / "emoji/text_encoder").state_dict())
    return unet.eval(), text.eval(), tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/training"))
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=32)
    args = parser.parse_args()
    keep_memory()
    torch.manual_seed(0)
    tokenizer = load_tokenizer(args.work)
    rows, latents = load_split(args.work, "train").rows, cached_latents(args.work, "train")
    held_rows, held_latents = load_split(args.work, "validation").rows, cached_latents(args.work, "validation")
    unet, text = build_unet(latent_channels(args.work)), build_text_encoder(tokenizer)
    start_from_shipped(unet, text)  # a checkpoint, where there is one, comes over it
    unet, text = fuse(unet).to(DEVICE, memory_format=torch.channels_last), text.to(DEVICE)
    levels = build_scheduler().alphas_cumprod
    run = Run(args.work / "emoji", args.images, args.batch, learning_rate=5e-4, average=0.999)

    def noise_error(
        clean: Tensor, captions: list[str], generator: torch.Generator, share: float
    ) -> tuple[Tensor, Tensor]:
        """Squared error of the predicted noise per image, and its weight by level.

        Little signal: 1 / sqrt(snr), so that the levels at which the object is decided are heard (debiased weighting,
        Yu et al. 2024). Much of it: min(snr, 5) / snr (Hang et al. 2023). ``share`` below 1 draws the noisy levels more
        often: at 0.55, six pictures in ten lie beyond level 600, where the object is decided, and three below 500,
        where the detail is.
        """
        t = (1000 * spread(len(clean), generator) ** share).long()
        noise = torch.randn(clean.shape, generator=generator)
        level = levels[t].view(-1, 1, 1, 1)
        noisy = (level.sqrt() * clean + (1 - level).sqrt() * noise).to(DEVICE, memory_format=torch.channels_last)
        with fast_precision():
            states = text(token_ids(tokenizer, captions).to(DEVICE)).last_hidden_state
            predicted = unet(noisy, t.to(DEVICE), states).sample
        error = (predicted.float() - noise.to(DEVICE)).square().mean((1, 2, 3))
        snr = level.flatten() / (1 - level.flatten())
        return error, torch.where(snr < 1, snr.rsqrt(), 5 / snr.clamp(min=5)).to(DEVICE)

    def loss_of(step: int) -> dict[str, Tensor]:
        generator, rng = torch.Generator().manual_seed(step), random.Random(step)
        index = torch.randint(len(rows), (run.batch,), generator=generator)
        error, weight = noise_error(
            latents[index], [varied_caption(rows[i], rng) for i in index.tolist()], generator, 0.55
        )
        return {"loss": (error * weight).mean(), "noise_error": error.mean()}

    @torch.no_grad()
    def evaluate() -> dict[str, float]:
        error, _ = noise_error(
            held_latents[:256], [caption(row) for row in held_rows[:256]], torch.Generator().manual_seed(0), 1.0
        )
        return {"validation_noise_error": float(error.mean())}

    train(run, nn.ModuleDict({"unet": unet, "text": text}), loss_of, evaluate)


if __name__ == "__main__":
    main()
