"""How passes are dealt to steps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from renoise.core.budget import budget
from renoise.core.settings import Region, Settings
from renoise.core.table import StepTable
from renoise.presets import PRESETS


def table(*noisy: int) -> StepTable:
    """Four steps of levels 1, .75, .5, .25; those listed draw noise."""
    one = torch.ones(4, dtype=torch.float64)
    n = torch.tensor([float(step in noisy) for step in range(4)], dtype=torch.float64)
    return StepTable(torch.tensor([1000.0, 750, 500, 250], dtype=torch.float64), one, one, n, one, one, one, 1000)


STOCHASTIC, DETERMINISTIC = table(0, 1, 2), table()


def test_without_a_total_regions_count_and_the_step_nearest_the_image_may_have_its_own() -> None:
    settings = Settings((Region(0.6, 3), Region(iterations=1)))
    assert budget(STOCHASTIC, settings) == (2, 2, 4, 4)
    assert budget(STOCHASTIC, replace(settings, nearest=0)) == (2, 2, 4, 1)
    assert budget(DETERMINISTIC, replace(settings, nearest=7)) == (2, 2, 4, 8)


@pytest.mark.parametrize(
    ("passes", "dealt"),
    [(4, (1, 1, 1, 1)), (5, (1, 1, 1, 2)), (7, (1, 1, 2, 3)), (8, (1, 2, 2, 3)), (20, (4, 5, 5, 6))],
)
@pytest.mark.parametrize("absorption", [0.0, 0.5])
def test_a_total_goes_round_from_the_image_on_and_once_more_to_the_nearest_step(
    passes: int, dealt: tuple[int, ...], absorption: float
) -> None:
    settings = Settings((Region(iterations=9),), nearest=3, passes=passes, absorption=absorption)
    assert budget(DETERMINISTIC, settings) == dealt
    assert budget(STOCHASTIC, replace(settings, absorption=0.0)) == dealt


@pytest.mark.parametrize(
    ("passes", "dealt"),
    [(4, (1, 1, 1, 1)), (6, (1, 1, 1, 3)), (8, (1, 1, 1, 5)), (9, (1, 1, 1, 6)), (12, (2, 2, 2, 6))],
)
def test_steps_that_cannot_absorb_come_first(passes: int, dealt: tuple[int, ...]) -> None:
    assert budget(STOCHASTIC, Settings((Region(),), passes=passes, absorption=0.1)) == dealt


@pytest.mark.parametrize(
    ("name", "rows", "passes"),
    [
        ("few-step", STOCHASTIC, 16),
        ("fast", STOCHASTIC, 8),
        ("fast-latent", STOCHASTIC, 20),
        ("many-step", DETERMINISTIC, 5),
    ],
)
def test_the_presets_are_the_rule(name: str, rows: StepTable, passes: int) -> None:
    assert budget(rows, PRESETS[name].settings) == budget(rows, replace(PRESETS[name].settings, passes=passes))


def test_sharp_solves_the_step_nearest_the_image_further() -> None:
    assert budget(STOCHASTIC, PRESETS["sharp"].settings) == (3, 3, 3, 11)


@pytest.mark.parametrize("passes", range(4, 40))
@pytest.mark.parametrize("rows", [STOCHASTIC, DETERMINISTIC, table(0, 1, 2, 3)], ids=["some", "none", "all"])
def test_a_total_is_spent_to_the_last_pass(passes: int, rows: StepTable) -> None:
    assert sum(budget(rows, Settings((Region(),), passes=passes, absorption=0.1))) == passes


def test_less_than_one_pass_per_step_is_refused() -> None:
    with pytest.raises(ValueError, match="passes=3 for 4 steps, which take one each: pass 4 or more"):
        budget(STOCHASTIC, Settings((Region(),), passes=3))
