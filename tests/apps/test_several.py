"""`renoise invert` and `edit` with several pictures, or a folder of them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import renoise
from renoise import models
from renoise.apps.cli import app as cli
from tests.helpers import batches

QUICK = ("--steps", "1", "--preset", "paper-sd", "-p", "a cat")  # three passes


def run(*arguments: str | Path) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(cli.app, [str(argument) for argument in arguments])


def said(result: Result) -> str:
    return re.sub(r"[\s│╭╮╰╯─]+", " ", result.output)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return batches.pictures(tmp_path / "pictures", 3)


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


def pixels(path: Path) -> np.ndarray:  # type: ignore[type-arg]
    with Image.open(path) as picture:
        return np.asarray(picture).astype(float)


def test_several_inversions_are_those_of_single_pictures(source: Path, tmp_path: Path) -> None:
    result = run("invert", source / "00.png", source / "02.png", *QUICK, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert names(tmp_path / "out") == ["00.safetensors", "02.safetensors"]
    assert len(re.findall(r"reconstruction -?[\d.]+ dB, auto-encoder ceiling [\d.]+ dB, 3 passes", said(result))) == 2
    assert run("invert", source / "02.png", *QUICK, "-o", tmp_path / "one.safetensors").exit_code == 0
    one, many = (renoise.load(tmp_path / name) for name in ("one.safetensors", "out/02.safetensors"))
    assert (one.latents - many.latents).abs().max() < 1e-3
    assert not many.record.batched


def test_a_folder_is_edited_and_a_bad_picture_costs_no_others(source: Path, tmp_path: Path) -> None:
    (source / "02.png").write_bytes(b"no picture")
    held = ("--preserve", "0.5", "--source-guidance", "0")
    result = run("edit", source, *QUICK, "--to", "a dog", "--to", "a hen", "-o", tmp_path / "out", *held)
    assert result.exit_code == 1
    assert "failed: 02.png: " in said(result)
    assert "1 of 3 pictures failed" in said(result)
    assert names(tmp_path / "out") == ["00-1.png", "00-2.png", "below/01-1.png", "below/01-2.png"]
    single = run("edit", source / "00.png", *QUICK, "--to", "a hen", "-o", tmp_path / "one.png", *held)
    assert single.exit_code == 0, single.output
    assert np.abs(pixels(tmp_path / "one.png") - pixels(tmp_path / "out/00-2.png")).max() <= 1


def test_mistakes_are_found_before_a_model_is_loaded(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "_embedded", lambda name: pytest.fail("a model was loaded"))
    (tmp_path / "file").write_text("")
    two = (source / "00.png", source / "02.png")
    for arguments, message in (
        (("invert", *two), "say what the pictures show"),
        (("invert", *two, *QUICK, "-o", tmp_path / "file"), "is a file; for several pictures, name a folder"),
        (("edit", source / "00.png", "a.safetensors", *QUICK, "--to", "x"), "is inverted already"),
        (("edit", *two, *QUICK, "--to", "x", "--grid"), "are for one picture"),
        (("edit", *two, source / "00.png", *QUICK, "--to", "x"), "would be written to one file"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2, result.output
        assert message in said(result)
