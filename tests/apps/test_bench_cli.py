"""`renoise bench`: what it reads and writes, mistakes that are found early, and going on after it was killed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from benchmarks import pie_set
from renoise import models
from renoise.apps.cli import app as cli
from renoise.apps.cli import bench
from renoise.evaluation.records import read
from tests.helpers import metric_networks

QUICK = ("--preset", "fast", "--batch", "8", "--clip", "none", "--dino", "none", "--squeezenet", "none")


def run(*arguments: str | Path) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(cli.app, ["bench", *(str(argument) for argument in arguments)])


def said(result: Result) -> str:
    """Everything on the screen, without frames and line breaks."""
    return re.sub(r"[\s│╭╮╰╯─]+", " ", result.output)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_embedded", lambda name: pytest.fail("a model was loaded"))


def test_help_lists_both_commands() -> None:
    assert {"pie", "folder"} <= set(said(run("--help")).split())
    assert "mapping_file.json" in said(run("pie", "--help"))
    assert "figure 8 and table 2" in said(run("folder", "--help"))


def test_edits_of_the_small_set(tmp_path: Path) -> None:
    structure = metric_networks.dino()
    structure.save_pretrained("dino")
    metric_networks.squeezenet(tmp_path / "squeezenet.pth")
    networks = ("--clip", "none", "--dino", "dino", "--squeezenet", "squeezenet.pth")
    options = (
        "--data",
        pie_set.FOLDER,
        "--types",
        "6,9",
        "--count",
        "4",
        "--batch",
        "4",
        "--preset",
        "fast",
        *networks,
    )
    result = run("pie", *options, "--preset", "paper")
    assert result.exit_code == 0, result.output
    rows = read(tmp_path / "bench-pie/pie.csv")
    assert [(row["method"], row["type"]) for row in rows] == [(m, t) for m in ("fast", "paper") for t in "6669"]
    assert [bool(row["psnr_background"]) for row in rows] == [True, True, True, False] * 2
    assert all(row["structure_published"] and row["judge_hit"] and not row["clip_whole"] for row in rows)
    assert "fast: 1 of 4 pictures have no background to compare" in said(result)
    page = (tmp_path / "bench-pie/pie.md").read_text()
    assert "| 6 change colour | 3 |" in page
    assert "background LPIPS" in page
    with Image.open("bench-pie/contact-fast.png") as sheet:
        assert sheet.width > 1000
    before = (tmp_path / "bench-pie/pie.csv").read_bytes()
    assert run("pie", *options, "--preset", "paper").exit_code == 0
    assert (tmp_path / "bench-pie/pie.csv").read_bytes() == before, "nothing is done twice"


def test_missing_networks_are_said_and_the_rest_is_computed(offline: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(Path.cwd()))
    result = run("pie", "--data", pie_set.FOLDER, "--count", "1", "--preset", "fast", "--clip", "no/such-clip")
    assert result.exit_code == 0, result.output
    for metric, option in (("CLIP similarity", "--clip"), ("structure distance", "--dino"), ("LPIPS", "--squeezenet")):
        assert f"{metric} is left out" in said(result)
        assert f"pass where it is with {option}" in said(result)
    (row,) = read(Path("bench-pie/pie.csv"))
    assert row["psnr_background"]
    assert row["ssim_background"]


def test_budgets_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    shutil.copy(models.EXAMPLE, tmp_path / "data/apple.png")
    (tmp_path / "data/metadata.csv").write_text('file_name,text\napple.png,"red apple, blob style"\n')
    result = run("folder", "--data", "data", "--preset", "fast", "--passes", "4", "--passes", "8")
    assert result.exit_code == 0, result.output
    rows = {row["method"]: row for row in read(tmp_path / "bench-folder/folder.csv")}
    assert {name: row["passes"] for name, row in rows.items() if "passes" in name or "steps" in name} == {
        "plain reversal, 8 inversion steps": "8",
        "fast, 4 passes": "4",
        "fast, 8 passes": "8",
    }
    assert float(rows["fast"]["psnr_round_trip"]) > float(rows["plain reversal"]["psnr_round_trip"]) + 10
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
        (("pie", "--data", pie_set.FOLDER, "--preset", "slow"), "'slow' is not one of paper"),
        (("pie", "--data", pie_set.FOLDER, "--clip", "./nothing"), "--clip ./nothing: no such file or folder"),
        (("pie", "--data", pie_set.FOLDER, "--squeezenet", "x.pth"), "--squeezenet x.pth: no such file"),
        (("pie", "--data", pie_set.FOLDER, "--output", "file"), "file is a file; name a folder"),
        (("folder", "--data", "."), "has no captions"),
        (("folder", "--data", ".", "--passes", "0"), "0 is not in the range"),
    ],
)
def test_mistakes_are_found_before_a_model_is_loaded(
    no_model: None, arguments: tuple[str | Path, ...], reason: str
) -> None:
    Path("file").touch()
    result = run(*arguments)
    assert result.exit_code in (1, 2)
    assert reason in said(result)


def test_missing_packages_are_named(no_model: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_PACKAGES", {"no_such_module": "no-such-package", "torch": "torch"})
    result = run("pie", "--data", pie_set.FOLDER)
    assert result.exit_code == 1
    assert 'needs no-such-package: pip install "renoise[bench]"' in said(result)


def test_the_library_itself_imports_nothing_of_it() -> None:
    code = "import sys, renoise.apps.cli.app; print([m for m in sys.modules if 'evaluation' in m or 'matplotlib' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


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
    for row in killed:
        (other,) = [each for each in whole if each["id"] == row["id"]]
        assert {name: row[name] for name in row if name != "seconds"} == {
            name: other[name] for name in row if name != "seconds"
        }
        if f"fast: {row['id']}" in about:
            assert row["seconds"] == kept[row["id"]], "it was not done again"
