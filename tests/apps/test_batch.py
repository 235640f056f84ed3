"""`renoise batch`: from the command line, here."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from renoise import models
from renoise.apps.cli import app as cli
from renoise.evaluation import open_batch
from tests.helpers import batches

QUICK = ("--steps", "1", "--preset", "paper-sd")  # three passes


def run(*arguments: str | Path) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(cli.app, ["batch", *(str(argument) for argument in arguments)])


def said(result: Result) -> str:
    return re.sub(r"[\s│╭╮╰╯─]+", " ", result.output)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return batches.pictures(tmp_path / "pictures", 3)


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_embedded", lambda name: pytest.fail("a model was loaded"))


def test_a_folder_of_pictures(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source / "02.png").write_bytes(b"no picture")
    command = (
        source,
        "--out",
        tmp_path / "out",
        "-p",
        "a cat",
        "--to",
        "a dog",
        "--to",
        "a hen",
        "--reconstruct",
        *QUICK,
    )
    result = run(*command, "--latents", "float16", "--seed", "4")
    assert result.exit_code == 0, result.output
    assert "3 pictures: 2 done, 1 failed" in said(result)
    assert "3.0 passes" in said(result)
    assert re.search(r"reconstruction in dB at percentile 5 %: -?[\d.]+", said(result))
    assert "failed, 1:" in said(result)
    rows = {row.id: row for row in open_batch(tmp_path / "out").rows()}
    assert len(rows["00.png"].edits or []) == 2
    assert rows["00.png"].reconstruction
    before = (tmp_path / "out/manifest.parquet").stat().st_mtime_ns
    monkeypatch.setattr(models, "_embedded", lambda name: pytest.fail("a model was loaded"))
    again = run(*command, "--latents", "float16", "--seed", "4")  # there is nothing left to do
    assert again.exit_code == 0, again.output
    assert "3 of 3 pictures (100%)" in said(again)
    assert pq.read_table(tmp_path / "out/manifest.parquet").num_rows == 3
    assert before
    refused = run(*command, "--latents", "float32", "--seed", "4")
    assert refused.exit_code == 1
    assert "--latents 'float16' and not 'float32'" in said(refused)


@pytest.mark.usefixtures("no_model")
def test_mistakes_are_found_before_a_model_is_loaded(source: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out")
    for arguments, message in (
        ((source, *out), "nothing says what 00.png"),
        ((tmp_path / "nowhere", *out, "-p", "a cat"), "does not exist"),
        ((source, "--out", source, "-p", "a cat"), "and no batch"),
    ):
        result = run(*arguments)
        assert result.exit_code == 1
        assert message in said(result)
    for wrong in (("--shards", "zip"), ("--latents", "int8"), ("--batch-size", "0"), ("--size", "big")):
        assert run(source, *out, "-p", "a cat", *wrong).exit_code == 2
    assert not (tmp_path / "out").exists()


def test_what_the_model_cannot_do_is_said_before_any_pass(source: Path, tmp_path: Path) -> None:
    result = run(source, "--out", tmp_path / "out", "-p", "a cat", "--scheduler", "PNDMScheduler")
    assert result.exit_code == 1
    assert "--make-invertible" in said(result)


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("package", ["pyarrow", "ray"])
def test_a_package_that_is_missing_is_named(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    result = run(source, "--out", tmp_path / "out", "-p", "a cat", "--ray", "local")
    assert result.exit_code == 1
    assert 'pip install "renoise[scale]"' in said(result)


def test_help_tells_what_there_is() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for word in ("--ray", "--out", "metadata.jsonl", "the same command goes on"):
        assert word in said(result)
