"""The displacement loop against direct implementations of its special cases, and what every edit keeps to."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from renoise.core.clean import clean_estimate
from renoise.core.editing import (
    Controls,
    Displaced,
    Layout,
    Source,
    count_passes,
    displace,
    inverted_source,
    moved,
    renoised,
    walk,
)
from renoise.core.loop import drive, invert, replay
from renoise.core.query import Query
from renoise.core.table import StepTable
from renoise.core.toy import Toy
from renoise.core.trajectory import Trajectory
from tests.helpers.toys import BETAS, DDIM, SHAPE, SPREAD, TABLES, clean, k, made, noises, white

KINDS = {"epsilon": "epsilon", "v": "v_prediction", "sample": "sample"}


def table_of(name: str, prediction: str) -> StepTable:
    if name == "flow":
        return TABLES["flow"]()
    config = {**BETAS, "prediction_type": KINDS[prediction]}
    if name == "euler":
        return made("EulerAncestralDiscreteScheduler", 4, **config, timestep_spacing="trailing")
    if name == "lcm":
        return made("LCMScheduler", 4, **config, clip_sample=False)
    return made("DDIMScheduler", 10, 1.0 if name == "ddim-eta" else 0.0, **{**DDIM, **config})


CASES = [
    ("flow", "flow"),
    *((name, kind) for name in ("ddim", "ddim-eta") for kind in KINDS),
    *((name, kind) for name in ("euler", "lcm") for kind in ("epsilon", "v")),
]
FREE = Controls()


def network(table: StepTable, prediction: Any) -> Callable[[Query], Tensor]:
    """Two scenes, target and source, with different prompts for two images."""
    means = white(99, 4, 3, *SHAPE[1:])
    scenes = [Toy(table, means, prompts, spread=SPREAD, prediction=prediction) for prompts in ((2, 3), (0, 1))]

    def answer(query: Query) -> Tensor:
        blocks = zip(query.z.chunk(len(query.scenes)), query.scenes, strict=True)
        return torch.cat([scenes[scene](Query(z, query.step)) for z, scene in blocks])

    return answer


def source_only(denoise: Callable[[Query], Tensor]) -> Callable[[Query], Tensor]:
    return lambda query: denoise(Query(query.z, query.step, (1,)))


def inversion(table: StepTable, denoise: Callable[[Query], Tensor]) -> Trajectory:
    queries = invert(table, clean(), settings=k(3), noises=noises(table), keep_latents=True)
    return drive(queries, source_only(denoise))


def run(
    table: StepTable, source: Source, denoise: Callable[[Query], Tensor], controls: Controls = FREE, **more: Any
) -> Displaced:
    return drive(displace(table, source, controls, **more), denoise)


@pytest.mark.parametrize(("name", "prediction"), CASES)
def test_along_an_inversion_without_a_gate_it_is_the_prompt_swap(name: str, prediction: str) -> None:
    table = table_of(name, prediction)
    denoise = network(table, prediction)
    found = inversion(table, denoise)
    swapped = drive(replay(table, found.z_T, found.noises), lambda query: denoise(Query(query.z, query.step, (0,))))
    edited = run(table, inverted_source(found, clean()), denoise)
    torch.testing.assert_close(edited.latents, swapped, rtol=1e-5, atol=1e-5)
    assert edited.passes == len(table)


@pytest.mark.parametrize(("name", "prediction"), CASES)
def test_along_drawn_latents_it_is_edit_friendly(name: str, prediction: str) -> None:
    """Noise maps of the source, n eps = z_s - a z_t - b m, and a replay with them under the target prompt."""
    table = table_of(name, prediction)
    denoise, z_0 = network(table, prediction), clean()
    source = renoised(table, z_0, noises(table))
    path = [*source.latents, z_0]
    z = path[0]
    for step in range(len(table)):
        a, b = table.a[step].item(), table.b[step].item()
        noise_part = path[step + 1] - a * path[step] - b * denoise(Query(path[step], step, (1,)))
        z = a * z + b * denoise(Query(z, step, (0,))) + noise_part
    edited = run(table, source, denoise)
    torch.testing.assert_close(edited.latents, z, rtol=1e-5, atol=1e-5)
    assert edited.passes == 2 * len(table)


def test_along_drawn_latents_of_a_flow_it_is_flowedit() -> None:
    """Z_src = (1 - t) x + t eps, Z_tar = Z + Z_src - x, Z += dt (v_tgt(Z_tar) - v_src(Z_src)); the last steps alone."""
    table = TABLES["flow"]()
    denoise, x, first = network(table, "flow"), clean(), 3
    times = [*table.sigma.tolist(), 0.0]
    moving = x
    for step in range(first, len(table)):
        z_src = (1 - times[step]) * x + times[step] * noises(table)[step]
        z_tar = moving + z_src - x
        velocity = denoise(Query(z_tar, step, (0,))) - denoise(Query(z_src, step, (1,)))
        moving = moving + (times[step + 1] - times[step]) * velocity
    for motion in ("sampler", "smooth"):
        controls = Controls(first_step=first, motion=motion)  # type: ignore[arg-type]
        edited = run(table, renoised(table, x, noises(table)), denoise, controls)
        torch.testing.assert_close(edited.latents, moving, rtol=1e-5, atol=1e-5)


CONTROLS = [
    Controls(),
    Controls(preserve=0.4, motion="smooth"),
    Controls(first_step=2, source_guidance=1.5),
    Controls(preserve=1.0, first_step=1, source_guidance=0.5),
]


@pytest.mark.parametrize("controls", CONTROLS)
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
@pytest.mark.parametrize(("name", "prediction"), [("flow", "flow"), ("euler", "epsilon"), ("ddim", "v")])
def test_equal_prompts_give_the_picture_back(name: str, prediction: str, share: float, controls: Controls) -> None:
    table = table_of(name, prediction)
    denoise = network(table, prediction)
    found = inversion(table, denoise)
    source = Source(clean(), found.step_latents, None)  # type: ignore[arg-type]
    if share:
        source = renoised(table, clean(), noises(table), share, found.step_latents)
    edited = run(table, source, lambda query: denoise(Query(query.z, query.step, (1,) * len(query.scenes))), controls)
    assert edited.latents.equal(clean())


@pytest.mark.parametrize("controls", CONTROLS)
@pytest.mark.parametrize("known", [True, False])
def test_passes_are_counted_before_as_they_are_taken(controls: Controls, known: bool) -> None:
    table = TABLES["flow"]()
    denoise, asked = network(table, "flow"), list[int]()
    source = inverted_source(inversion(table, denoise), clean())
    source = source if known else Source(source.z_0, source.latents, None)

    def counting(query: Query) -> Tensor:
        asked.append(query.passes)
        return denoise(query)

    edited = run(table, source, counting, controls)
    assert sum(asked) == edited.passes == count_passes(table, known, controls)
    assert len(asked) == len(table) - controls.first_step


def test_source_guidance_goes_away_from_the_source() -> None:
    """m_target + w (m_target - m_source), all at the displaced latent."""
    table = TABLES["ddim-eta"]()
    denoise = network(table, "epsilon")
    exact = invert(table, clean(), settings=k(2, math.inf), noises=noises(table), keep_latents=True)
    source = inverted_source(drive(exact, source_only(denoise)), clean())

    def guided(query: Query) -> Tensor:
        target, away = (denoise(Query(query.z, query.step, (scene,))) for scene in (0, 1))
        return target + 0.7 * (target - away)

    expected = run(table, source, guided)
    edited = run(table, source, denoise, Controls(source_guidance=0.7))
    torch.testing.assert_close(edited.latents, expected.latents)


@pytest.mark.parametrize("name", TABLES)
def test_beyond_a_mask_nothing_moves(name: str) -> None:
    table = TABLES[name]()
    denoise = network(table, "flow" if name == "flow" else "epsilon")
    source = inverted_source(inversion(table, denoise), clean())
    mask = torch.zeros(2, 1, *SHAPE[2:], dtype=torch.float64)
    mask[0, :, 2:5, 3:9] = 1
    edited = run(table, source, denoise, mask=mask)
    changed = (edited.latents - clean()).abs().amax(1, keepdim=True) > 0
    assert not changed[mask == 0].any()
    assert changed[mask == 1].all()


def test_a_gate_holds_more_back_the_stronger_it_is() -> None:
    table = TABLES["euler"]()
    denoise = network(table, "epsilon")
    source = inverted_source(inversion(table, denoise), clean())
    sizes = [
        (run(table, source, denoise, Controls(preserve=preserve)).latents - clean()).flatten(1).norm(dim=1)
        for preserve in (0.0, 0.2, 0.4, 1.0)
    ]
    assert all((weak > strong).all() for weak, strong in itertools.pairwise(sizes)), sizes


@pytest.mark.parametrize("controls", CONTROLS)
def test_a_batch_of_two_is_two_batches_of_one(controls: Controls) -> None:
    table = TABLES["euler"]()
    means = white(99, 4, 3, *SHAPE[1:])
    source = renoised(table, clean(), noises(table))
    together = run(table, source, network(table, "epsilon"), controls)
    for image in range(2):
        toys = [Toy(table, means, (prompt,), spread=SPREAD) for prompt in (image + 2, image)]

        def one(query: Query, toys: list[Toy] = toys) -> Tensor:
            blocks = zip(query.z.chunk(len(query.scenes)), query.scenes, strict=True)
            return torch.cat([toys[scene](Query(z, query.step)) for z, scene in blocks])

        rows = slice(image, image + 1)
        alone = run(table, Source(source.z_0[rows], source.latents[:, rows], None), one, controls)
        torch.testing.assert_close(together.latents[rows], alone.latents, rtol=0, atol=1e-10)
        torch.testing.assert_close(together.evidence[rows], alone.evidence, rtol=0, atol=1e-10)


def test_tokens_are_gated_as_the_maps_that_they_are() -> None:
    table = TABLES["flow"]()
    denoise = network(table, "flow")
    source = inverted_source(inversion(table, denoise), clean())
    turned = Layout(lambda z: z.transpose(2, 3), lambda maps: maps.transpose(2, 3))
    mask = torch.ones(1, 1, SHAPE[3], SHAPE[2], dtype=torch.float64)
    mask[..., :4, :] = 0
    edited = run(table, source, denoise, Controls(preserve=0.3), mask=mask, layout=turned)
    plain = run(table, source, denoise, Controls(preserve=0.3), mask=mask.transpose(2, 3))
    torch.testing.assert_close(edited.latents, plain.latents)
    assert (edited.latents[..., :4] == clean()[..., :4]).all()


def test_walking_finds_the_latents_of_every_step() -> None:
    table = TABLES["ddim-eta"]()
    denoise = network(table, "epsilon")
    queries = invert(table, clean(), settings=k(2, math.inf), noises=noises(table), keep_latents=True)  # exact
    found = drive(queries, source_only(denoise))
    assert found.step_latents is not None
    torch.testing.assert_close(drive(walk(found), source_only(denoise)), found.step_latents)


def test_moved_latents_lead_to_the_moved_picture_with_the_same_noise() -> None:
    table = TABLES["ddim"]()
    latents = renoised(table, clean(), noises(table)).latents
    shift = white(7, *SHAPE)
    torch.testing.assert_close(moved(table, latents, shift), renoised(table, clean() + shift, noises(table)).latents)


def test_a_share_of_fresh_noise_keeps_the_variance() -> None:
    table, shape = TABLES["ddim"](), (1, 4, 64, 96)
    found = renoised(table, torch.zeros(shape, dtype=torch.float64), white(1, 10, *shape)).latents
    for share in (0.0, 0.3, 1.0):
        mixed = renoised(table, torch.zeros(shape, dtype=torch.float64), white(2, 10, *shape), share, found).latents
        ratio = mixed.flatten(1).std(1) / table.sigma
        torch.testing.assert_close(ratio, torch.ones(10, dtype=torch.float64), rtol=0, atol=0.02)
        correlation = (mixed * found).flatten(1).mean(1) / table.sigma.square()
        torch.testing.assert_close(correlation, torch.full((10,), (1 - share) ** 0.5).double(), rtol=0, atol=0.03)


@pytest.mark.parametrize(("name", "prediction"), CASES)
def test_the_kind_of_prediction_is_read_off_the_rows(name: str, prediction: Any) -> None:
    table = table_of(name, prediction)
    toy = Toy(table, white(99, 1, 1, *SHAPE[1:]), (0, 0), spread=0.0, prediction=prediction)
    estimate = clean_estimate(table)
    for step in range(len(table)):
        z = white(step, *SHAPE)
        m = toy(Query(z, step))
        x = estimate.of_z[step].item() * z + estimate.of_m[step].item() * m
        torch.testing.assert_close(x, toy.means[:, 0].expand(SHAPE), rtol=1e-4, atol=1e-4)


def test_a_scheduler_that_tells_no_levels_is_refused() -> None:
    table = TABLES["ddim"]()
    nothing = torch.full_like(table.alpha, torch.nan)
    with pytest.raises(ValueError, match="does not tell the noise level of its latents"):
        clean_estimate(StepTable(**{**vars(table), "alpha": nothing, "sigma": nothing}))


def test_a_sampler_that_shrinks_the_picture_is_refused() -> None:
    table = TABLES["ddim"]()
    with pytest.raises(ValueError, match="agree with no kind of prediction that is known"):
        clean_estimate(StepTable(**{**vars(table), "a": table.a * 0.9}))


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_flows_of_few_steps_are_known_as_such(steps: int) -> None:
    table = made("FlowMatchEulerDiscreteScheduler", steps)
    estimate = clean_estimate(table)
    torch.testing.assert_close(estimate.of_z, torch.ones(steps, dtype=torch.float64))
    torch.testing.assert_close(estimate.of_m, -table.sigma)
