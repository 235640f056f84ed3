"""The flow-matching stage: what it trains is what the stock pipeline computes, also after a stop and after a save."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

import renoise
from renoise.images import to_pil
from renoise.metrics import psnr
from tests.helpers import tiny
from training import flow
from training.loop import Run
from training.text_to_emoji import token_ids
from training.tokenizer import LENGTH

ROWS: list[dict[str, Any]] = [
    {"label": label, "style": style, "tags": []} for label in ("cat", "dog", "cat dog") for style in ("noto", "blob")
]


def tokenizer() -> CLIPTokenizer:
    ids = tiny.tokenizer()
    ids.model_max_length = LENGTH
    return ids


def text_encoder() -> CLIPTextModel:
    config = tiny.text_config(projection_dim=tiny.WIDTH)
    config.max_position_embeddings = LENGTH
    with tiny.seeded(1):
        return CLIPTextModel(config).eval()


def transformer(gain: float = 0.0) -> SD3Transformer2DModel:
    """Two blocks of two heads, as training begins, or with every weight moved by so much."""
    with tiny.seeded(2):
        network = flow.build_transformer(4, heads=2, blocks=2, width=tiny.WIDTH)
        with torch.no_grad():
            for p in network.parameters():
                p += gain * torch.randn_like(p)
    return network.eval()


def pipeline() -> StableDiffusion3Pipeline:
    made = flow.pipeline_of(transformer(0.05), text_encoder(), tokenizer(), tiny.vae())
    made.set_progress_bar_config(disable=True)
    return made


def asked(network: SD3Transformer2DModel, context: Tensor, pooled: Tensor) -> Tensor:
    z = torch.randn(2, 4, 8, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        answer: Tensor = network(z, context, pooled, torch.tensor([990.0, 30.0])).sample
    return answer


@pytest.mark.parametrize("count", [1, 7, 256])
def test_one_blank_token_stands_for_all_that_the_stock_pipeline_appends(count: int) -> None:
    pipe, captions = pipeline(), ["cat, noto style", "dog"]
    context, _, pooled, _ = pipe.encode_prompt(captions, None, None, max_sequence_length=count)
    stock = asked(pipe.transformer, context, pooled)
    attention = flow.Counted()
    attention.count = count
    pipe.transformer.set_attn_processor(attention)
    with torch.no_grad():
        own = flow.encode(pipe.text_encoder, token_ids(pipe.tokenizer, captions))
    assert own[0].shape == (2, LENGTH + 1, 2 * tiny.WIDTH)
    torch.testing.assert_close(asked(pipe.transformer, *own), stock, rtol=0, atol=1e-5)
    attention.count = count + 20
    assert (asked(pipe.transformer, *own) - stock).abs().max() > 1e-4


def test_folding_takes_the_standardisation_of_captions_into_the_weights() -> None:
    pipe = pipeline()
    scale = flow.spread_of(pipe.text_encoder, pipe.tokenizer, ["cat, noto style", "dog, blob style", "dog cat"])
    with torch.no_grad():
        context, pooled = flow.encode(pipe.text_encoder, token_ids(pipe.tokenizer, ["cat", ""]))
    standardised = (context - scale["mean"]) / scale["std"]
    assert (standardised - context).abs().max() > 0.5
    wanted = asked(pipe.transformer, standardised, pooled)
    torch.testing.assert_close(asked(flow.folded(pipe.transformer, scale), context, pooled), wanted, rtol=0, atol=1e-5)


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(
    tmp_path: Path, signals: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    latents = torch.randn(len(ROWS), 4, 8, 8, generator=torch.Generator().manual_seed(5))

    def go(folder: str) -> Any:
        network = transformer()
        run = Run(tmp_path / folder, images=12, batch=3, learning_rate=1e-2, warmup=2, average=0.9)
        splits = dict.fromkeys(("train", "validation"), (ROWS, latents))
        flow.learn(run, network, flow.projected(text_encoder()), tokenizer(), splits)
        return network

    at_once, shifted, calls = go("whole"), flow.shifted, []

    def stopping(u: Tensor) -> Tensor:
        calls.append(u)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return shifted(u)

    monkeypatch.setattr(flow, "shifted", stopping)
    with pytest.raises(SystemExit, match="stopped after 2 of 4 steps"):
        go("halved")
    resumed = go("halved")
    one, other = (load_file(tmp_path / folder / "checkpoint.safetensors") for folder in ("whole", "halved"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    for ours, theirs, first in zip(at_once.parameters(), resumed.parameters(), transformer().parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert not ours.requires_grad or not torch.equal(ours, first) or not ours.any()


def test_the_times_trained_are_those_of_the_sampler() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=flow.SHIFT)
    scheduler.set_timesteps(28)
    unshifted = torch.linspace(1, 1 / 1000, 1000)
    trained = flow.shifted(unshifted)
    assert torch.allclose(trained[0], scheduler.sigmas[0])
    assert (scheduler.sigmas[:-1, None] - trained).abs().min(1).values.max() < 2e-3


def test_what_is_saved_is_a_stock_pipeline_that_can_be_inverted(tmp_path: Path) -> None:
    pipeline().to(torch.float16).save_pretrained(tmp_path)
    without_t5 = {"text_encoder_3": None, "tokenizer_3": None}  # diffusers wants to be told, also where none was saved
    loaded = DiffusionPipeline.from_pretrained(tmp_path, local_files_only=True, low_cpu_mem_usage=False, **without_t5)
    loaded.to(torch.float32)
    loaded.set_progress_bar_config(disable=True)
    assert type(loaded) is StableDiffusion3Pipeline
    drawn = loaded(
        ["cat, noto style", "dog"],
        height=32,
        width=24,
        num_inference_steps=6,
        guidance_scale=4.0,
        output_type="pt",
        generator=torch.Generator().manual_seed(0),
    ).images
    assert drawn.shape == (2, 3, 32, 24)
    found = renoise.invert(loaded, to_pil(drawn), ["cat, noto style", "dog"], preset="flow")
    again = found.regenerate(found.scene)
    assert psnr(again, found.round_trip()).min() > 50
