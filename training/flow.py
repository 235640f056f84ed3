"""Stage 8: the flow-matching model. A stock SD3 transformer that predicts velocities, on emoji's text encoder.

    python -m training.flow --work WORK

The text encoder of stage 6 is taken as it is. StableDiffusion3Pipeline asks two CLIP encoders (here the same one twice)
and T5, in whose absence it appends 256 tokens of zeros to each caption. SD3 gives text no positions, so these tokens
are alike in every layer, and one of them whose attention weighs 256-fold is as good as all (`counted`): a picture costs
64 + 25 tokens in training. Writes WORK/flow/checkpoint.safetensors (resumable); training/export.py makes the pipeline.
"""

import argparse
import math
import random
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from training.fused import fuse
from training.loop import DEVICE, Run, fast_precision, keep_memory, load_average, train
from training.pictures import caption, load_split, varied_caption
from training.text_to_emoji import (
    WIDTH,
    autoencoder_folder,
    build_scheduler,
    cached_latents,
    latent_channels,
    load_emoji,
    spread,
    token_ids,
)

HEADS, HEAD, BLOCKS = 7, 32, 5
SHIFT = 3.0  # of the sampler and of the timesteps trained
BLANKS = (1, 256)  # tokens of zeros: for max_sequence_length=1, which saves time, and as the pipeline does by itself


def build_transformer(channels: int, heads: int = HEADS, blocks: int = BLOCKS) -> SD3Transformer2DModel:
    """For latents of so many channels. Every block starts as the identity and the whole as zero (adaLN-Zero, DiT)."""
    transformer = SD3Transformer2DModel(
        sample_size=16,
        pos_embed_max_size=8,
        patch_size=2,
        in_channels=channels,
        out_channels=channels,
        num_layers=blocks,
        num_attention_heads=heads,
        attention_head_dim=HEAD,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=heads * HEAD,
        pooled_projection_dim=2 * WIDTH,
    )
    for name, layer in transformer.named_modules():
        if isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.bias)
            if name == "proj_out" or (name.endswith("linear") and "norm" in name):
                nn.init.zeros_(layer.weight)
            else:
                nn.init.xavier_uniform_(layer.weight)
    return transformer


def projected(text: CLIPTextModel) -> CLIPTextModelWithProjection:
    """The same encoder as the class that SD3 takes: the projection of the pooled caption is the identity."""
    encoder = CLIPTextModelWithProjection(text.config)
    missing, unexpected = encoder.load_state_dict(
        {name if name.startswith("text_model.") else f"text_model.{name}": w for name, w in text.state_dict().items()},
        strict=False,
    )
    if missing != ["text_projection.weight"] or unexpected:
        raise ValueError(f"these encoders differ by more than the projection: {missing} {unexpected}")
    nn.init.eye_(encoder.text_projection.weight)
    return encoder.eval()


class Counted:
    """Joint attention as diffusers computes it, except that the last text token counts for ``count`` equal ones."""

    def __init__(self) -> None:
        self.count = 1

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        places, (batch, tokens, width) = hidden_states.shape[1], encoder_hidden_states.shape

        def by_head(own: Tensor, added: Tensor) -> Tensor:
            return torch.cat([own, added], 1).view(batch, places + tokens, attn.heads, -1).transpose(1, 2)

        q = by_head(attn.to_q(hidden_states), attn.add_q_proj(encoder_hidden_states))
        k = by_head(attn.to_k(hidden_states), attn.add_k_proj(encoder_hidden_states))
        v = by_head(attn.to_v(hidden_states), attn.add_v_proj(encoder_hidden_states))
        weight = torch.zeros(places + tokens, dtype=q.dtype, device=q.device)
        weight[-1] = math.log(self.count)
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=weight.expand(1, 1, places + tokens, -1))
        found = found.transpose(1, 2).reshape(batch, places + tokens, -1)
        own, added = found[:, :places], found[:, places:]
        return attn.to_out[0](own), added if attn.context_pre_only else attn.to_add_out(added)


def counted(transformer: SD3Transformer2DModel) -> Counted:
    """Gives the transformer an attention whose last text token stands for many; the weights stay as they are."""
    processor = Counted()
    transformer.set_attn_processor(processor)
    return processor


def encode(encoder: CLIPTextModelWithProjection, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What StableDiffusion3Pipeline makes of captions with one token of zeros, and what emoji's UNet takes."""
    found = encoder(ids, output_hidden_states=True)
    states, pooled = found.hidden_states[-2], found.text_embeds
    return F.pad(torch.cat([states, states], -1), (0, 0, 0, 1)), torch.cat([pooled, pooled], -1), found.last_hidden_state


class Teacher:
    """emoji's UNet, asked for velocities at flow-matching times.

    The latent (1 - t) x + t e, scaled to unit variance, is what the UNet saw in training at the timestep of the same
    ratio of signal to noise. Its e determines x, and so the velocity e - x.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        self.unet = unet
        levels = build_scheduler().alphas_cumprod.double()
        self.known = (0.5 * torch.log((1 - levels) / levels)).contiguous()  # log of noise to signal, rising
        self.last = torch.sigmoid(self.known[-1]).item()

    def timestep(self, t: Tensor) -> Tensor:
        """The UNet's fractional timestep for flow-matching times in (0, last]."""
        wanted = torch.logit(t.double())
        right = torch.searchsorted(self.known, wanted).clamp(1, len(self.known) - 1)
        low, high = self.known[right - 1], self.known[right]
        return (right - 1 + ((wanted - low) / (high - low)).clamp(0, 1)).float()

    @torch.no_grad()
    def velocity(self, z: Tensor, t: Tensor, states: Tensor) -> Tensor:
        """For ``t`` up to ``last``, the noisiest level that the UNet knows."""
        time = t.view(-1, 1, 1, 1).to(z.device)
        scaled = (z / torch.hypot(1 - time, time)).to(memory_format=torch.channels_last)
        noise = self.unet(scaled, self.timestep(t).to(z.device), states).sample.float()
        return noise - (z - time * noise) / (1 - time)


def shifted(u: Tensor, shift: float = SHIFT) -> Tensor:
    """Flow-matching times from numbers of [0, 1), as the sampler with this shift steps through them."""
    return shift * u / (1 + (shift - 1) * u)


def load_flow(work: Path) -> StableDiffusion3Pipeline:
    """The stock pipeline with the averaged weights of this stage's newest checkpoint."""
    _, text, tokenizer = load_emoji(work)
    transformer = build_transformer(latent_channels(work))
    load_average(work / "flow/checkpoint.safetensors", nn.ModuleDict({"transformer": transformer}))
    return pipeline_of(transformer, text, tokenizer, AutoencoderKL.from_pretrained(autoencoder_folder(work)))


def pipeline_of(
    transformer: SD3Transformer2DModel, text: CLIPTextModel, tokenizer: CLIPTokenizer, vae: AutoencoderKL
) -> StableDiffusion3Pipeline:
    vae.register_to_config(shift_factor=0.0)  # SD3 adds it, and null is no number
    encoder = projected(text)
    return StableDiffusion3Pipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT),
        vae=vae.eval(),
        text_encoder=encoder,
        tokenizer=tokenizer,
        text_encoder_2=encoder,
        tokenizer_2=tokenizer,
        text_encoder_3=None,
        tokenizer_3=None,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/training"))
    parser.add_argument("--images", type=int, default=300_000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--taught", type=float, default=0.0, help="share of a batch whose target is emoji's velocity")
    args = parser.parse_args()
    keep_memory()
    torch.manual_seed(0)
    rows, latents = load_split(args.work, "train").rows, cached_latents(args.work, "train")
    held_rows, held_latents = load_split(args.work, "validation").rows, cached_latents(args.work, "validation")
    unet, text, tokenizer = load_emoji(args.work)
    encoder = projected(text).to(DEVICE).requires_grad_(False)
    teacher = Teacher(fuse(unet).to(DEVICE, memory_format=torch.channels_last).requires_grad_(False))
    transformer = build_transformer(latents.shape[1]).to(DEVICE)
    attention = counted(transformer)
    run = Run(args.work / "flow", args.images, args.batch, args.learning_rate)
    taught = round(args.taught * args.batch)

    def squared_error(
        clean: Tensor, captions: list[str], t: Tensor, generator: torch.Generator, taught: int
    ) -> Tensor:
        """Of the predicted velocity, per picture; the first so many learn from the teacher where it knows the level."""
        noise = torch.randn(clean.shape, generator=generator)
        time = t.view(-1, 1, 1, 1)
        z, goal = ((1 - time) * clean + time * noise).to(DEVICE), (noise - clean).to(DEVICE)
        with fast_precision():
            with torch.no_grad():
                context, pooled, states = encode(encoder, token_ids(tokenizer, captions).to(DEVICE))
                chosen = (t[:taught] <= teacher.last).nonzero().flatten()
                if len(chosen):
                    goal[chosen] = teacher.velocity(z[chosen], t[chosen], states[chosen])
            predicted = transformer(z, context, pooled, 1000 * t.to(DEVICE)).sample
        return (predicted.float() - goal).square().mean((1, 2, 3))

    def loss_of(step: int) -> dict[str, Tensor]:
        generator, rng = torch.Generator().manual_seed(step), random.Random(step)
        index = torch.randint(len(rows), (run.batch,), generator=generator)
        attention.count = rng.choice(BLANKS)
        t = shifted(spread(run.batch, generator))[torch.randperm(run.batch, generator=generator)]
        captions = [varied_caption(rows[i], rng) for i in index.tolist()]
        return {"loss": squared_error(latents[index], captions, t, generator, taught).mean()}

    @torch.no_grad()
    def evaluate() -> dict[str, float]:
        """Squared error of the velocity of validation pictures at two times: the object is decided at the later one."""
        attention.count = BLANKS[-1]
        captions = [caption(row) for row in held_rows[:256]]
        errors = {
            f"validation_error_{t}": squared_error(
                held_latents[:256], captions, torch.full((256,), t), torch.Generator().manual_seed(0), 0
            )
            for t in (0.5, 0.9)
        }
        return {name: float(error.mean()) for name, error in errors.items()}

    train(run, nn.ModuleDict({"transformer": transformer}), loss_of, evaluate)


if __name__ == "__main__":
    main()
