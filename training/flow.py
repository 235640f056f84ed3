"""Stage 6b: the flow-matching model. A stock SD3 transformer that predicts velocities, on emoji's text encoder.

    python -m training.flow --work WORK

The text encoder of stage 6 is taken as it is. StableDiffusion3Pipeline asks two CLIP encoders (here the same one twice)
and T5, in whose absence it appends 256 tokens of zeros to each caption. SD3 gives text no positions, so these tokens
are alike in every layer, and one of them whose attention weighs 256-fold is as good as all (`Counted`): a picture costs
64 + 25 tokens in training. Writes WORK/flow/checkpoint.safetensors (resumable); --export FOLDER writes
the pipeline, and DiffusionPipeline.from_pretrained(FOLDER, text_encoder_3=None, tokenizer_3=None) loads it.
"""

import argparse
import math
import random
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from diffusers.models.attention_processor import Attention
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from training.loop import DEVICE, Run, fast_precision, keep_memory, load_average, train
from training.pictures import caption, load_rows, varied_caption
from training.text_to_emoji import (
    WIDTH,
    autoencoder_folder,
    cached_latents,
    latent_channels,
    load_emoji,
    spread,
    token_ids,
)

HEADS, HEAD, BLOCKS = 7, 32, 5
SHIFT = 3.0  # of the sampler and of the timesteps trained
BLANKS = (1, 256)  # tokens of zeros: for max_sequence_length=1, which saves time, and as the pipeline does by itself


def build_transformer(
    channels: int, heads: int = HEADS, blocks: int = BLOCKS, width: int = WIDTH
) -> SD3Transformer2DModel:
    """For latents of so many channels and a text encoder of this width.

    Every block starts as the identity and the whole as zero (adaLN-Zero of DiT, Peebles and Xie 2023).
    """
    transformer = SD3Transformer2DModel(
        sample_size=16,
        pos_embed_max_size=8,
        patch_size=2,
        in_channels=channels,
        out_channels=channels,
        num_layers=blocks,
        num_attention_heads=heads,
        attention_head_dim=HEAD,
        joint_attention_dim=2 * width,
        caption_projection_dim=heads * HEAD,
        pooled_projection_dim=2 * width,
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
        (batch, places), tokens = hidden_states.shape[:2], encoder_hidden_states.shape[1]

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


def encode(encoder: CLIPTextModelWithProjection, ids: Tensor) -> tuple[Tensor, Tensor]:
    """What StableDiffusion3Pipeline makes of captions, with one token of zeros: (N, 25, 512) and pooled (N, 512)."""
    found = encoder(ids, output_hidden_states=True)
    states, pooled = found.hidden_states[-2], found.text_embeds
    return F.pad(torch.cat([states, states], -1), (0, 0, 0, 1)), torch.cat([pooled, pooled], -1)


@torch.no_grad()
def spread_of(encoder: CLIPTextModelWithProjection, tokenizer: CLIPTokenizer, captions: list[str]) -> dict[str, Tensor]:
    """Mean and standard deviation of each feature of the captions' tokens.

    SD3 takes them before the last layer's norm: here they have a standard deviation of 18, and single ones reach 340.
    Training standardises them, and `folded` puts that into the weights.
    """
    context = torch.cat([encode(encoder, token_ids(tokenizer, [text]).to(DEVICE))[0][0, :-1] for text in captions])
    return {"mean": context.mean(0).cpu(), "std": context.std(0).cpu()}


@torch.no_grad()
def folded(transformer: SD3Transformer2DModel, scale: dict[str, Tensor]) -> SD3Transformer2DModel:
    """Has a transformer that was trained on standardised captions take them as the text encoder makes them."""
    layer = transformer.context_embedder
    layer.weight /= scale["std"]
    layer.bias -= layer.weight @ scale["mean"]
    return transformer


def shifted(u: Tensor, shift: float = SHIFT) -> Tensor:
    """Flow-matching times from numbers of [0, 1), as the sampler with this shift steps through them."""
    return shift * u / (1 + (shift - 1) * u)


def load_flow(work: Path) -> StableDiffusion3Pipeline:
    """The stock pipeline with the averaged weights of this stage's newest checkpoint."""
    _, text, tokenizer = load_emoji(work)
    transformer = build_transformer(latent_channels(work))
    load_average(work / "flow/checkpoint.safetensors", nn.ModuleDict({"transformer": transformer}))
    folded(transformer, load_file(work / "flow/captions.safetensors"))
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
    parser.add_argument("--export", type=Path, help="write the newest checkpoint as a pipeline in 16 bit, and no more")
    args = parser.parse_args()
    if args.export:
        load_flow(args.work).to(torch.float16).save_pretrained(args.export)
        return
    keep_memory()
    torch.manual_seed(0)
    splits = {name: (load_rows(args.work, name), cached_latents(args.work, name)) for name in ("train", "validation")}
    _, text, tokenizer = load_emoji(args.work)
    run = Run(args.work / "flow", args.images, args.batch, args.learning_rate)
    learn(run, build_transformer(latent_channels(args.work)), projected(text), tokenizer, splits)


def learn(
    run: Run,
    transformer: SD3Transformer2DModel,
    encoder: CLIPTextModelWithProjection,
    tokenizer: CLIPTokenizer,
    splits: dict[str, tuple[list[dict[str, Any]], Tensor]],
) -> None:
    """Trains the transformer; ``splits`` are manifest rows and latents of "train" and "validation"."""
    (rows, latents), (held_rows, held_latents) = splits["train"], splits["validation"]
    encoder.to(DEVICE).requires_grad_(False)
    transformer.to(DEVICE).train()
    attention = Counted()
    transformer.set_attn_processor(attention)
    path = run.folder / "captions.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(spread_of(encoder, tokenizer, [caption(row) for row in rows[:: 1 + len(rows) // 512]]), path)
    scale = {name: value.to(DEVICE) for name, value in load_file(path).items()}

    def squared_error(clean: Tensor, captions: list[str], t: Tensor, generator: torch.Generator) -> Tensor:
        """Of the predicted velocity, per picture."""
        noise = torch.randn(clean.shape, generator=generator)
        time = t.view(-1, 1, 1, 1)
        z = ((1 - time) * clean + time * noise).to(DEVICE)
        with fast_precision():
            with torch.no_grad():
                context, pooled = encode(encoder, token_ids(tokenizer, captions).to(DEVICE))
                context = (context - scale["mean"]) / scale["std"]
            predicted = transformer(z, context, pooled, 1000 * t.to(DEVICE)).sample
        return (predicted.float() - (noise - clean).to(DEVICE)).square().mean((1, 2, 3))

    def loss_of(step: int) -> dict[str, Tensor]:
        generator, rng = torch.Generator().manual_seed(step), random.Random(step)
        index = torch.randint(len(rows), (run.batch,), generator=generator)
        attention.count = rng.choice(BLANKS)
        captions = [varied_caption(rows[i], rng) for i in index.tolist()]
        return {
            "loss": squared_error(latents[index], captions, shifted(spread(run.batch, generator)), generator).mean()
        }

    @torch.no_grad()
    def evaluate() -> dict[str, float]:
        """Of validation pictures at two times: the object is decided at the later one, and the earlier is detail."""
        attention.count = BLANKS[-1]
        clean, captions = held_latents[:256], [caption(row) for row in held_rows[:256]]
        return {
            f"validation_error_{t}": float(
                squared_error(clean, captions, torch.full((len(clean),), t), torch.Generator().manual_seed(0)).mean()
            )
            for t in (0.5, 0.9)
        }

    train(run, nn.ModuleDict({"transformer": transformer}), loss_of, evaluate)


if __name__ == "__main__":
    main()
