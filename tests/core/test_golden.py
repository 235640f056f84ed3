"""Parity with the method's published implementation, pass by pass, on numbers recorded from it.

`golden/` holds what a run in float64 on a tiny SDXL-type network recorded, in float32: the latents `z` its network saw
and the outputs `m`, query by query from the step nearest the image on (with the edit losses on, the first query of a
step has two rows, [target, estimate]; with guidance `m` has two, [negative, prompted]), its noises, rolls and results,
and the scheduler's configuration as metadata.  Where not every `z` is kept, `z_query` says which are.
`steps.safetensors` holds single sampler steps, both ways.

The network is played by the recording, so a latent that we ask for is compared with the one recorded at the same place;
every difference would show in the next.  The rows come from the stock diffusers scheduler.

Three things the published implementation computes and then drops; we never ask for them:
* noise correction at a step that draws no noise (one pass);
* the target of the edit losses at steps where nothing is regularised (one pass each);
* the regularised prediction of a step's last pass, which drives no further pass (its rolls are left out here).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from renoise.core.loop import drive, invert
from renoise.core.query import Query
from renoise.core.table import StepTable
from renoise.core.trajectory import Trajectory
from renoise.pipelines.measure import measure
from tests.helpers.golden import CASES, CORRECTION, TOLERANCE, Case, error, load


class Recording:
    """A network that answers as recorded, and checks that it is asked what was asked then.

    Attributes:
        dropped: recorded passes that were not asked for.
        worst: the largest relative error of a latent so far.
    """

    def __init__(self, tensors: dict[str, Tensor], case: Case, steps: int) -> None:
        """The first `steps` steps, counted from the image."""
        outputs = torch.split(tensors["m"], tensors["m_rows"].tolist())
        kept = torch.split(tensors["z"], tensors["z_rows"].tolist())
        latents = dict(zip(tensors["z_query"].tolist(), kept, strict=True))
        self.queries: list[tuple[int, Tensor | None, Tensor]] = [
            (step, latents.get(place), m)
            for place, (step, m) in enumerate(zip(tensors["step"].tolist(), outputs, strict=True))
            if step < steps
        ]
        if case.file and not case.settings.correction:  # a step's last query is its correction
            followers = [step for step, *_ in self.queries[1:]] + [steps]
            self.queries = [query for query, after in zip(self.queries, followers, strict=True) if query[0] == after]
        self.steps = steps
        self.dropped = 0
        self.worst = 0.0

    def __call__(self, query: Query) -> Tensor:
        place = self.steps - 1 - query.step
        step, z, m = self.queries.pop(0)
        if step < place:  # the correction of a step without noise
            self.dropped += 1
            step, z, m = self.queries.pop(0)
        assert step == place
        if z is not None and len(z) == 1 and len(m) == 2:  # guidance 3
            m = m[:1] + 3 * (m[1:] - m[:1])
        elif len(m) > len(query.z):  # a target that nothing needs
            self.dropped += 1
            z, m = z if z is None else z[1:], m[1:]
        if z is not None:
            self.worst = max(self.worst, *(error(ours, then) for ours, then in zip(query.z, z, strict=True)))
            assert self.worst < TOLERANCE, f"step {query.step}"
        return m


def recorded_rolls(tensors: dict[str, Tensor], steps: int) -> Iterator[Tensor]:
    """Rolls [1, step, roll, channel, level] of the calls that had an effect: all but the last but one of each step."""
    calls = list(zip(tensors["rolls_step"].tolist(), tensors["rolls"].long(), strict=True))
    for step in range(steps):
        of_step = [rolls for at, rolls in calls if at == step]
        yield from (rolls[None] for place, rolls in enumerate(of_step) if place != len(of_step) - 2)


def play(name: str) -> tuple[Case, dict[str, Tensor], StepTable, Trajectory, Recording]:
    """Invert a recorded case with our core."""
    case = CASES[name]
    tensors, live = load(case.file or name)
    live.set_timesteps(len(set(tensors["step"].tolist())))
    whole = measure(live)
    table = whole.tail(case.steps or len(whole))
    network = Recording(tensors, case, len(table))
    noises = tensors["noises"][-len(table) :] if "noises" in tensors else None
    left = recorded_rolls(tensors, len(table)) if case.settings.edit_losses else iter(())
    rolls: Callable[[tuple[int, ...]], Tensor] = lambda shape: next(left)  # noqa: E731
    queries = invert(
        table,
        tensors["z_0"],
        settings=case.settings,
        noises=noises,
        forward_noise=tensors.get("forward_noise"),
        rolls=rolls,
    )
    result = drive(queries, network)
    assert next(left, None) is None, "calls of the edit losses that we never made"
    return case, tensors, table, result, network


@pytest.mark.parametrize("name", CASES)
def test_every_pass_and_the_result_are_the_published_ones(name: str) -> None:
    case, tensors, _, result, network = play(name)
    assert network.queries == []
    assert network.dropped == case.dropped
    guided = 2 if name.endswith("cfg3") else 1  # the published count takes guided passes twice
    assert guided * result.passes == case.passes - case.dropped
    z_T = tensors["z_T"]  # noqa: N806
    if case.steps:
        following = tensors["step"].tolist().index(case.steps)
        z_T = torch.split(tensors["z"], tensors["z_rows"].tolist())[following][-1:]  # noqa: N806
    assert error(result.z_T, z_T) < TOLERANCE


@pytest.mark.parametrize(
    ("name", "bound_used"),
    [
        ("sdxl_euler4_K9_corr", [False, False, False]),
        ("sdxl_euler4_K9_all", [True, True, False]),
        ("sdxl_euler4_K9_all_max075", [True, False]),
    ],
)
def test_noise_correction_goes_where_the_published_one_aims(name: str, bound_used: list[bool]) -> None:
    """The published correction walks ten steps of 1.8 towards the residual noise, past it and back: where it would
    arrive sooner, it ends 1.8 or less beyond, or where it began.  Ours stops there."""
    _, tensors, table, result, _ = play(name)
    assert result.noises is not None
    used = []
    for step, noise in enumerate(result.noises):
        drawn, then = (tensors[key][-len(table) :][step] for key in ("noises", "noises_corrected"))
        travel = result.steps[step].noise_travel
        if table.n[step] == 0:
            assert travel is None
            assert noise.equal(drawn)
            assert then.equal(drawn)
            continue
        walk = drawn
        for _ in range(10):
            walk = walk + 1.8 * (noise - walk) / (noise - walk).norm()
        assert error(walk, then) < TOLERANCE
        assert travel is not None
        used.append(math.isclose(travel.item(), CORRECTION, rel_tol=TOLERANCE))
    assert used == bound_used


@pytest.mark.parametrize(
    ("key", "recorded_in", "steps"),
    [
        ("ddim10", "sdxl_ddim10_K0", 10),
        ("euler1", "sdxl_euler4_K0", 1),
        ("euler4", "sdxl_euler4_K0", 4),
        ("euler8", "sdxl_euler4_K0", 8),
        ("lcm4", "sdxl_lcm4_K4", 4),
        ("lcm8", "sdxl_lcm4_K4", 8),
    ],
)
def test_single_steps_are_the_published_ones(key: str, recorded_in: str, steps: int) -> None:
    tensors, _ = load("steps")
    _, live = load(recorded_in)
    live.set_timesteps(steps)
    table = measure(live)
    assert table.timesteps.equal(tensors[f"{key}.timesteps"])
    for step in range(steps):
        noise = tensors["noises"][step] if table.n[step] else None
        for way in ("forward", "backward"):
            ours = getattr(table, way)(step, tensors["z"], tensors["m"], noise)
            assert error(ours, tensors[f"{key}.{way}"][step]) < TOLERANCE
