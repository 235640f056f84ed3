"""Many inputs of every kind: the right answer, or one of the documented exceptions with a message of ours.

The counts are printed (`python -m pytest tests/test_fuzz.py -s`); `tests/helpers/hostile.py` and
`hostile_calls.py` draw the inputs, and `python -m tests.helpers.reliability` makes docs/reliability.md of them.
"""

from __future__ import annotations

import pytest

from tests.helpers.hostile_calls import KINDS


def passes(kind: str, count: int) -> None:
    tally = KINDS[kind](count)
    print(f"\n{tally}")
    assert not tally.bad, "\n".join(tally.bad[:20])
    assert tally.tried >= count / 2
    assert min(tally.refused, tally.right) > 0, "this draws nothing that is refused, or nothing that is right"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "bits"])
def test_a_few_hundred(kind: str) -> None:
    passes(kind, 100 if kind in ("command lines", "json") else 300)  # these two are slow


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "bits"])
def test_thousands(kind: str) -> None:
    passes(kind, 5000)


@pytest.mark.parametrize("count", [300, pytest.param(5000, marks=pytest.mark.slow)])
def test_archives_with_damaged_bytes(count: int) -> None:
    tally = KINDS["bits"](count)
    print(f"\n{tally}")
    assert not tally.bad, "\n".join(tally.bad[:20])
    assert tally.refused > 0.9 * tally.tried
