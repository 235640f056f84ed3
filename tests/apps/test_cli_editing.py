"""`renoise edit` with controls, several prompts, masks and grids; and without a prompt."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import renoise
from renoise import images, models
from renoise.apps.cli import app as cli
from tests.helpers import tiny
from tests.helpers.embedded import SIDE

HALF = SIDE // 2
WORDS = ("--prompt", "red apple, blob style")
QUICK = ("--steps", "2", "--preset", "paper-sd")
SETTINGS = renoise.Settings(regions=(renoise.Region(iterations=0),), num_inference_steps=2)


def run(*arguments: str | Path) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(cli.app, [str(argument) for argument in arguments])


def said(result: Result) -> str:
    """Everything on the screen, without frames and line breaks."""
    return re.sub(r"[\s│╭╮╰╯─]+", " ", result.output)


def pixels(path: str | Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def original() -> np.ndarray[Any, Any]:
    """The example as the embedded models see it."""
    return np.asarray(images.fit(images.open_image(models.EXAMPLE), (SIDE, SIDE))[0])


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(left_half()).convert("L").save("mask.png")
    return tmp_path


def left_half() -> np.ndarray[Any, Any]:
    return np.arange(SIDE)[None].repeat(SIDE, 0) < HALF


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_embedded", lambda name: pytest.fail("a model was loaded"))


@pytest.fixture(scope="module")
def pipe() -> Any:
    return models.load("emoji-turbo")


@pytest.fixture(scope="module")
def inversion(pipe: Any) -> renoise.Inversion:
    return renoise.invert(pipe, models.EXAMPLE, "red apple, blob style", preset=SETTINGS)


@pytest.fixture(scope="module")
def saved(inversion: renoise.Inversion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "apple.safetensors"
    inversion.save(path)
    return path


def test_several_prompts_and_dials_are_numbered_pictures(saved: Path, inversion: renoise.Inversion) -> None:
    prompts, dials = ["pear, blob style", "tomato, blob style"], list[str | float](["balanced", 0.2])
    options = [word for prompt in prompts for word in ("--to", prompt)]
    options += [word for dial in dials for word in ("--preserve", str(dial))]
    result = run("edit", saved, *options, "-o", "all.png")
    assert result.exit_code == 0, result.output
    edits = [edit for row in inversion.edit(prompts, preserve=dials) for edit in row]
    assert sorted(path.name for path in Path().glob("all*")) == [f"all-{number}.png" for number in range(1, 5)]
    for number, edit in enumerate(edits, 1):
        assert np.array_equal(pixels(f"all-{number}.png"), np.asarray(edit))


@pytest.mark.parametrize(
    ("prompts", "dials"), [(2, 2), *(pytest.param(*few, marks=pytest.mark.slow) for few in ((1, 2), (2, 0), (1, 1)))]
)
def test_a_grid_is_one_picture(prompts: int, dials: int, saved: Path) -> None:
    options = [word for prompt in ("pear", "tomato")[:prompts] for word in ("--to", prompt)]
    options += [word for dial in ("0.3", "faithful")[:dials] for word in ("--preserve", dial)]
    result = run("edit", saved, *options, "--grid", "-o", "grid.png")
    assert result.exit_code == 0, result.output
    height, width, _ = pixels("grid.png").shape
    assert [path.name for path in Path().glob("grid*")] == ["grid.png"]
    columns = 1 + 1 + max(dials, 1)  # titles, the original, edits
    assert width == 2 * 20 + columns * (128 + 10) - 10
    assert 0 < height - prompts * (128 + 10) < 100
    apple = Image.fromarray(original()).resize((128, 128), Image.Resampling.NEAREST)
    top = height - 20 - 128 - (prompts - 1) * (128 + 10)
    assert np.array_equal(pixels("grid.png")[top : top + 128, 158 : 158 + 128], np.asarray(apple))


@pytest.mark.parametrize("mask", ["mask.png", "auto"])
def test_a_mask_and_the_other_controls(mask: str, saved: Path, inversion: renoise.Inversion) -> None:
    given: dict[str, Any] = {
        "preserve": 0.2,
        "strength": 0.5,
        "source_guidance": 0.7,
        "randomness": 0.4,
        "seed": 3,
        "guidance_scale": 2.0,
        "negative_prompt": "leaf",
        "mask_grow": 1,
        "mask_feather": 2,
    }
    short = {"guidance_scale": "guidance", "negative_prompt": "negative"}
    options = [
        word for name, value in given.items() for word in (f"--{short.get(name, name).replace('_', '-')}", str(value))
    ]
    result = run("edit", saved, "--to", "pear, blob style", "--mask", mask, *options)
    assert result.exit_code == 0, result.output
    expected = inversion.edit("pear, blob style", mask=mask, **given)
    assert np.array_equal(pixels("edited.png"), np.asarray(expected))
    if mask == "mask.png":
        assert np.array_equal(pixels("edited.png")[:, HALF + 3 :], original()[:, HALF + 3 :])
        assert not np.array_equal(pixels("edited.png")[:, : HALF + 1], original()[:, : HALF + 1])


def test_a_mask_for_a_picture_that_is_inverted_first() -> None:
    result = run("edit", models.EXAMPLE, *WORDS, *QUICK, "--to", "pear", "--mask", "mask.png", "--mask-feather", "0")
    assert result.exit_code == 0, result.output
    assert np.array_equal(pixels("edited.png")[:, HALF:], original()[:, HALF:])
    assert not np.array_equal(pixels("edited.png")[:, :HALF], original()[:, :HALF])


def test_progress_shows_the_passes_of_the_walk_and_of_the_edit(saved: Path) -> None:
    result = run("edit", saved, "--to", "pear", "--preserve", "0.5", "--source-guidance", "0")
    assert set(re.findall(r"(\w+): +\d+%", result.stderr)) == {"walk", "generate"}


def test_without_a_prompt_the_judge_suggests_one() -> None:
    result = run("edit", models.EXAMPLE, *QUICK, "--to", "pear, blob style", "-o", "suggested.png")
    assert result.exit_code == 0, result.output
    suggestion = re.search(r"without --prompt: the judge suggests '(.*?)'", said(result))
    assert suggestion
    assert suggestion[1].startswith("red apple, ")
    assert run("edit", models.EXAMPLE, "--prompt", suggestion[1], *QUICK, "--to", "pear, blob style").exit_code == 0
    assert np.array_equal(pixels("suggested.png"), pixels("edited.png"))


def test_without_a_prompt_a_pipeline_of_ones_own_gets_the_empty_one(own_folder: Path) -> None:
    tiny.sd().save_pretrained(own_folder / "own")
    made = ("--model", "own", "--steps", "2", "--preset", "paper-sd")
    result = run("invert", models.EXAMPLE, *made, "-o", "a.safetensors")
    assert result.exit_code == 0, result.output
    assert "without --prompt: inverted with the empty prompt" in said(result)
    assert renoise.load("a.safetensors", tiny.sd()).scene.prompts == ("",)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((SIDE, HALF), f"the mask is {HALF} x {SIDE} and the picture"), ((0.0), "the mask is black everywhere")],
)
def test_a_mask_that_cannot_be_used_is_refused_before_a_model_is_loaded(
    shape: Any, message: str, no_model: None
) -> None:
    mask = np.zeros((SIDE, SIDE), dtype=bool) if shape == 0 else np.ones(shape, dtype=bool)
    Image.fromarray(mask).convert("L").save("other.png")
    result = run("edit", models.EXAMPLE, *WORDS, "--to", "pear", "--mask", "other.png")
    assert result.exit_code == 1
    assert message in said(result)
    assert not Path("edited.png").exists()


@pytest.mark.parametrize("option", ["--mask-grow", "--mask-feather"])
def test_pixels_that_no_side_has_are_refused_before_the_picture_is_inverted(
    option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renoise, "invert", lambda *_, **__: pytest.fail("the picture was inverted"))
    result = run("edit", models.EXAMPLE, *WORDS, "--to", "pear", "--mask", "auto", option, str(SIDE + 1))
    assert result.exit_code == 1
    assert f"{option} {SIDE + 1} is no whole number of pixels" in said(result)
