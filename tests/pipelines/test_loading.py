"""Pipelines from folders: whole ones load, and what is broken is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from renoise import models
from renoise.pipelines import loading
from tests.helpers import tiny


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pipe = tiny.sd()
    pipe.save_pretrained(tmp_path / "pipe")
    return tmp_path / "pipe"


@pytest.mark.parametrize("network", ["text_encoder", "unet", "vae"])
def test_weights_that_are_not_in_the_files_are_refused(folder: Path, network: str) -> None:
    models.load(folder)
    (file,) = (folder / network).glob("*.safetensors")
    weights = load_file(file)
    dropped = max(weights, key=lambda name: weights[name].numel())
    save_file({name: weight for name, weight in weights.items() if name != dropped}, file, {"format": "pt"})
    with pytest.raises((ValueError, OSError), match=r"weights of .* are not in its files"):
        models.load(folder)


def test_the_libraries_load_as_before_afterwards(folder: Path) -> None:
    from diffusers import ModelMixin
    from transformers import PreTrainedModel

    before = [kind.__dict__["from_pretrained"] for kind in (ModelMixin, PreTrainedModel)]
    models.load(folder)
    models.load("emoji-turbo")
    assert [kind.__dict__["from_pretrained"] for kind in (ModelMixin, PreTrainedModel)] == before


@pytest.mark.parametrize(
    "index",
    [
        "{",
        "[]",
        "null",
        "{}",
        '{"_class_name": 7}',
        '{"_class_name": "Nothing"}',
        '{"_class_name": "StableDiffusionPipeline", "unet": 7}',
        '{"_class_name": "StableDiffusionPipeline", "unet": ["nowhere", "Nothing"]}',
    ],
)
def test_a_bad_index_is_named(folder: Path, index: str) -> None:
    (folder / "model_index.json").write_text(index)
    with pytest.raises((ValueError, OSError)):
        models.load(folder)


def test_float16_files_are_taken_for_float16(folder: Path) -> None:
    assert loading.half_precision(str(folder)) == "bfloat16"
    tiny.sd().to(torch.float16).save_pretrained(folder, variant="fp16")
    assert loading.half_precision(str(folder)) == "float16"
    for file in folder.glob("*/*.safetensors"):
        if "fp16" not in file.name:
            file.unlink()
    assert models.load(folder, dtype="float16").unet.dtype == torch.float16
    assert json.loads((folder / "model_index.json").read_text())
