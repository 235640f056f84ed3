"""A record without pipe: bytes that cross to another process, files of older formats, latents of every step."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

import renoise
from renoise import archive
from renoise.core.settings import Region, Settings
from renoise.core.solvers import anderson
from renoise.core.table import StepTable
from renoise.record import Driver
from tests.helpers import golden, tiny, tiny_flow

DATA = Path(__file__).parent / "data"
ROOT = Path(__file__).parents[1]
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 32, 3), dtype=np.uint8))
SETTINGS = Settings((Region(iterations=1),), num_inference_steps=3)
DRIVERS: tuple[Driver, ...] = ("direct", "pipeline")


def inverted(pipe: Any, **options: Any) -> renoise.Inversion:
    return renoise.invert(pipe, PICTURE, "a cat", **{"preset": SETTINGS, **options})


CHILD = """
import sys
from renoise import Inversion, archive
from tests.helpers import tiny
record = archive.loads(sys.stdin.buffer.read())
picture = Inversion(record, tiny.sd(tiny.euler_ancestral())).edit("a dog")
sys.stdout.buffer.write(picture.tobytes())
"""


def test_a_record_crosses_to_another_process_as_bytes() -> None:
    inversion = inverted(tiny.sd(tiny.euler_ancestral()))
    data = archive.dumps(inversion.record)
    child = subprocess.run([sys.executable, "-c", CHILD], input=data, capture_output=True, check=True, cwd=ROOT)
    assert child.stdout == inversion.edit("a dog").tobytes()


def test_reading_a_record_needs_no_diffusers() -> None:
    data = archive.dumps(inverted(tiny.sd()).record)
    code = (
        "import sys; from renoise import archive; archive.loads(sys.stdin.buffer.read()); "
        "print({'diffusers', 'transformers'} & sys.modules.keys())"
    )
    child = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True, cwd=ROOT)
    assert child.stdout.strip() == b"set()"


def test_nothing_is_pickled(monkeypatch: pytest.MonkeyPatch) -> None:
    inversion = inverted(tiny.sd(tiny.euler_ancestral()), keep_latents=True)
    for name in ("dumps", "dump", "loads", "load"):
        monkeypatch.setattr(pickle, name, lambda *_, **__: pytest.fail("pickled"))
    found = archive.loads(archive.dumps(inversion.record))
    assert found.trajectory.z_T.equal(inversion.latents)


def test_a_file_of_format_1_still_loads_and_regenerates() -> None:
    """Made before formats were changed, with the pipeline of the recorded runs; its score and source are dropped."""
    inversion = renoise.load(DATA / "format-1.safetensors", golden.pipeline(tiny.euler_ancestral()))
    assert inversion.passes == 47
    assert inversion.trajectory.step_latents is None
    assert inversion.settings == renoise.presets.PRESETS["paper-sdxl-turbo"].settings
    assert inversion.scene.prompts == ("a lion", "a dog")
    for number, picture in enumerate(inversion.reconstruct()):
        then = np.asarray(Image.open(DATA / f"format-1-{number}.png")).astype(int)
        assert np.abs(np.asarray(picture).astype(int) - then).max() <= 1


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("make", [tiny.sd, tiny_flow.sd3], ids=["sd", "sd3"])
def test_latents_of_every_step_are_kept_on_request(make: Any, driver: Driver, tmp_path: Path) -> None:
    """An inversion walks from the picture to the noise, so one of fewer steps ends on the latents of the same step."""
    pipe, wanted = make(), replace(SETTINGS, num_inference_steps=4)
    before = inverted(pipe, driver=driver, preset=wanted, keep_latents=True)
    before.save(tmp_path / "kept.safetensors")
    kept = renoise.load(tmp_path / "kept.safetensors", pipe).trajectory.step_latents
    assert kept is not None
    assert kept.shape == (4, *before.z_0.shape)
    assert kept.equal(before.trajectory.step_latents)  # type: ignore[arg-type]
    for steps in (1, 2, 3, 4):
        part = inverted(pipe, driver=driver, preset=wanted, strength=steps / 4)
        assert part.trajectory.step_latents is None
        assert part.latents.equal(kept[-steps])


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_solver_of_ones_own_plugs_in_and_its_name_is_kept(driver: Driver, tmp_path: Path) -> None:
    pipe, settings = tiny.sd(), Settings((Region(iterations=3),), num_inference_steps=3)

    def mine(reverse: Any, start: Tensor) -> Any:
        return anderson(reverse, start)

    ours = inverted(pipe, driver=driver, preset=replace(settings, solver=mine))
    known = inverted(pipe, driver=driver, preset=replace(settings, solver="anderson"))
    assert ours.latents.equal(known.latents)
    assert not ours.latents.equal(inverted(pipe, driver=driver, preset=settings).latents)
    ours.save(tmp_path / "mine.safetensors")
    loaded = renoise.load(tmp_path / "mine.safetensors", pipe)
    assert loaded.reconstruct().tobytes() == ours.reconstruct().tobytes()
    assert "mine" in loaded.settings.solver.name  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"made with .*mine, and a file holds the name alone"):
        inverted(pipe, preset=loaded.settings)
    loaded.save(tmp_path / "again.safetensors")
    assert renoise.load(tmp_path / "again.safetensors", pipe).settings == loaded.settings


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("make", [lambda: tiny.sd(tiny.euler_ancestral()), tiny_flow.sd3], ids=["sd", "sd3"])
def test_a_method_of_ones_own_plugs_in(make: Any, driver: Driver) -> None:
    from renoise.core.loop import invert as invert_latents

    def mine(table: StepTable, z_0: Tensor, noises: Tensor | None) -> Any:
        return invert_latents(table, z_0, settings=SETTINGS, noises=noises)

    pipe = make()
    ours = inverted(pipe, driver=driver, preset=replace(SETTINGS, method=mine, passes=6))
    known = inverted(pipe, driver=driver)
    assert ours.latents.equal(known.latents)
    assert ours.passes == known.passes == 6
    with pytest.raises(ValueError, match="keep_latents=True: a method of your own decides"):
        inverted(pipe, driver=driver, preset=replace(SETTINGS, method=mine), keep_latents=True)


def test_settings_hold_no_prose() -> None:
    settings = Settings((Region(),))
    assert not {"score", "source"} & vars(settings).keys()
    with pytest.raises(ValueError, match="solver='newton' is none of renoise, anderson, and no function"):
        replace(settings, solver="newton")
