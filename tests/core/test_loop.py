"""The loop over the steps, on closed-form denoisers: what it finds, what it asks, what it leaves alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from renoise.core.edit_losses import enhance
from renoise.core.loop import count_passes, drive, invert, replay
from renoise.core.query import Query
from renoise.core.settings import EditLosses, Region, Settings, window
from renoise.core.table import StepTable
from renoise.core.trajectory import Trajectory
from renoise.presets import PRESETS
from tests.helpers.toys import (
    BETAS,
    DDIM,
    EVERYTHING,
    LOSSES,
    SHAPE,
    TABLES,
    clean,
    inverted,
    k,
    made,
    noises,
    replayed,
    rolls_from,
    toy,
    white,
)


@pytest.mark.parametrize("name", TABLES)
def test_replay_returns_to_the_image_and_more_iterations_come_closer(name: str) -> None:
    table = TABLES[name]()
    if len(table) == 4:
        table = table.tail(3)  # the noisiest of four steps hardly contracts, whatever the network
    denoise = toy(table, name)
    errors = []
    for iterations in (0, 1, 3, 9):
        found = inverted(table, denoise, k(iterations), clean())
        errors.append(float((replayed(table, denoise, found) - clean()).norm() / clean().norm()))
        assert found.passes == (iterations + 1) * len(table)
    assert errors == sorted(errors, reverse=True), errors
    assert errors[-1] < 0.4 * errors[0], errors
    residuals = torch.stack([step.residuals for step in found.steps])
    assert (residuals[:, -1] < 0.5 * residuals[:, 1]).all(), "every step, every image"


@pytest.mark.parametrize("name", TABLES)
def test_no_iterations_are_plain_reversal(name: str) -> None:
    table = TABLES[name]()
    denoise, drawn = toy(table, name), noises(table)
    z = clean()
    for step in reversed(range(len(table))):
        z = table.backward(step, z, denoise(Query(z, step)), drawn[step] if table.n[step] else None)
    assert inverted(table, denoise, k(0), clean()).z_T.equal(z)


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("settings", [k(2), EVERYTHING], ids=["plain", "everything"])
def test_a_batch_of_two_is_two_batches_of_one(name: str, settings: Settings) -> None:
    table = TABLES[name]()
    together = inverted(table, toy(table, name), settings, clean())
    for image in range(2):
        alone = drive(
            invert(
                table,
                clean()[image : image + 1],
                settings=settings,
                noises=noises(table)[:, image : image + 1],
                forward_noise=white(3, *SHAPE)[image : image + 1],
                rolls=rolls_from(image),
            ),
            toy(table, name, prompts=(image,)),
        )
        torch.testing.assert_close(together.z_T[image : image + 1], alone.z_T, rtol=0, atol=1e-10)
        if alone.noises is not None and together.noises is not None:
            torch.testing.assert_close(together.noises[:, image : image + 1], alone.noises, rtol=0, atol=1e-10)
        for one, of_two in zip(alone.steps, together.steps, strict=True):
            torch.testing.assert_close(of_two.residuals[:, image : image + 1], one.residuals, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("iterations", [0, 2])
def test_exact_correction_makes_stochastic_steps_exact(iterations: int) -> None:
    table = TABLES["ddim-eta"]()
    assert (table.n != 0).all()
    denoise = toy(table)
    found = inverted(table, denoise, k(iterations, math.inf), clean())
    error = (replayed(table, denoise, found) - clean()).norm() / clean().norm()
    assert error < 1e-12
    assert found.passes == (iterations + 2) * len(table)


def test_bounded_correction_helps_and_stays_within_its_bound() -> None:
    table = TABLES["euler"]()
    denoise = toy(table)
    errors = []
    for bound in (0.0, 0.02, math.inf):
        found = inverted(table, denoise, k(1, bound), clean())
        errors.append(float((replayed(table, denoise, found) - clean()).norm()))
        assert found.noises is not None
        travel = (found.noises - noises(table)).square().mean((2, 3, 4)).sqrt()
        assert (travel <= bound * (1 + 1e-9)).all()
        for step, report in enumerate(found.steps):
            if bound == 0 or table.n[step] == 0:
                assert report.passes == 2
                assert report.noise_travel is report.noise_std is report.noise_correlation is None
            else:
                assert report.passes == 3
                assert report.noise_travel is not None
                torch.testing.assert_close(report.noise_travel, travel[step])
                assert report.noise_std is not None
                torch.testing.assert_close(report.noise_std, found.noises[step].flatten(1).std(1, correction=0))
                assert report.noise_correlation is not None
                assert report.noise_correlation.shape == (2,)
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < errors[0] / 2


def test_correction_leaves_the_latents_alone() -> None:
    table = TABLES["euler"]()
    plainly, corrected = (inverted(table, toy(table), k(2, bound), clean()) for bound in (0.0, math.inf))
    assert plainly.z_T.equal(corrected.z_T)
    assert plainly.noises is not None
    assert plainly.noises.equal(noises(table))


def asked(table: StepTable, settings: Settings, z_0: Tensor) -> tuple[list[Query], list[Tensor], Trajectory]:
    """Everything an inversion asks and is told."""
    queries: list[Query] = []
    answers: list[Tensor] = []
    denoise = toy(table)

    def remember(query: Query) -> Tensor:
        queries.append(query)
        answers.append(denoise(query))
        return answers[-1]

    return queries, answers, inverted(table, remember, settings, z_0)


def test_what_a_step_asks_with_everything_on() -> None:
    table = TABLES["euler"]()
    queries, _, found = asked(table, EVERYTHING, clean())
    assert [query.step for query in queries] == [3, 3, *[2] * 5, *[1] * 5, *[0] * 5]
    first = {step: next(i for i, query in enumerate(queries) if query.step == step) for step in range(4)}
    for place, query in enumerate(queries):
        assert query.passes == (2 if place in first.values() else 1)
        assert len(query.z) == 2 * query.passes
    for step, place in first.items():
        target, estimate = queries[place].z.chunk(2)
        assert target.equal(table.noisy(step, clean(), white(3, *SHAPE)))
        if step == 3:
            assert estimate.equal(clean())
        elif step < 2:  # the step before drew noise, so its last query, for correction, was at its solution
            assert estimate.equal(queries[place - 1].z)
    assert queries[-1].z.equal(found.z_T)
    assert [report.passes for report in found.steps] == [6, 6, 6, 3]
    assert found.passes == 21


def test_edit_losses_by_hand() -> None:
    """One step without noise, window over both passes: what enters the next estimate and what enters the mean."""
    table = TABLES["euler"]().tail(1)
    settings = Settings((Region(iterations=1, weights=window(1, 2, 1)),), edit_losses=LOSSES)
    queries, answers, found = asked(table, settings, clean())
    rolls = rolls_from(0, 1)
    target, first = answers[0].chunk(2)

    def nudged(prediction: Tensor) -> Tensor:
        return enhance(prediction, target, lambda_pair=0.5, lambda_kl=0.01, steps=2, rolls=rolls(SHAPE))

    torch.testing.assert_close(queries[1].z, table.backward(0, clean(), nudged(first), None))
    expected = table.backward(0, clean(), nudged((first + answers[1]) / 2), None)
    torch.testing.assert_close(found.z_T, expected)
    without = table.backward(0, clean(), (first + answers[1]) / 2, None)
    assert (found.z_T - without).norm() > 1e-4 * without.norm(), "the losses did something"


@pytest.mark.parametrize(("pair", "kl", "copies"), [(0.5, 0.0, 1), (0.0, 0.01, 2)])
def test_each_loss_asks_only_for_what_it_needs(pair: float, kl: float, copies: int) -> None:
    table = TABLES["ddim"]().tail(2)
    settings = Settings((Region(iterations=1, weights=(0.0, 1.0)),), edit_losses=EditLosses(pair, kl, steps=2, rolls=2))
    seen: list[int] = []

    def denoise(query: Query) -> Tensor:
        seen.append(query.passes)
        return toy(table)(query)

    queries = invert(
        table,
        clean(),
        settings=settings,
        forward_noise=white(3, *SHAPE) if kl else None,
        rolls=rolls_from(0, 1) if pair else None,
    )
    found = drive(queries, denoise)
    assert seen == [copies, 1] * 2
    assert found.passes == count_passes(table, settings) == 2 * (copies + 1)


def test_regions_without_weights_have_no_edit_losses() -> None:
    table = TABLES["ddim"]()
    regions = (Region(0.25, 1, window(1, 2, 1)), Region(iterations=1))
    queries, _, _ = asked(table, Settings(regions, edit_losses=LOSSES), clean())
    assert {query.step for query in queries if query.passes == 2} == {7, 8, 9}, "t = 201, 101, 1"


def test_reports_are_in_the_order_of_the_table() -> None:
    table = TABLES["euler"]()
    found = inverted(table, toy(table), Settings((Region(0.3, 1), Region(iterations=4))), clean())
    assert [report.step for report in found.steps] == [0, 1, 2, 3]
    assert [report.timestep for report in found.steps] == [999, 749, 499, 249]
    assert [report.level for report in found.steps] == [0.999, 0.749, 0.499, 0.249]
    assert [tuple(report.residuals.shape) for report in found.steps] == [(5, 2), (5, 2), (5, 2), (2, 2)]
    assert found.passes == sum(report.passes for report in found.steps) == 17


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("settings", [k(0), k(2, 0.1), EVERYTHING], ids=["k0", "corrected", "everything"])
def test_passes_are_counted_beforehand_as_they_are_taken(name: str, settings: Settings) -> None:
    table = TABLES[name]()
    ticks: list[int] = []
    found = drive(
        invert(
            table,
            clean(),
            settings=settings,
            noises=noises(table),
            forward_noise=white(3, *SHAPE),
            rolls=rolls_from(0, 1),
        ),
        toy(table, name),
        ticks.append,
    )
    assert sum(ticks) == found.passes == count_passes(table, settings)


@pytest.mark.parametrize(
    ("preset", "kind", "config"),
    [
        ("paper-sd", "DDIMScheduler", DDIM),
        ("paper-sdxl", "DDIMScheduler", DDIM),
        ("paper-sdxl-turbo", "EulerAncestralDiscreteScheduler", {**BETAS, "timestep_spacing": "trailing"}),
        ("paper-lcm", "LCMScheduler", {**BETAS, "clip_sample": False}),
        ("reference-sdxl-turbo", "EulerAncestralDiscreteScheduler", {**BETAS, "timestep_spacing": "trailing"}),
    ],
)
def test_presets_state_their_passes(preset: str, kind: str, config: dict[str, Any]) -> None:
    settings = PRESETS[preset].settings
    passes = count_passes(made(kind, settings.num_inference_steps, **config), settings)
    assert f" {passes} passes" in PRESETS[preset].score


def test_nothing_handed_in_is_changed() -> None:
    table = TABLES["euler"]()
    z_0, drawn, aim = clean(), noises(table), white(3, *SHAPE)
    copies = [tensor.clone() for tensor in (z_0, drawn, aim)]
    state = torch.get_rng_state()
    queries = invert(table, z_0, settings=EVERYTHING, noises=drawn, forward_noise=aim, rolls=rolls_from(0, 1))
    found = drive(queries, toy(table))
    drive(replay(table, found.z_T, found.noises), toy(table))
    assert torch.get_rng_state().equal(state)
    assert all(now.equal(then) for now, then in zip((z_0, drawn, aim), copies, strict=True))
    assert found.noises is not None
    assert found.noises.data_ptr() != drawn.data_ptr()


@pytest.mark.parametrize("answer", [torch.float32, torch.bfloat16, torch.float64])
def test_float32_stays_float32_whatever_the_network_answers_in(answer: torch.dtype) -> None:
    table = TABLES["euler"]()
    denoise = toy(table)
    seen = set()

    def network(query: Query) -> Tensor:
        seen.add(query.z.dtype)
        return denoise(query).to(answer)

    found = inverted(table, network, EVERYTHING, clean().float())
    back = replayed(table, network, found)
    assert found.noises is not None
    assert {found.z_T.dtype, found.noises.dtype, back.dtype, *seen} == {torch.float32}
    precise = inverted(table, denoise, EVERYTHING, clean())
    close = 0.1 if answer == torch.bfloat16 else 1e-3
    torch.testing.assert_close(found.z_T.double(), precise.z_T, rtol=0, atol=close * float(precise.z_T.std()))


@pytest.mark.parametrize("shape", [(2, 16, 12, 8), (2, 1, 9, 17), (2, 4, 16, 16)])
def test_any_channels_and_sides(shape: tuple[int, ...]) -> None:
    table = TABLES["euler"]()
    denoise = toy(table, shape=shape)
    found = inverted(table, denoise, EVERYTHING, clean(shape))
    assert found.z_T.shape == shape
    back = replayed(table, denoise, found)
    start = replayed(table, denoise, inverted(table, denoise, k(0), clean(shape)))
    assert (back - clean(shape)).norm() < (start - clean(shape)).norm()


def test_packed_latents_are_corrected_without_a_word_on_whiteness() -> None:
    """Tokens [batch, token, channel], as transformer pipelines carry them, have no neighbours to compare."""
    table, shape = TABLES["euler"](), (2, 12, 5)
    found = inverted(table, toy(table, shape=shape), k(1, 0.1), clean(shape))
    assert found.steps[0].noise_travel is not None
    assert found.steps[0].noise_std is found.steps[0].noise_correlation is None


def test_the_steps_nearest_the_image_alone() -> None:
    table = TABLES["ddim"]()
    tail = table.tail(4)
    found = inverted(tail, toy(tail), k(9), clean())
    assert [report.timestep for report in found.steps] == [301, 201, 101, 1]
    assert (replayed(tail, toy(tail), found) - clean()).norm() < 1e-3 * clean().norm()


def test_noise_of_a_deterministic_sampler_is_left_out() -> None:
    table = TABLES["ddim"]()
    assert inverted(table, toy(table), k(0), clean()).noises is None


def test_no_graph_is_kept() -> None:
    table = TABLES["euler"]()
    gain = torch.ones((), dtype=torch.float64, requires_grad=True)
    queries = invert(table, clean(), settings=k(1, 0.1), noises=noises(table))
    query = next(queries)
    found: Trajectory | None = None
    while found is None:
        assert torch.is_grad_enabled(), "outside the generator, as the caller has it"
        try:
            query = queries.send(gain * toy(table)(query))
        except StopIteration as stop:
            found = stop.value
    assert not found.z_T.requires_grad
    assert found.noises is not None
    assert not found.noises.requires_grad


def start(generator: Any) -> None:
    next(generator)


def test_what_is_missing_is_named() -> None:
    table, settings = TABLES["euler"](), k(1)
    with pytest.raises(ValueError, match="this sampler draws noise: pass noises"):
        start(invert(table, clean(), settings=settings))
    with pytest.raises(ValueError, match="this sampler draws noise: pass noises"):
        start(replay(table, clean()))
    with pytest.raises(ValueError, match=r"noises are \[3, 2, 4, 8, 16\] for 4 steps"):
        start(invert(table, clean(), settings=settings, noises=noises(table)[1:]))
    with pytest.raises(ValueError, match=r"noises are \[4, 1, 4, 8, 16\]"):
        start(replay(table, clean(), noises(table)[:, :1]))
    with pytest.raises(ValueError, match=r"lambda_kl=0.01 .* pass forward_noise \[2, 4, 8, 16\]"):
        start(invert(table, clean(), settings=EVERYTHING, noises=noises(table), rolls=rolls_from(0, 1)))
    one = white(3, *SHAPE)[:1]
    with pytest.raises(ValueError, match=r"lambda_kl=0.01 .* pass forward_noise \[2, 4, 8, 16\]"):
        start(invert(table, clean(), settings=EVERYTHING, noises=noises(table), forward_noise=one))
    with pytest.raises(ValueError, match=r"lambda_pair=0.5 .* pass rolls"):
        start(invert(table, clean(), settings=EVERYTHING, noises=noises(table), forward_noise=white(3, *SHAPE)))
    with pytest.raises(ValueError, match=r"latents are torch.float16 .*pass float32 or float64"):
        start(invert(table, clean().half(), settings=settings, noises=noises(table)))


@pytest.mark.parametrize("way", ["invert", "replay"])
def test_answers_that_cannot_be_are_refused(way: str) -> None:
    table = TABLES["ddim"]()

    def begun() -> Any:
        return invert(table, clean(), settings=k(1)) if way == "invert" else replay(table, clean())

    with pytest.raises(ValueError, match=r"the prediction is \[1, 4, 8, 16\] for latents \[2, 4, 8, 16\]"):
        drive(begun(), lambda query: query.z[:1])
    for broken in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match=r"prediction at step . is not finite.*dtype=torch.float32"):
            drive(begun(), lambda query: torch.full_like(query.z, broken))  # noqa: B023 - called at once
