"""`renoise bench`: what it reads and writes, mistakes that are found early, and going on after it was killed."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import pie_set
from renoise import models
from renoise.apps.cli import bench, bench_options, pipes
from renoise.evaluation.records import read
from tests.helpers import metric_networks, tiny
from tests.helpers.command_line import run, said
from tests.helpers.pie_sets import image, published

QUICK = ("--preset", "fast", "--batch", "8", "--clip", "none", "--dino", "none", "--squeezenet", "none")


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_embedded", lambda name: pytest.fail("a model was loaded"))


def test_help_lists_both_commands() -> None:
    assert {"pie", "folder"} <= set(said(run("bench", "--help")).split())
    assert "mapping_file.json" in said(run("bench", "pie", "--help"))
    assert "figure 8 and table 2" in said(run("bench", "folder", "--help"))


@pytest.mark.slow
def test_edits_with_the_networks_that_are_to_be_had(
    offline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(pipes, "pipeline", lambda chosen: tiny.sd(tiny.euler_ancestral()))
    published(tmp_path / "data", kinds="16")
    metric_networks.dino().save_pretrained("dino")
    metric_networks.squeezenet(tmp_path / "squeezenet.pth")
    networks = ("--clip", "no/such-clip", "--dino", "dino", "--squeezenet", "squeezenet.pth")
    presets = ("--preset", "fast", "--preset", "fast-latent", "--edit", "guidance_scale=1.5")
    options = ("--data", "data", "--batch", "3", *presets, *networks)
    result = run("bench", "pie", *options)
    assert result.exit_code == 0, result.output
    rows = read(tmp_path / "bench-pie/pie.csv")
    assert [(row["method"], row["type"]) for row in rows] == [(m, t) for m in ("fast", "fast-latent") for t in "16"]
    assert all(row["psnr_background"] and row["lpips_background"] and row["structure_published"] for row in rows)
    assert not any(row["clip_whole"] or row["judge_hit"] for row in rows)
    assert "CLIP similarity is left out: no/such-clip cannot be loaded" in said(result)
    assert "fast: 0 of 2 pictures have no background to compare" in said(result)
    page = (tmp_path / "bench-pie/pie.md").read_text()
    assert page.startswith(
        "<!-- renoise bench pie --data data --preset fast --preset fast-latent --edit guidance_scale=1.5 --batch 3 "
        "--clip no/such-clip --dino dino --squeezenet squeezenet.pth -->"
    )
    assert "| 6 change colour | 1 |" in page
    assert "background LPIPS" in page
    with Image.open("bench-pie/contact-fast.png") as sheet:
        assert sheet.width > 1000
    before = (tmp_path / "bench-pie/pie.csv").read_bytes()
    assert run("bench", "pie", *options).exit_code == 0
    assert (tmp_path / "bench-pie/pie.csv").read_bytes() == before, "nothing is done twice"


def test_budgets_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipes, "pipeline", lambda chosen: tiny.sd(tiny.euler_ancestral()))
    (tmp_path / "data").mkdir()
    image(0, 32).save(tmp_path / "data/cat.png")
    (tmp_path / "data/metadata.csv").write_text("file_name,text\ncat.png,a cat\n")
    result = run("bench", "folder", "--data", "data", "--preset", "fast", "--passes", "4", "--passes", "8")
    assert result.exit_code == 0, result.output
    rows = {row["method"]: row for row in read(tmp_path / "bench-folder/folder.csv")}
    assert {name: row["passes"] for name, row in rows.items() if "passes" in name or "steps" in name} == {
        "plain reversal, 8 inversion steps": "8",
        "fast, 4 passes": "4",
        "fast, 8 passes": "8",
    }
    assert float(rows["fast"]["psnr_round_trip"]) > float(rows["plain reversal"]["psnr_round_trip"])
    assert "0 of " in said(result)
    assert (tmp_path / "bench-folder/folder.png").exists()
    assert "### With side information in the noise" in (tmp_path / "bench-folder/folder.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("pie", "--data", "nowhere"), "does not exist"),
        (("pie", "--data", "."), "holds no PIE-Bench"),
        (("pie", "--data", pie_set.FOLDER, "--types", "1,12"), "--types 1,12: pass numbers such as 1,9, of 0 random"),
        (("pie", "--data", pie_set.FOLDER, "--types", "7"), "no pictures of the types 7"),
        (("pie", "--data", pie_set.FOLDER, "--preset", "slow"), "'slow' is not one of plain, paper"),
        (("pie", "--data", pie_set.FOLDER, "--clip", "./nothing"), "--clip ./nothing: no such file or folder"),
        (("pie", "--data", pie_set.FOLDER, "--squeezenet", "x.pth"), "--squeezenet x.pth: no such file"),
        (("pie", "--data", pie_set.FOLDER, "--output", "file"), "file is a file; name a folder"),
        (("pie", "--data", pie_set.FOLDER, "--edit", "colour=red"), "'colour=red' is not KEY=VALUE with one of"),
        (("pie", "--data", pie_set.FOLDER, "--edit", "guidance_scale=[1, 2]"), "pass one value"),
        (("folder", "--data", "."), "has no captions"),
        (("folder", "--data", ".", "--passes", "0"), "--passes"),
    ],
)
def test_mistakes_are_found_before_a_model_is_loaded(
    no_model: None, arguments: tuple[str | Path, ...], reason: str
) -> None:
    Path("file").touch()
    result = run("bench", *arguments)
    assert result.exit_code in (1, 2)
    assert reason in said(result)


def test_missing_packages_are_named(no_model: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_options, "_PACKAGES", {"no_such_module": "no-such-package", "torch": "torch"})
    result = run("bench", "pie", "--data", pie_set.FOLDER)
    assert result.exit_code == 1
    assert 'needs no-such-package: pip install "renoise[bench]"' in said(result)


def test_the_commands_import_evaluation_only_when_they_run() -> None:
    for path in Path(bench.__file__).parent.glob("*.py"):
        top = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ImportFrom)]
        assert not [node.module for node in top if str(node.module).startswith("renoise.evaluation")], path


@pytest.mark.slow
def test_killed_at_any_point_it_goes_on_and_ends_with_the_same_rows(tmp_path: Path) -> None:
    """Killed (-9) three times at different points, then left alone; compared with a run that was not."""
    command = [sys.executable, "-m", "renoise", "bench", "pie", "--data", str(pie_set.FOLDER), "--count", "6"]
    command += [*QUICK, "--batch", "1", "--output"]
    for least in (1, 3, 5):
        made = tmp_path / "killed/made.csv"
        process = subprocess.Popen([*command, "killed"], stdout=subprocess.DEVNULL, start_new_session=True)
        while process.poll() is None and not (made.exists() and len(read(made)) >= least):
            time.sleep(0.02)
        assert process.poll() is None, "it was over before it could be killed"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    kept = {row["id"]: row["seconds"] for row in read(made)}
    about = json.loads(made.with_suffix(".json").read_text())["blocks"]
    for folder in ("killed", "whole"):
        subprocess.run([*command, folder], check=True, stdout=subprocess.DEVNULL)
    killed, whole = (read(tmp_path / folder / "pie.csv") for folder in ("killed", "whole"))
    assert sorted(row["id"] for row in killed) == sorted(row["id"] for row in whole)
    assert len(whole) == 6
    assert all(row["judge_hit"] for row in whole), "the embedded models have a judge"
    for row in killed:
        (other,) = [each for each in whole if each["id"] == row["id"]]
        assert {name: row[name] for name in row if name != "seconds"} == {
            name: other[name] for name in row if name != "seconds"
        }
        if f"fast: {row['id']}" in about:
            assert row["seconds"] == kept[row["id"]], "it was not done again"
