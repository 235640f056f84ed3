"""The community pipeline for diffusers, loaded as diffusers loads one, on the embedded model and on a tiny SDXL."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
from diffusers.utils import dynamic_modules_utils

import renoise
from tests.helpers import tiny

FILE = Path(__file__).parents[1] / "examples/diffusers_community/pipeline_renoise.py"
MODELS: dict[str, Callable[[], Any]] = {
    "embedded": lambda: renoise.models.load("emoji-turbo"),
    "tiny sdxl": lambda: tiny.sdxl(vae=tiny.vae(scaling_factor=4.0)),
}


@pytest.fixture(params=MODELS)
def pipe(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    cache = tmp_path / "modules"  # diffusers copies the file there, and imports the copy
    monkeypatch.setattr(dynamic_modules_utils, "HF_MODULES_CACHE", str(cache))
    monkeypatch.setattr(sys, "path", [*sys.path])
    MODELS[request.param]().save_pretrained(tmp_path / "model")
    loaded = diffusers.DiffusionPipeline.from_pretrained(
        tmp_path / "model", custom_pipeline=str(FILE), trust_remote_code=True, low_cpu_mem_usage=False
    )
    assert type(loaded).__name__ == "ReNoisePipeline"
    assert type(loaded).__module__.startswith("diffusers_modules")
    loaded.set_progress_bar_config(disable=True)
    return loaded


def test_it_edits_a_picture_and_then_again(pipe: Any) -> None:
    source = "red apple, blob style"
    out = pipe("green apple, blob style", image=renoise.models.EXAMPLE, source_prompt=source, preset="fast")
    again, kept = pipe(["pear, blob style"], inversion=out.inversion, return_dict=False)
    assert kept is out.inversion
    assert out.inversion.passes == 8
    assert [picture.size for picture in (*out.images, *again)] == [out.images[0].size] * 2
    assert out.images[0].tobytes() != again[0].tobytes()
    stock = out.inversion.pipe
    direct = renoise.invert(stock, renoise.models.EXAMPLE, source, preset="fast")
    assert direct.edit("green apple, blob style").tobytes() == out.images[0].tobytes()
    with pytest.raises(ValueError, match="Pass either `image`"):
        pipe("pear")


def test_it_is_short() -> None:
    assert len(FILE.read_text().splitlines()) < 80
