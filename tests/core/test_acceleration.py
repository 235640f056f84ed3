"""Matched noise, expected start, Anderson, absorption and budgets through the whole loop, on closed-form denoisers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from renoise.core.loop import count_passes, drive, invert
from renoise.core.noise import matched
from renoise.core.query import Query
from renoise.core.settings import Region, Settings
from renoise.core.table import StepTable
from renoise.core.trajectory import Trajectory
from renoise.presets import PRESETS
from tests.helpers.toys import (
    BETAS,
    DDIM,
    EVERYTHING,
    TABLES,
    clean,
    inverted,
    k,
    made,
    noises,
    replayed,
    toy,
)

STOCHASTIC = ("euler", "lcm", "ddim-eta")
FAST = PRESETS["fast"].settings


def error(table: StepTable, name: str, settings: Settings) -> float:
    denoise = toy(table, name)
    found = inverted(table, denoise, settings, clean())
    return float((replayed(table, denoise, found) - clean()).norm() / clean().norm())


def asked(table: StepTable, name: str, settings: Settings) -> tuple[list[Query], Trajectory]:
    """Everything an inversion asks."""
    queries: list[Query] = []
    denoise = toy(table, name)

    def remember(query: Query) -> Tensor:
        queries.append(query)
        return denoise(query)

    return queries, inverted(table, remember, settings, clean())


# --- absorption ---


@pytest.mark.parametrize("settings", [FAST, replace(FAST, solver="renoise")], ids=["anderson", "renoise"])
def test_steps_that_absorb_are_exact(settings: Settings) -> None:
    assert error(TABLES["ddim-eta"](), "", settings) < 1e-12
    # where the step nearest the image draws no noise, what is missed there is all that is missed
    for name in ("euler", "lcm"):
        few = replace(settings, nearest=0)
        once, often = (error(TABLES[name](), name, replace(few, regions=(Region(iterations=i),))) for i in (0, 3))
        assert once == pytest.approx(often, rel=1e-6)
        assert error(TABLES[name](), name, replace(few, nearest=4)) < 0.5 * once


@pytest.mark.parametrize("name", STOCHASTIC)
def test_a_step_that_absorbs_ends_on_a_point_that_it_asked_for(name: str) -> None:
    table = TABLES[name]()
    queries, found = asked(table, name, replace(FAST, regions=(Region(iterations=3),)))
    mine = [query.z for query in queries if query.step == 0]
    assert len(mine) == 4
    best = found.steps[0].residuals.argmin(0).tolist()
    for image, place in enumerate(best):
        assert found.z_T[image].equal(mine[place][image])


def test_absorption_is_a_dial_and_says_how_far_it_went() -> None:
    table, errors = TABLES["ddim-eta"](), []
    for bound in (0.02, 0.1, math.inf):
        found = inverted(table, toy(table), replace(FAST, absorption=bound), clean())
        errors.append(error(table, "", replace(FAST, absorption=bound)))
        assert found.noises is not None
        for step, report in enumerate(found.steps):
            assert report.noise_travel is not None
            assert report.noise_std is not None
            assert (report.noise_travel <= bound * (1 + 1e-9)).all()
            torch.testing.assert_close(report.noise_std, found.noises[step].flatten(1).std(1, correction=0))
        nearest = (found.noises[-1] - noises(table)[-1]).square().mean((1, 2, 3)).sqrt()  # fresh where nothing matches
        torch.testing.assert_close(found.steps[-1].noise_travel, nearest)
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 100 * errors[2]


def test_matched_noise_says_how_white_it_is() -> None:
    table = TABLES["euler"]()
    found = inverted(table, toy(table), replace(k(1), noise="matched"), clean())
    assert found.noises is not None
    for step, report in enumerate(found.steps):
        assert report.noise_travel is None
        if table.n[step] == 0:
            assert report.noise_std is None
        else:
            assert report.noise_std is not None
            torch.testing.assert_close(report.noise_std, found.noises[step].flatten(1).std(1, correction=0))


# --- matched noise and the expected start ---


def test_matched_noise_keeps_the_noisiest_latent_within_its_distribution() -> None:
    """Independent noise does not.  Enough steps for the sampler to reach its images, each of them solved."""
    table = made("EulerAncestralDiscreteScheduler", 20, **BETAS)
    level = float(torch.hypot(table.alpha[0] * clean().std(), table.sigma[0]))
    stds = {}
    for noise in ("independent", "matched"):
        settings = replace(k(9), solver="anderson", start="expected", noise=noise)
        stds[noise] = float(inverted(table, toy(table), settings, clean()).z_T.std()) / level
    assert stds["matched"] == pytest.approx(1, abs=0.15)
    assert stds["independent"] > 5


@pytest.mark.parametrize("name", STOCHASTIC)
def test_a_step_starts_at_the_image_with_the_noise_that_it_has_to_keep(name: str) -> None:
    table = TABLES[name]()
    queries, found = asked(table, name, replace(FAST, regions=(Region(iterations=1),)))
    step, drawn = len(table) - 1, noises(table)
    assert queries[0].z.equal(table.noisy(step, clean(), matched(table, step, clean(), clean(), drawn[step])[1]))
    solved = [query.z for query in queries if query.step == step]
    best = torch.stack([solved[place][image] for image, place in enumerate(found.steps[step].residuals.argmin(0))])
    if table.n[step] != 0:  # absorbed, so this is where the step ended
        _, left = matched(table, step - 1, best, clean(), drawn[step - 1])
        torch.testing.assert_close(queries[len(solved)].z, table.noisy(step - 1, clean(), left))


DETERMINISTIC = {
    "ddim": lambda steps: made("DDIMScheduler", steps, **DDIM),
    "euler": lambda steps: made("EulerDiscreteScheduler", steps, **BETAS),
    "flow": lambda steps: made("FlowMatchEulerDiscreteScheduler", steps, shift=3.0),
}


@pytest.mark.parametrize("name", DETERMINISTIC)
@pytest.mark.parametrize("steps", [10, 30])
def test_deterministic_samplers_start_where_predictions_point(name: str, steps: int) -> None:
    """One pass a step and one more beat two passes a step, and so does every further pass."""
    table = DETERMINISTIC[name](steps)
    settings = PRESETS["many-step"].settings
    assert count_passes(table, settings) == steps + 1
    expected = error(table, name, settings)
    assert expected < 0.7 * error(table, name, k(1))
    assert error(table, name, replace(settings, regions=(Region(iterations=1),))) < 0.3 * expected


@pytest.mark.parametrize(("name", "value"), [("noise", "matched"), ("start", "expected")])
def test_what_needs_noise_levels_is_refused_without_them(name: str, value: str) -> None:
    table = TABLES["euler"]()
    table = replace(table, alpha=table.alpha * math.nan)
    settings = replace(k(1), **{name: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"{name}='{value}' needs the noise level.*: pass {name}="):
        next(invert(table, clean(), settings=settings, noises=noises(table)))


# --- all together ---

TOGETHER = {
    "few-step": PRESETS["few-step"].settings,
    "fast": FAST,
    "fast-latent": PRESETS["fast-latent"].settings,
    "many-step": PRESETS["many-step"].settings,
    "total": replace(FAST, passes=23),
    "renoising": replace(FAST, solver="renoise", absorption=0.2, regions=(Region(0.5, 2), Region(iterations=1))),
    "independent": replace(FAST, noise="independent", start="previous"),
    "published": replace(EVERYTHING, noise="matched", start="expected"),
    "absorbing edit losses": replace(EVERYTHING, correction=0.0, absorption=0.5),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("settings", TOGETHER.values(), ids=TOGETHER)
@pytest.mark.parametrize("tol", [0.0, 1e-2])
def test_budgets_are_kept_and_a_batch_is_its_images_one_by_one(name: str, settings: Settings, tol: float) -> None:
    if tol and any(region.weights for region in settings.regions):
        return
    settings = replace(settings, tol=tol)
    table = TABLES[name]()
    queries, together = asked(table, name, settings)
    assert sum(query.passes for query in queries) == together.passes <= count_passes(table, settings)
    assert together.z_T.isfinite().all()
    if not tol:
        assert together.passes == count_passes(table, settings)
    if settings.edit_losses:
        return  # their rolls are one generator's per image: see test_inversion
    for image in range(2):
        alone = drive(
            invert(
                table,
                clean()[image : image + 1],
                settings=settings,
                noises=noises(table)[:, image : image + 1],
            ),
            toy(table, name, prompts=(image,)),
        )
        size = float(alone.z_T.norm())
        torch.testing.assert_close(together.z_T[image : image + 1], alone.z_T, rtol=0, atol=1e-6 * size)
        for one, of_two in zip(alone.steps, together.steps, strict=True):
            assert one.passes <= of_two.passes


def test_a_tolerance_saves_passes_and_is_met() -> None:
    table = TABLES["ddim"]()
    settings = replace(k(19), solver="anderson", tol=1e-4)
    _, found = asked(table, "ddim", settings)
    assert found.passes < count_passes(table, settings) / 2
    for report in found.steps:
        assert (report.residuals[-1] < 1e-4 * 3).all(), "latents are about 2 here"


@pytest.mark.parametrize(("name", "solver", "tol"), [("lcm", "anderson", 1e-3), ("ddim", "renoise", 3e-2)])
def test_images_that_are_done_leave_the_batch(name: str, solver: Any, tol: float) -> None:
    table = TABLES[name]()
    settings = replace(k(19), solver=solver, tol=tol)
    queries, together = asked(table, name, settings)
    left = [query for query in queries if query.waiting is not None]
    assert left
    assert all(0 < int(query.waiting.sum()) < len(query.z) for query in left if query.waiting is not None)

    denoise = toy(table, name)

    def lazy(query: Query) -> Tensor:  # what is answered for those that left is not read, not even by Anderson
        m = denoise(query)
        return m if query.waiting is None else torch.where(query.waiting.view(-1, 1, 1, 1), m, torch.nan)

    found = inverted(table, lazy, settings, clean())
    assert found.z_T.equal(together.z_T)
    for one, other in zip(found.steps, together.steps, strict=True):
        assert one.residuals.equal(other.residuals)


@pytest.mark.parametrize(
    ("preset", "kind", "config"),
    [
        ("few-step", "EulerAncestralDiscreteScheduler", {**BETAS, "timestep_spacing": "trailing"}),
        ("fast", "EulerAncestralDiscreteScheduler", {**BETAS, "timestep_spacing": "trailing"}),
        ("fast-latent", "LCMScheduler", {**BETAS, "clip_sample": False}),
        ("many-step", "DDIMScheduler", DDIM),
    ],
)
def test_presets_state_their_passes(preset: str, kind: str, config: dict[str, Any]) -> None:
    settings = PRESETS[preset].settings
    table = made(kind, settings.num_inference_steps, **config)
    assert f" {count_passes(table, settings)} passes" in PRESETS[preset].score


def test_nothing_handed_in_is_changed_and_float32_stays() -> None:
    table = TABLES["euler"]()
    z_0, drawn = clean().float(), noises(table).float()
    copies = [z_0.clone(), drawn.clone()]
    found = drive(invert(table, z_0, settings=FAST, noises=drawn), toy(table))
    assert found.noises is not None
    assert {found.z_T.dtype, found.noises.dtype} == {torch.float32}
    assert all(now.equal(then) for now, then in zip((z_0, drawn), copies, strict=True))


def test_packed_latents_have_no_word_on_whiteness() -> None:
    table, shape = TABLES["euler"](), (2, 12, 5)
    found = inverted(table, toy(table, shape=shape), FAST, clean(shape))
    assert found.steps[0].noise_travel is not None
    assert found.steps[0].noise_std is None
