"""The embedded models: stock pipelines from local files, in any precision and with any scheduler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import LCMScheduler, StableDiffusionPipeline

from renoise import models
from renoise.pipelines.adapter import Adapter
from renoise.pipelines.loading import network_dtype
from tests.helpers import tiny
from tests.helpers.embedded import SIDE


@pytest.mark.parametrize("name", models.NAMES)
def test_embedded_models_are_stock_pipelines_and_need_no_network(name: str, offline: None) -> None:
    pipe = models.load(name)
    assert type(pipe) is StableDiffusionPipeline
    assert models.name_of(pipe) == name
    assert Adapter(pipe).size(None) == (SIDE, SIDE)
    assert {module.dtype for module in (pipe.unet, pipe.vae, pipe.text_encoder)} == {torch.float32}
    assert pipe.scheduler.config.prediction_type == "epsilon"


def test_the_two_models_share_auto_encoder_and_text_encoder() -> None:
    many, few = (models.load(name) for name in ("emoji", "emoji-turbo"))
    for one, other in ((many.vae, few.vae), (many.text_encoder, few.text_encoder)):
        states = one.state_dict(), other.state_dict()
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert type(many.scheduler) is not type(few.scheduler)


@pytest.mark.parametrize("dtype", ["bfloat16", torch.float16])
def test_the_networks_run_in_another_precision_and_the_auto_encoder_in_full(dtype: Any) -> None:
    pipe = models.load("emoji", dtype=dtype, scheduler="LCMScheduler")
    expected = network_dtype(dtype)
    assert (pipe.unet.dtype, pipe.text_encoder.dtype, pipe.vae.dtype) == (expected, expected, torch.float32)
    assert isinstance(pipe.scheduler, LCMScheduler)
    assert pipe.scheduler.config.beta_end == models.load("emoji").scheduler.config.beta_end


def test_a_pipeline_from_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    tiny.sd().save_pretrained(folder)
    pipe = models.load(folder, dtype="bfloat16")
    assert pipe.unet.dtype == pipe.vae.dtype == torch.bfloat16
    assert models.name_of(pipe) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "emojis"}, r"no embedded model is called 'emojis'; there are emoji, emoji-turbo"),
        ({"name": "./nowhere/at/all"}, "no embedded model is called './nowhere/at/all'"),
        ({"name": ""}, "no embedded model is called ''"),
        ({"name": "emoji", "dtype": "int8"}, "dtype='int8' is not a network precision; choose one of float32"),
        ({"name": "emoji", "dtype": torch.int64}, "is not a network precision"),
        ({"name": "emoji", "dtype": None}, "dtype=None is not a network precision"),
        ({"name": "emoji", "scheduler": "Euler"}, "diffusers has no scheduler 'Euler'; try"),
        ({"name": "emoji", "scheduler": "UNet2DModel"}, "diffusers has no scheduler 'UNet2DModel'"),
    ],
)
def test_what_cannot_be_loaded_is_refused_first(
    arguments: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "_embedded", lambda name: pytest.fail("a model was loaded"))
    with pytest.raises(ValueError, match=message):
        models.load(**arguments)


def test_a_name_that_is_no_text_and_a_folder_that_is_no_pipeline(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="name=None is no name: pass one of emoji"):
        models.load(None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"holds no model_index\.json"):
        models.load(tmp_path)
