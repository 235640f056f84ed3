"""What users hand over: numbers of every library are taken, everything else is refused with a message of ours."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from renoise.core import checks
from renoise.core.checks import LIMITS, pixel_size, scalar, shown
from renoise.core.settings import EditLosses, Region, Settings, window

REGIONS = (Region(iterations=1),)
WEIGHTED = (Region(iterations=1, weights=(0.5, 0.5)),)


class Unshown:
    """A value whose repr fails."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


STRANGE: dict[str, Any] = {
    "none": None,
    "text": "many",
    "bytes": b"4",
    "list": [4],
    "dict": {"a": 4},
    "true": True,
    "nan": math.nan,
    "minus infinity": -math.inf,
    "huge": 10**400,
    "complex": 1j,
    "object": object(),
    "type": int,
    "function": len,
    "no repr": Unshown(),
    "array": np.array([1, 2]),
    "array of one": np.array([3]),
    "objects": np.array([None, "x"]),
    "tensor": torch.tensor([1.0, 2.0]),
    "meta": torch.tensor(1.0, device="meta"),
    "true of numpy": np.True_,
    "true of torch": torch.tensor(True),
    "date": np.datetime64("2026-01-01"),
}
ACCEPTED = {  # of these, what each argument takes
    "weights": {"none", "list", "array of one"},
    "nearest": {"none"},
    "passes": {"none"},
    "edit_losses": {"none"},
    "method": {"none", "type", "function"},
    "solver": {"type", "function"},
}


@pytest.mark.parametrize("kind", STRANGE)
@pytest.mark.parametrize(
    ("make", "name"),
    [
        *((lambda **given: Region(**given), field.name) for field in fields(Region)),
        *(
            (lambda **given: EditLosses(**{"lambda_pair": 1, "lambda_kl": 0, **given}), f.name)
            for f in fields(EditLosses)
        ),
        *((lambda **given: Settings(**{"regions": REGIONS, **given}), field.name) for field in fields(Settings)),
    ],
)
def test_wrong_values_are_refused_by_name_with_a_remedy(make: Callable[..., Any], name: str, kind: str) -> None:
    if kind in ACCEPTED.get(name, set()):
        make(**{name: STRANGE[kind]})
        return
    with pytest.raises(ValueError, match=rf"(?s)^{name}=.*(pass|no step)|^\d+ weights for") as caught:
        make(**{name: STRANGE[kind]})
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("one", [1, np.int64(1), np.uint8(1), torch.tensor(1), np.array(1), np.float64(1)])
def test_numbers_of_every_library_are_taken_and_become_those_of_python(one: Any) -> None:
    whole = one if not isinstance(one, float) else 1
    settings = Settings(
        [Region(one, whole, [one, one]), Region()],  # type: ignore[arg-type]
        EditLosses(one, one, whole, whole),
        num_inference_steps=whole,
        guidance_scale=one,
        inversion_guidance_scale=one,
        correction=one,
        absorption=0 * one,
    )
    assert settings == Settings(
        (Region(1, 1, (1, 1)), Region()), EditLosses(1, 1, 1, 1), num_inference_steps=1, correction=1
    )
    told: list[Any] = [
        *vars(settings).values(),
        *vars(settings.regions[0]).values(),
        *vars(settings.edit_losses).values(),
    ]
    assert {type(value) for value in told} <= {int, float, str, tuple, type(None), Region, EditLosses}
    assert hash(settings) == hash(settings)


def test_scalars() -> None:
    assert scalar(Fraction(1, 2)) == 0.5
    assert scalar(np.float16(0.5)) == 0.5
    assert type(scalar(np.float64(2))) is float
    assert scalar("x") == "x"
    assert shown("x" * 1000).endswith("...")
    assert shown(Unshown()) == "<Unshown>"


@pytest.mark.parametrize(
    ("make", "limit"),
    [
        (lambda over: Region(iterations=over), "iterations"),
        (lambda over: window(1, 2, over), "iterations"),
        (lambda over: EditLosses(1, 0, steps=over), "iterations"),
        (lambda over: EditLosses(1, 0, rolls=over), "iterations"),
        (lambda over: Settings(REGIONS, nearest=over), "iterations"),
        (lambda over: Settings(REGIONS, num_inference_steps=over), "steps"),
        (lambda over: Settings(REGIONS, passes=over), "passes"),
    ],
)
def test_limits_name_the_line_that_raises_them(
    make: Callable[[int], Any], limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = getattr(LIMITS, limit)
    make(most)
    remedy = rf"above the limit of {most}: pass less, or raise the limit: renoise.core.checks.LIMITS.{limit} = "
    with pytest.raises(ValueError, match=remedy) as caught:
        make(most + 1)
    line = str(caught.value).split("raise the limit: ")[1]
    assert line == f"renoise.core.checks.LIMITS.{limit} = {most + 1}"
    monkeypatch.setattr(checks.LIMITS, limit, most + 1)
    make(most + 1)


def test_iterations_without_end_are_refused() -> None:
    with pytest.raises(ValueError, match="iterations=inf: pass 0"):
        Region(iterations=math.inf)  # type: ignore[arg-type]


def test_sizes_are_bounded_by_their_area(monkeypatch: pytest.MonkeyPatch) -> None:
    for fits in (None, "64", 64, (64, 96), 4096, (1, 10**7), np.int64(64), torch.tensor([8, 8]), [8, 8]):
        pixel_size(fits)
    assert pixel_size(np.int64(64)) == 64
    assert pixel_size(np.array([64, 96])) == pixel_size([np.uint8(64), torch.tensor(96)]) == (64, 96)
    for over in (10**7, 10**400, (4096, 4104), np.int64(5000)):
        with pytest.raises(
            ValueError, match=r"the limit is 4096 x 4096: pass a smaller size, or raise the limit: reno"
        ):
            pixel_size(over)
    monkeypatch.setattr(LIMITS, "size_pixels", 10**14)
    assert pixel_size(10**7) == 10**7


def test_a_window_is_made_of_whole_numbers() -> None:
    for wrong in (1.5, "1", None, True):
        for position in range(3):
            given: list[Any] = [1, 2, 3]
            given[position] = wrong
            with pytest.raises(ValueError, match=r"count passes from 1|pass a whole number"):
                window(*given)
    assert window(np.int64(1), torch.tensor(1), 0) == (1.0,)  # type: ignore[arg-type]
