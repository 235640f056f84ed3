"""The embedded models: stock pipelines from local files, in any precision and with any scheduler."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import LCMScheduler, StableDiffusionPipeline
from torch import nn

import renoise
from renoise import models, shipped
from renoise.pipelines import loading
from renoise.pipelines.adapter import Adapter
from renoise.pipelines.loading import network_dtype
from tests.helpers import tiny
from tests.helpers.embedded import SIDE

SHARP = "emoji-turbo-sharp"


@pytest.fixture
def sharp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a LoRA, made at random, on the first and the last convolution of the shipped emoji-turbo."""
    peft = pytest.importorskip("peft")
    folder = tmp_path / "weights"
    folder.mkdir()
    for name in ("emoji", "emoji-turbo"):
        (folder / name).symlink_to(models.WEIGHTS / name)
    unet = models.load("emoji-turbo").unet
    unet.add_adapter(peft.LoraConfig(r=2, lora_alpha=2, target_modules=["conv_in", "conv_out"]))
    layers = peft.get_peft_model_state_dict(unet)
    with tiny.seeded(0):
        layers = {name: nn.init.normal_(value, std=0.2).half() for name, value in layers.items()}
    StableDiffusionPipeline.save_lora_weights(folder / SHARP, unet_lora_layers=layers)
    monkeypatch.setattr(models, "WEIGHTS", folder)
    return folder / SHARP


def test_a_model_is_made_of_its_own_files_and_of_those_of_its_base() -> None:
    assert shipped.parts("emoji") == ("emoji", {})
    assert shipped.parts("emoji-turbo") == ("emoji", {"unet": "emoji-turbo", "scheduler": "emoji-turbo"})
    assert shipped.parts(SHARP) == shipped.parts("emoji-turbo")
    assert [shipped.loras(name) for name in ("emoji", "emoji-turbo", SHARP)] == [(), (), (SHARP,)]


def test_the_sharp_model_is_the_base_with_the_lora_as_diffusers_loads_it(
    sharp: Path, tmp_path: Path, offline: None
) -> None:
    pipe, base = models.load(SHARP), models.load("emoji-turbo")
    assert (models.name_of(pipe), models.name_of(base)) == (SHARP, "emoji-turbo")
    assert {p.dtype for p in pipe.unet.parameters()} == {torch.float32}
    asked = {"prompt": ["red apple, noto style"], "num_inference_steps": 1, "guidance_scale": 1.0, "output_type": "pt"}

    def drawn(pipe: Any) -> Any:
        pipe.set_progress_bar_config(disable=True)
        return pipe(**asked, generator=torch.Generator().manual_seed(0)).images

    here, plain = drawn(pipe), drawn(base)
    inversion = renoise.invert(pipe, models.EXAMPLE, "red apple, blob style", preset="fast")
    inversion.save(tmp_path / "apple.safetensors")
    again = renoise.load(tmp_path / "apple.safetensors")
    assert models.name_of(again.pipe) == SHARP
    torch.testing.assert_close(again.regenerate(again.scene), inversion.regenerate(inversion.scene))
    base.load_lora_weights(sharp)
    base.unet.float()
    torch.testing.assert_close(drawn(base), here)
    assert (here - plain).abs().mean() > 0.01
    pipe.unload_lora_weights()
    assert models.name_of(pipe) == "emoji-turbo"
    torch.testing.assert_close(drawn(pipe), plain)


def test_the_sharp_model_is_loaded_without_a_warning(sharp: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("diffusers.loaders.lora_base")
    log.addHandler(caplog.handler)
    try:
        models.load(SHARP)
        assert not caplog.records
        models.load("emoji-turbo").load_lora_weights(sharp)
        assert "No LoRA keys" in caplog.text  # what diffusers says of a LoRA without parts for texts
    finally:
        log.removeHandler(caplog.handler)


def test_without_peft_the_sharp_model_says_what_to_install(sharp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(loading, "load_embedded", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(ImportError, match=r'emoji-turbo-sharp is a LoRA, .*pip install "renoise\[lora\]"'):
        models.load(SHARP)


def test_a_lora_of_another_network_is_refused(sharp: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    unet = tiny.unet()
    unet.add_adapter(peft.LoraConfig(r=2, lora_alpha=2, target_modules=["conv_in", "conv_out"]))
    StableDiffusionPipeline.save_lora_weights(sharp, unet_lora_layers=peft.get_peft_model_state_dict(unet))
    with pytest.raises(ValueError, match="was made for another network"):
        models.load(SHARP)


@pytest.mark.parametrize("name", models.NAMES)
def test_embedded_models_are_stock_pipelines_and_need_no_network(name: str, offline: None) -> None:
    if shipped.loras(name):
        pytest.importorskip("peft")
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
