"""Inversions and edits as the studio makes them, on the embedded model, and the scripts that repeat them."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import renoise
from renoise.apps.studio import recipes, work
from renoise.apps.studio.choices import EditChoices, InvertChoices, Refused
from renoise.apps.studio.downloads import download
from renoise.apps.studio.examples import examples
from renoise.apps.studio.pictures import Limits, Source, encoded
from renoise.apps.studio.recipes import Model
from renoise.apps.studio.sessions import Result, Session
from tests.helpers.embedded import SIDE
from tests.helpers.studio import as_png

MODEL = Model("emoji-turbo")
WIDTH, HEIGHT = SIDE, SIDE * 3 // 4  # of a picture that needs padding


@pytest.fixture(scope="module")
def pipe() -> Any:
    pipe = renoise.models.load("emoji-turbo")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def source() -> Source:
    """An example, of a size that needs padding."""
    example = examples()[0]
    return Source(encoded(example.picture.resize((WIDTH, HEIGHT))), (WIDTH, HEIGHT), example.caption)


@pytest.fixture(scope="module")
def session(pipe: Any) -> Session:
    """A session with an inversion of one pass a step."""
    made = Session(Limits())
    chosen = source()
    made.add_inversion(work.invert(pipe, chosen, InvertChoices(chosen.caption, passes=4), renoise.Progress()))
    return made


def edited(pipe: Any, session: Session, base: Result | None, **choices: Any) -> Result:
    """An edit of a session."""
    inverted = session.inverted
    assert inverted is not None
    asked = EditChoices(**choices)
    made = work.edit(pipe, inverted.found, None if base is None else base.made, asked, renoise.Progress())
    return session.add_result(asked, made, inverted, base)


def pixels(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def half_mask() -> bytes:
    """White on its right half."""
    mask = Image.new("L", (WIDTH, HEIGHT))
    ImageDraw.Draw(mask).rectangle((WIDTH // 2, 0, WIDTH, HEIGHT), fill=255)
    return as_png(mask)


def test_an_inversion_says_what_it_found(session: Session) -> None:
    assert session.inverted is not None
    found = session.inverted.found
    assert Image.open(io.BytesIO(found.original)).size == (WIDTH, HEIGHT)
    assert pixels(found.original).shape == pixels(found.reconstruction).shape == pixels(found.ceiling).shape
    assert found.scores.passes == 4
    assert found.scores.ceiling > found.scores.fidelity > 15
    assert len(found.scores.residuals) == len(found.scores.timesteps) == 4
    assert found.scores.noise_share is not None
    assert 0 < found.scores.noise_share < 1
    assert found.caption == examples()[0].caption


def test_everything_that_is_kept_lies_on_the_cpu_and_the_way_is_walked_once(pipe: Any, session: Session) -> None:
    assert session.inverted is not None
    found = session.inverted.found
    first = edited(pipe, session, None, prompt="cat face, fluent flat style", preserve=0.2, source_guidance=0.0)
    again = edited(pipe, session, None, prompt="bear, fluent flat style", preserve=0.2, source_guidance=0.0)
    assert (first.made.passes, again.made.passes) == (4 + 3, 4)
    assert found.record.trajectory.step_latents is None  # files stay small
    after = again.made.after
    assert after.found is None  # it is its inversion's
    assert {after.z_0.device.type, after.pixels.device.type, found.way.z_T.device.type} == {"cpu"}


def test_five_edits_in_a_row_change_nothing_outside_of_the_mask(pipe: Any, session: Session) -> None:
    base = None
    for prompt in ("cat face", "bear", "fox", "panda", "koala"):
        base = edited(
            pipe, session, base, prompt=f"{prompt}, fluent flat style", mask="painted", painted=half_mask(),
            mask_feather=0,
        )  # fmt: skip
    assert base is not None
    assert session.inverted is not None
    before, after = pixels(session.inverted.found.original), pixels(base.made.picture)
    assert np.abs(after - before)[:, : WIDTH // 2].max() <= 2
    assert np.abs(after - before)[:, WIDTH // 2 :].max() > 40  # and inside there was something to do
    assert len(base.chain()) == 5


def test_an_automatic_mask_is_shown(pipe: Any, session: Session) -> None:
    result = edited(pipe, session, None, prompt="cat face, fluent flat style", mask="automatic", preserve=0.2)
    assert result.made.mask is not None
    mask = np.asarray(Image.open(io.BytesIO(result.made.mask)))
    assert mask.shape == (HEIGHT, WIDTH)
    assert mask.min() == 0
    assert mask.max() == 255


def test_a_saved_inversion_is_opened_and_a_batch_is_refused(pipe: Any, session: Session, tmp_path: Path) -> None:
    assert session.inverted is not None
    found = session.inverted.found
    again = work.open_saved(pipe, found.saved(), tmp_path, renoise.Progress())
    assert again.reconstruction == found.reconstruction
    assert again.caption == found.caption
    assert again.source is None
    assert list(tmp_path.iterdir()) == []
    pictures = [example.picture for example in examples()[:2]]
    batch = renoise.invert(pipe, pictures, [example.caption for example in examples()[:2]], passes=4)
    with pytest.raises(Refused, match="holds 2 pictures"):
        work.open_saved(pipe, renoise.archive.dumps(batch.record), tmp_path, renoise.Progress())
    with pytest.raises(Refused, match="This file is not a complete safetensors file"):
        work.open_saved(pipe, b"something else", tmp_path, renoise.Progress())
    assert list(tmp_path.iterdir()) == []


def test_a_stopped_inversion_leaves_the_pipeline_usable(pipe: Any) -> None:
    def stop(progress: renoise.Progress) -> None:
        if progress.passes == 2:
            progress.cancel()

    chosen = source()
    with pytest.raises(renoise.Cancelled):
        work.invert(pipe, chosen, InvertChoices(chosen.caption), renoise.Progress(stop))
    assert work.invert(pipe, chosen, InvertChoices(chosen.caption, passes=4), renoise.Progress()).scores.passes == 4


def needed(session: Session, result: Any, folder: Path) -> None:
    """Puts the files that a recipe reads into a folder, as the page hands them out."""
    number = result.inverted.number if isinstance(result, Result) else result.number
    for name in recipes.files(result):
        held = download(session, f"inversion-{number}-source.png" if name == "source.png" else name)
        assert held is not None, name
        (folder / name).write_bytes(held[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"preserve": 0.4, "strength": 0.5},
        {"source_guidance": 1.0, "randomness": 0.5, "seed": 3},
        {"mask": "automatic", "mask_grow": 2, "mask_feather": 3, "preserve": 0.2},
        {"mask": "painted", "painted": half_mask()},
        {"guidance_scale": 2.0},
    ],
    ids=["plain", "dial", "fresh noise", "automatic mask", "painted mask", "guidance"],
)
def test_the_script_repeats_a_result_exactly(
    pipe: Any, session: Session, tmp_path: Path, choices: dict[str, Any]
) -> None:
    result = edited(pipe, session, None, prompt="cat face, fluent flat style", **choices)
    chained = edited(pipe, session, result, prompt="cat face, noto style", preserve=0.2)
    for made in (result, chained):
        folder = tmp_path / str(made.number)
        folder.mkdir()
        needed(session, made, folder)
        (folder / "again.py").write_text(recipes.python(MODEL, made))
        subprocess.run([sys.executable, "again.py"], cwd=folder, check=True, timeout=300)
        assert (pixels((folder / f"edit-{made.number}.png").read_bytes()) == pixels(made.made.picture)).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("choices", "named"),
    [
        ({"guidance_scale": 2.0, "preserve": 0.2}, "source.png"),
        ({"mask": "painted", "painted": half_mask(), "mask_feather": 2}, "source.png"),
        ({"mask": "automatic", "mask_grow": -1, "source_guidance": 0.5}, "source.png"),
        ({"strength": 0.5}, "inversion-1.safetensors"),
        ({"randomness": 0.5, "seed": 7}, "inversion-1.safetensors"),
    ],
    ids=["guidance and dial", "painted mask", "automatic mask", "strength", "fresh noise"],
)
def test_the_command_line_repeats_a_result_exactly(
    pipe: Any, session: Session, tmp_path: Path, choices: dict[str, Any], named: str
) -> None:
    result = edited(pipe, session, None, prompt="cat face, it's fluent flat style", **choices)
    needed(session, result, tmp_path)
    saved = download(session, "inversion-1.safetensors")
    assert saved is not None
    (tmp_path / "inversion-1.safetensors").write_bytes(saved[0])
    line = recipes.command_line(MODEL, result)
    assert line is not None
    assert line.startswith(f"renoise edit {named} ")
    again = f"{sys.executable} -m {line}"
    subprocess.run(again, shell=True, cwd=tmp_path, check=True, timeout=300, stdout=subprocess.DEVNULL)
    assert (pixels((tmp_path / f"edit-{result.number}.png").read_bytes()) == pixels(result.made.picture)).all()


def test_recipes_name_the_model_as_it_was_named(session: Session) -> None:
    assert session.inverted is not None
    odd = Model(
        "stabilityai/sd-turbo", "LCMScheduler", "float16", (("clip_sample", False), ("beta_schedule", "linear")),
        make_invertible=True, device="cuda:0",
    )  # fmt: skip
    script = recipes.python(odd, session.inverted)
    compile(script, "script", "exec")
    assert "renoise.models.load('stabilityai/sd-turbo', dtype='float16', scheduler='LCMScheduler')" in script
    assert "clip_sample=False, beta_schedule='linear'" in script
    assert "pipe.to('cuda:0')" in script
    assert "renoise.make_invertible(pipe)" in script
    assert "passes=4" in script
    line = recipes.command_line(odd, session.inverted)
    assert line is not None
    for option in ("--scheduler LCMScheduler", "--scheduler-config clip_sample=False", "--make-invertible"):
        assert option in line


def test_an_inversion_of_a_file_is_repeated_from_the_file(pipe: Any, session: Session, tmp_path: Path) -> None:
    assert session.inverted is not None
    opened = work.open_saved(pipe, session.inverted.found.saved(), tmp_path, renoise.Progress())
    other = Session(Limits())
    other.add_inversion(opened)
    assert other.inverted is not None
    assert recipes.files(other.inverted) == ["inversion-1.safetensors"]
    assert "inv = renoise.load('inversion-1.safetensors', pipe)" in recipes.python(MODEL, other.inverted)
    assert torch.equal(opened.record.z_0, session.inverted.found.record.z_0)
