"""The work on a batch of pictures: what is kept of each, and what a failure costs."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import renoise
from renoise import archive
from renoise.batch import work as module
from renoise.batch.entries import Entry
from renoise.batch.recipe import Recipe
from renoise.batch.sources import entries
from renoise.batch.work import check, work
from tests.helpers import batches


@pytest.fixture(scope="module")
def pipe() -> Any:
    return batches.pipe()


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> list[Entry]:
    folder = batches.pictures(tmp_path_factory.mktemp("work") / "pictures", 3)
    return list(entries(folder, batches.DEFAULTS))


def opened(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png))


def test_a_row_holds_what_invert_and_edit_give(pipe: Any, asked: list[Entry]) -> None:
    recipe = replace(batches.RECIPE, reconstruct=True, invert={**batches.RECIPE.invert, "keep_latents": True})
    wanted = [replace(entry, edits=("a dog", "a hen")[: number + 1]) for number, entry in enumerate(asked[:2])]
    rows = work(pipe, recipe, wanted)
    together = renoise.invert(
        pipe,
        [entry.open() for entry in wanted],
        "a cat",
        generator=[torch.Generator().manual_seed(entry.seed) for entry in wanted],
        **recipe.invert,
    )
    for number, row in enumerate(rows):
        assert row.inversion is not None
        assert row.reconstruction is not None
        assert row.edits is not None
        record, trajectory = archive.loads(row.inversion), together.trajectory
        assert trajectory.noises is not None
        assert trajectory.step_latents is not None
        assert not record.batched
        assert record.scene.prompts == ("a cat",)
        assert record.boxes == (together.record.boxes[number],)
        assert torch.equal(record.trajectory.z_T[0], trajectory.z_T[number])
        assert torch.equal(record.trajectory.noises[:, 0], trajectory.noises[:, number])  # type: ignore[index]
        assert torch.equal(record.trajectory.step_latents[:, 0], trajectory.step_latents[:, number])  # type: ignore[index]
        assert [float(step.residuals[-1]) for step in record.trajectory.steps] == row.residuals
        assert row.fidelity == together.fidelity()[number]
        assert row.ceiling == together.ceiling()[number]
        assert (row.passes, row.seed, row.error) == (together.passes, wanted[number].seed, None)
        assert opened(row.reconstruction).tobytes() == together.reconstruct()[number].tobytes()
        assert [opened(edit).size for edit in row.edits] == [together.reconstruct()[number].size] * (number + 1)
    assert opened(rows[0].edits[0]).tobytes() == together.edit("a dog")[0].tobytes()  # type: ignore[index]
    again = renoise.Inversion(archive.loads(rows[1].inversion or b""), pipe).edit("a hen")
    assert np.abs(np.asarray(again).astype(float) - np.asarray(opened(rows[1].edits[1])).astype(float)).max() <= 1  # type: ignore[index]


def test_float16_keeps_half_and_reads_float32(pipe: Any, asked: list[Entry]) -> None:
    rows = {kind: work(pipe, replace(batches.RECIPE, latents=kind), asked[:1])[0] for kind in ("float32", "float16")}  # type: ignore[arg-type]
    full, half = (archive.loads(rows[kind].inversion or b"") for kind in ("float32", "float16"))
    assert half.trajectory.z_T.dtype == torch.float32
    assert torch.equal(half.trajectory.z_T, full.trajectory.z_T.half().float())
    assert not torch.equal(half.trajectory.z_T, full.trajectory.z_T)
    assert full.trajectory.noises is not None
    saved = 2 * sum(tensor.numel() for tensor in (full.z_0, full.trajectory.z_T, full.trajectory.noises))
    assert len(rows["float32"].inversion or b"") - len(rows["float16"].inversion or b"") == pytest.approx(saved, abs=64)


def test_nothing_is_done_that_was_not_asked(pipe: Any, asked: list[Entry]) -> None:
    (row,) = work(pipe, replace(batches.RECIPE, measure=False), [replace(asked[0], edits=())])
    assert (row.fidelity, row.ceiling, row.reconstruction, row.edits) == (None, None, None, [])


def test_pictures_that_cannot_be_opened_cost_no_others(pipe: Any, asked: list[Entry], tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(Path(asked[0].path).read_bytes()[:200])
    bad = [
        replace(asked[0], id="gone", path=str(tmp_path / "gone.png")),
        replace(asked[0], id="damaged", path=str(damaged)),
    ]
    rows = work(pipe, batches.RECIPE, [bad[0], asked[1], bad[1], asked[2]])
    assert [row.id for row in rows] == ["gone", asked[1].id, "damaged", asked[2].id]
    assert "no such file" in (rows[0].error or "")
    assert "damaged" in (rows[2].error or "")
    alone = work(pipe, batches.RECIPE, asked[1:])
    assert [batches.numbers(row) for row in rows[1::2]] == [batches.numbers(row) for row in alone]
    assert {row.error for row in work(pipe, batches.RECIPE, bad)} == {rows[0].error, rows[2].error}


def failing(monkeypatch: pytest.MonkeyPatch, when: Callable[[list[Image.Image]], Exception | None]) -> None:
    """Has the inversion of some batches fail."""
    real = renoise.invert

    def invert(pipe: Any, pictures: list[Image.Image], *arguments: Any, **options: Any) -> Any:
        error = when(pictures)
        if error is not None:
            raise error
        return real(pipe, pictures, *arguments, **options)

    monkeypatch.setattr(module, "invert", invert)


def test_a_picture_that_fails_in_a_batch_fails_alone(
    pipe: Any, asked: list[Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [work(pipe, batches.RECIPE, [entry])[0] for entry in asked]
    size = asked[1].open().size
    failing(monkeypatch, lambda some: RuntimeError("boom") if any(one.size == size for one in some) else None)
    rows = work(pipe, batches.RECIPE, asked)
    assert [row.error for row in rows] == [None, "boom", None]
    for row in (0, 2):
        assert batches.numbers(rows[row]) == batches.numbers(before[row])


def test_a_batch_too_large_for_the_memory_is_done_in_parts(
    pipe: Any, asked: list[Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, lambda some: torch.OutOfMemoryError("CUDA out of memory") if len(some) > 1 else None)
    assert [row.error for row in work(pipe, batches.RECIPE, asked)] == [None] * 3


def test_a_broken_accelerator_is_nobodys_error(pipe: Any, asked: list[Entry], monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, lambda some: torch.AcceleratorError("device-side assert"))
    with pytest.raises(torch.AcceleratorError):
        work(pipe, batches.RECIPE, asked)


def test_latents_that_are_not_finite_are_an_error(asked: list[Entry]) -> None:
    broken = batches.pipe()
    with torch.no_grad():
        broken.unet.conv_out.bias.fill_(torch.nan)
    rows = work(broken, batches.RECIPE, asked[:2])
    assert all("not finite" in (row.error or "") for row in rows)


def test_a_recipe_is_checked_without_a_pass(pipe: Any) -> None:
    passes: list[object] = []
    hook = pipe.unet.register_forward_hook(lambda *_: passes.append(1))
    check(pipe, batches.RECIPE, edits=False)
    with pytest.raises(ValueError, match="strength"):
        check(pipe, Recipe({"strength": 2.0}))
    with pytest.raises(ValueError, match="latents='half'"):
        Recipe(latents="half")  # type: ignore[arg-type]
    assert not passes
    with pytest.raises(ValueError, match="preserve='greedy'"):  # after the passes of one picture
        check(pipe, replace(batches.RECIPE, edit={"preserve": "greedy"}))
    check(pipe, replace(batches.RECIPE, edit={"preserve": 0.5}))
    hook.remove()
