"""Generating on another grid than that of the inversion: against curves that are known in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

import renoise
from renoise.core.regrid import regrid
from renoise.core.settings import Region, Settings
from renoise.core.table import StepTable
from renoise.pipelines.measure import measure
from tests.helpers import tiny

VARIANCE = 0.3  # of the clean latents of a Gaussian world, whose sampler has a straight answer

SAMPLERS: dict[str, tuple[type, dict[str, Any]]] = {
    "DDIM": (DDIMScheduler, {**tiny.TRAINING, "clip_sample": False, "set_alpha_to_one": False}),
    "DDIM, v": (DDIMScheduler, {**tiny.TRAINING, "clip_sample": False, "prediction_type": "v_prediction"}),
    "DDIM, sample": (
        DDIMScheduler,
        {**tiny.TRAINING, "clip_sample": False, "prediction_type": "sample", "set_alpha_to_one": False},
    ),
    "Euler": (EulerDiscreteScheduler, tiny.TRAINING),
    "Euler, v": (EulerDiscreteScheduler, {**tiny.TRAINING, "prediction_type": "v_prediction"}),
    "flow": (FlowMatchEulerDiscreteScheduler, {"shift": 3.0}),
}


def table(name: str, steps: int, **changes: Any) -> StepTable:
    kind, config = SAMPLERS[name]
    scheduler = kind(**{**config, **changes})
    scheduler.set_timesteps(steps)
    return measure(scheduler)


def answer(name: str, rows: StepTable, step: int, z: Tensor) -> Tensor:
    """The exact prediction where clean latents are Gaussian with variance VARIANCE."""
    alpha, sigma = rows.alpha[step], rows.sigma[step]
    clean = z * alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2)
    noise = (z - alpha * clean) / sigma
    if name.endswith("sample"):
        return clean
    if name.endswith("v"):
        scale = (alpha**2 + sigma**2).sqrt()
        return (alpha * noise - sigma * clean) / scale if alpha < 1 else (noise - sigma * clean) / scale
    return noise - clean if name == "flow" else noise


def generated(name: str, rows: StepTable, z: Tensor) -> Tensor:
    for step in range(len(rows)):
        z = rows.forward(step, z, answer(name, rows, step, z), None)
    return z


def to_unit(rows: StepTable, step: int, z: Tensor) -> Tensor:
    """What a latent at a level is of that level's standard deviation: constant along the exact curve."""
    return z / (rows.alpha[step] ** 2 * VARIANCE + rows.sigma[step] ** 2).sqrt()


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(("walked", "wanted"), [(10, 50), (50, 10), (10, 11), (7, 200)])
def test_another_grid_follows_the_same_curve(name: str, walked: int, wanted: int) -> None:
    """From the noisiest level of one grid the other leads to the same clean latent, up to its own step size."""
    made, other = table(name, walked), table(name, wanted)
    z = torch.ones(1, 1, dtype=torch.float64) * (made.alpha[0] ** 2 * VARIANCE + made.sigma[0] ** 2).sqrt()
    joined = regrid(made, other)
    assert torch.equal(joined.timesteps[:1], made.timesteps[:1])
    assert len(joined) - int((other.timesteps <= made.timesteps[0]).sum()) in (0, 1)
    assert (joined.timesteps.diff() < 0).all()
    exact = VARIANCE**0.5
    error, own = (abs(generated(name, rows, z).item() - exact) for rows in (joined, made))
    assert error < max(0.2, 2 * own)
    if wanted >= 50:
        assert error < 0.03 + 0.5 * own


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_leading_step_is_that_of_a_grid_with_both_levels(name: str) -> None:
    """Leaving a grid's own second level out and jumping to its third must be one step from first to third."""
    rows = table(name, 10)
    skipped = rows.tail(8)
    joined = regrid(rows, skipped)
    z = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    m = answer(name, rows, 0, z)
    alpha, sigma = rows.alpha[0], rows.sigma[0]
    clean = z * alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2)
    expected = rows.alpha[2] * clean + rows.sigma[2] * (z - alpha * clean) / sigma
    torch.testing.assert_close(joined.forward(0, z, m, None), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(joined.a[1:], skipped.a)


def test_a_level_that_is_on_both_grids_needs_no_leading_step() -> None:
    made, other = (table("DDIM", steps, timestep_spacing="trailing") for steps in (4, 8))
    assert torch.equal(regrid(made, other).timesteps, other.timesteps)


def test_samplers_that_draw_noise_and_empty_grids_are_refused() -> None:
    noisy = tiny.euler_ancestral()
    noisy.set_timesteps(4)
    measured = measure(noisy)
    with pytest.raises(ValueError, match="num_inference_steps=4 after an inversion with 10: this sampler draws noise"):
        regrid(table("DDIM", 10), measured)
    with pytest.raises(ValueError, match="has no step at or below the level t = 1 "):
        regrid(table("DDIM", 10).tail(1), table("DDIM", 2, timestep_spacing="trailing"))


def test_an_edit_takes_another_number_of_steps() -> None:
    pipe = tiny.sd()
    settings = Settings((Region(iterations=3),), num_inference_steps=10)
    picture = np.array([[[0.2, 0.5, 0.8]] * 32] * 32)
    for driver in ("direct", "pipeline"):
        inversion = renoise.invert(pipe, picture, "a cat", preset=settings, driver=driver)
        same, finer = inversion.edit("a cat"), inversion.edit("a cat", num_inference_steps=40)
        assert np.abs(np.asarray(same, dtype=float) - np.asarray(finer, dtype=float)).mean() < 40


def inverted(pipe: Any, **arguments: Any) -> renoise.Inversion:
    settings = Settings((Region(),), num_inference_steps=4)
    picture = np.array([[[0.2, 0.5, 0.8]] * 32] * 32)
    return renoise.invert(pipe, picture, "a cat", preset=settings, **arguments)


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_the_number_of_steps_that_the_inversion_had_is_no_other_number(strength: float) -> None:
    for scheduler in (tiny.ddim(), tiny.euler_ancestral()):  # the second draws noise
        inversion = inverted(tiny.sd(scheduler), strength=strength)
        assert inversion.edit("a dog", num_inference_steps=4).tobytes() == inversion.edit("a dog").tobytes()
    with pytest.raises(ValueError, match="this sampler draws noise"):
        inversion.edit("a dog", num_inference_steps=5)


def test_edits_that_would_leave_the_inversions_steps_are_refused() -> None:
    pipe = tiny.sd()
    inversion = inverted(pipe)
    for keyword, message in (
        ("eta", "eta in pipe_kwargs of an edit: it uses the steps of the inversion"),
        ("timesteps", "timesteps in pipe_kwargs of an edit"),
        ("strength", "strength in pipe_kwargs: pass it to invert, as strength="),
    ):
        with pytest.raises(ValueError, match=message):
            inversion.edit("a dog", pipe_kwargs={keyword: 0.5})
    with pytest.raises(ValueError, match="num_inference_steps=0: pass a whole number"):
        inversion.edit("a dog", num_inference_steps=0)
    own = inverted(tiny.sd(EulerDiscreteScheduler(**tiny.TRAINING)), pipe_kwargs={"timesteps": [601, 301, 1]})
    with pytest.raises(ValueError, match="num_inference_steps=9 after an inversion with timesteps of your own"):
        own.edit("a dog", num_inference_steps=9)
    assert own.edit("a dog")
