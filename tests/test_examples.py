"""The scripts for the big models run, with tiny pipelines of the same classes in place of what the hub would send."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict
from PIL import Image

from renoise.models import EXAMPLE
from tests.helpers import tiny, tiny_flow

SCRIPTS = Path(__file__).parents[1] / "examples/models"


def with_words(pipe: Any) -> Any:
    """A tiny pipeline without text encoder, with one that makes seeded embeddings of a prompt's letters."""
    pipe.default_sample_size = 8

    def encode_prompt(prompt: list[str], **_: Any) -> tuple[Any, ...]:
        rows = [tiny_flow.embeds(pipe, 1, seed=sum(map(ord, text))) for text in prompt]
        if isinstance(pipe, diffusers.ZImagePipeline):
            return [row["prompt_embeds"][0] for row in rows], []
        joined = [torch.cat([row[name] for row in rows]) for name in ("prompt_embeds", "pooled_prompt_embeds")]
        return *joined, torch.zeros(tiny_flow.TOKENS, 3)

    pipe.encode_prompt = encode_prompt
    return pipe


def with_lora_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """SDXL whose load_lora_weights finds a LoRA of its own size, saved as diffusers saves one."""
    pipe = tiny.sdxl()
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights="gaussian"))
    pipe.save_lora_weights(folder, unet_lora_layers=get_peft_model_state_dict(pipe.unet))
    real = diffusers.StableDiffusionXLPipeline.load_lora_weights
    monkeypatch.setattr(
        diffusers.StableDiffusionXLPipeline,
        "load_lora_weights",
        lambda self, name, **given: real(self, folder, **given),
    )
    return tiny.sdxl(tiny.ddim())


MODELS: dict[str, tuple[str, Callable[[Path, pytest.MonkeyPatch], Any]]] = {
    "sdxl_turbo": ("AutoPipelineForText2Image", lambda *_: tiny.sdxl()),
    "lcm_lora_sdxl": ("StableDiffusionXLPipeline", with_lora_file),
    "sd21_v_prediction": ("StableDiffusionPipeline", lambda *_: tiny.sd(tiny.ddim(prediction_type="v_prediction"))),
    "flux_schnell": ("FluxPipeline", lambda *_: with_words(tiny_flow.flux(tiny_flow.flow_schnell()))),
    "z_image_turbo": ("ZImagePipeline", lambda *_: with_words(tiny_flow.z_image())),
}


def test_every_script_is_tried() -> None:
    assert {script.stem for script in SCRIPTS.glob("*.py")} == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_a_script_edits_a_picture(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, make = MODELS[name]
    pipe = make(tmp_path, monkeypatch)
    asked: list[str] = []

    def from_pretrained(repository: str, **_: Any) -> Any:
        asked.append(repository)
        return pipe

    monkeypatch.setattr(getattr(diffusers, kind), "from_pretrained", from_pretrained)
    output = tmp_path / "edited.png"
    monkeypatch.setattr(sys, "argv", [name, str(EXAMPLE), "a cat on a sofa", "a tiger on a sofa", str(output)])
    runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
    assert len(asked) == 1
    with Image.open(output) as edited:
        edited.load()
    assert " passes, " in capsys.readouterr().out
