"""Methods at equal passes, and the reconstruction of captioned pictures by them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from renoise.evaluation import budgets
from renoise.evaluation.budgets import KEYS, measure, show
from renoise.evaluation.methods import compared, default_budgets, options
from renoise.evaluation.reconstruction import Captioned, measured, passes_of
from renoise.evaluation.records import Records
from renoise.presets import PRESETS
from tests.helpers import tiny
from tests.helpers.pie_sets import image

TURBO = PRESETS["paper-sdxl-turbo"].settings


def test_methods_take_the_passes_of_their_budget() -> None:
    pipe = tiny.sd(tiny.euler_ancestral())
    methods = {m.name: m for m in compared(TURBO, {"few-step": PRESETS["few-step"].settings}, (4, 8, 12))}
    passes = {name: passes_of(pipe, method) for name, method in methods.items()}
    assert passes == {
        "plain reversal": 4,
        "plain reversal, 8 inversion steps": 8,
        "plain reversal, 12 inversion steps": 12,
        "ReNoise K=1": 8,
        "ReNoise K=2": 12,
        "+ averaging": 40,
        "+ edit losses": 44,
        "+ noise correction": 47,
        "averaging + correction": 43,
        "few-step": 16,
        "few-step, 4 passes": 4,
        "few-step, 8 passes": 8,
        "few-step, 12 passes": 12,
    }
    assert {m.settings.num_inference_steps for m in methods.values()} == {4}


def test_many_steps_have_few_budgets() -> None:
    many = PRESETS["paper-sd"].settings
    names = [m.name for m in compared(many, {"many-step": PRESETS["many-step"].settings}, default_budgets(50))]
    assert names == [
        *("plain reversal", "plain reversal, 100 inversion steps", "ReNoise K=1", "+ averaging", "+ edit losses"),
        *("many-step", "many-step, 50 passes", "many-step, 100 passes"),
    ]


def test_published_presets_keep_their_own_passes() -> None:
    names = [m.name for m in compared(TURBO, {"paper": TURBO}, (4, 8))]
    assert [name for name in names if name.startswith("paper")] == ["paper"]


def test_flow_matching_has_no_options_to_add() -> None:
    flow = PRESETS["paper-flow-few-step"].settings
    assert not [m for m in compared(flow, {}, (4, 8)) if m.family == "ReNoise, its options"]
    assert next(options(TURBO)).name == "+ averaging"


@pytest.mark.parametrize("passes", [3, 10])
def test_a_budget_that_plain_reversal_cannot_take_is_refused(passes: int) -> None:
    with pytest.raises(ValueError, match=f"passes={passes} is no multiple of the 4 steps.* 4, 8, 12"):
        list(compared(TURBO, {}, (4, passes)))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Captioned]:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(3):
        image(number, 32).save(folder / f"{number}.png")
    (folder / "1.png").write_bytes(b"no picture")
    return [Captioned(number, f"{number}.png", folder / f"{number}.png", "a cat") for number in range(3)]


def test_pictures_are_measured_once_and_a_damaged_one_is_a_failure(
    pictures: list[Captioned], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = tiny.sd(tiny.euler_ancestral())
    methods = [m for m in compared(TURBO, {"fast": PRESETS["fast"].settings}, (4, 8)) if m.family != "ReNoise"][:2]
    methods += list(compared(replace(TURBO), {"fast": PRESETS["fast"].settings}, (4,)))[-2:-1]
    records = Records(tmp_path / "folder.csv", KEYS)
    calls: list[Any] = []

    def counted(pipe: Any, part: Any, *arguments: Any, **keywords: Any) -> Any:
        calls.append(part)
        return measured(pipe, part, *arguments, **keywords)

    monkeypatch.setattr(budgets, "measured", counted)

    def interrupt(done: int) -> None:
        if done and len(records.rows()) >= 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(pipe, pictures, methods, records, batch=2, told=interrupt)
    assert [len(part) for part in calls] == [2, 1, 2]
    rows = measure(pipe, pictures, methods, records, batch=2)
    assert [len(part) for part in calls] == [2, 1, 2, 1, 2, 1]
    assert [(row["method"], row["number"]) for row in rows] == [(m.name, str(i)) for m in methods for i in range(3)]
    assert [row["finite"] for row in rows] == ["1.0", "0.0", "1.0"] * 3
    assert {bool(row["error"]) for row in rows if row["number"] == "1"} == {True}
    assert {row["side_information"] for row in rows if row["family"] == "fast" and row["finite"] == "1.0"} == {"1"}
    said = show(rows, tmp_path, "renoise bench folder --data x")
    assert said.startswith("3 of 9 results are not finite")
    page = (tmp_path / "folder.md").read_text()
    assert page.startswith("<!-- renoise bench folder --data x -->")
    assert "### Latents only" in page
    assert "### With side information in the noise" in page
    assert "* 1.png: " in page
    assert (tmp_path / "folder.png").stat().st_size > 1000
