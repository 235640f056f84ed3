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

import inspect
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from renoise.core.loop import Query, Trajectory, drive, invert
from renoise.core.table import StepTable
from renoise.presets import PRESETS, EditLosses, Region, Settings, window

GOLDEN = Path(__file__).parent / "golden"
TOLERANCE = 1e-6  # coefficients were float32 in the recorded run
CORRECTION = 18 / 32  # ten steps of 1.8 in L2; the recorded latents have 1024 = 32^2 numbers

LOSSES = EditLosses(lambda_pair=20, lambda_kl=0.065)
TURBO = PRESETS["reference-sdxl-turbo"]


def iterations(k: int) -> Settings:
    """Plain renoising with the published cap of 5 iterations below t = 250."""
    return Settings((Region(0.25, min(k, 5)), Region(iterations=k)))


@dataclass(frozen=True)
class Case:
    """One recorded run.

    Attributes:
        settings: ours for it.
        passes: what the published implementation spent.
        dropped: how many of them it computed for nothing.
        file: where it is recorded, if not under its own name.
        steps: how many steps of the sampler were inverted, if not all.
    """

    settings: Settings
    passes: int
    dropped: int = 0
    file: str | None = None
    steps: int | None = None


CASES = {
    "sdxl_euler4_K0": Case(iterations(0), 4),
    "sdxl_euler4_K1": Case(iterations(1), 8),
    "sdxl_euler4_K4": Case(iterations(4), 20),
    "sdxl_euler4_K9": Case(iterations(9), 36, file="sdxl_euler4_K9_corr"),  # recorded alike but for its corrections
    "sdxl_euler4_K9_avg": Case(replace(TURBO, edit_losses=None, correction=0.0), 36),
    "sdxl_euler4_K9_corr": Case(replace(iterations(9), correction=CORRECTION), 40, dropped=1),
    "sdxl_euler4_K9_all": Case(replace(TURBO, correction=CORRECTION), 44, dropped=1),
    "sdxl_euler4_K9_all_max075": Case(  # recorded alike for the steps it takes
        replace(TURBO, correction=CORRECTION), 44 - 12, dropped=1, file="sdxl_euler4_K9_all", steps=3
    ),
    "sdxl_ddim10_K0": Case(iterations(0), 10),
    "sdxl_ddim10_K1_avg_reg": Case(
        Settings((Region(0.25, 1, window(1, 2, 1)), Region(iterations=1)), edit_losses=LOSSES), 30, dropped=7
    ),
    "sdxl_ddim10_K1_cfg3": Case(iterations(1), 40),
    "sdxl_ddim50_K1": Case(iterations(1), 100),
    "sdxl_lcm4_K4": Case(Settings((Region(iterations=4),)), 20),  # no step lies below t = 250, so no cap
    "sdxl_lcm4_K9_avg_reg": Case(Settings((Region(iterations=9, weights=window(9, 10, 9)),), edit_losses=LOSSES), 44),
}


def load(name: str) -> tuple[dict[str, Tensor], Any]:
    """Tensors, the floating ones in float64, and the scheduler before `set_timesteps`, if one is recorded."""
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        about = file.metadata()
    tensors = {key: value.double() if value.is_floating_point() else value for key, value in tensors.items()}
    return tensors, about and scheduler(about["scheduler"], json.loads(about["config"]))


def scheduler(name: str, config: dict[str, Any]) -> Any:
    kind = getattr(diffusers, name)
    known = inspect.signature(kind.__init__).parameters
    return kind(**{key: value for key, value in config.items() if key in known})


def error(ours: Tensor, recorded: Tensor) -> float:
    """Relative error in L2."""
    return float((ours - recorded).norm() / recorded.norm())


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
    whole = StepTable.measure(live)
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
    table = StepTable.measure(live)
    assert table.timesteps.equal(tensors[f"{key}.timesteps"])
    for step in range(steps):
        noise = tensors["noises"][step] if table.n[step] else None
        for way in ("forward", "backward"):
            ours = getattr(table, way)(step, tensors["z"], tensors["m"], noise)
            assert error(ours, tensors[f"{key}.{way}"][step]) < TOLERANCE
