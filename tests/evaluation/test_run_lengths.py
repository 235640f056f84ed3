"""Masks in run lengths: the published convention, row by row and with a border."""

from __future__ import annotations

import numpy as np
import pytest

from renoise.evaluation.run_lengths import SIDE, decode, encode, numbers


def test_runs_count_pixels_row_by_row() -> None:
    mask = decode([1, 2, 5, 1], side=4, border=False)
    assert mask.tolist() == [[False, True, True, False], [False, True, False, False], [False] * 4, [False] * 4]


def test_a_run_may_go_over_the_end_of_a_row_and_ends_with_the_picture() -> None:
    assert decode([3, 2, 14, 99], side=4, border=False).ravel().nonzero()[0].tolist() == [3, 4, 14, 15]


def test_the_border_is_marked_on_all_four_sides() -> None:
    mask = decode([])
    assert mask.shape == (SIDE, SIDE)
    assert mask.sum() == 4 * SIDE - 4
    assert not mask[1:-1, 1:-1].any()


@pytest.mark.parametrize("fill", [0.0, 0.01, 0.5, 1.0])
def test_encoding_is_the_reverse_of_decoding(fill: float) -> None:
    mask = np.random.default_rng(0).random((SIDE, SIDE)) < fill
    runs = encode(mask)
    assert np.array_equal(decode(runs, border=False), mask)
    assert all(length > 0 for length in runs[1::2])


@pytest.mark.parametrize("runs", [[0, 10, 20, 5], ["0", "10", "20", "5"], "[0, 10, 20, 5]", "0 10 20 5", "0,10,20,5"])
def test_masks_come_as_numbers_or_texts(runs: object) -> None:
    assert numbers(runs) == [0, 10, 20, 5]


@pytest.mark.parametrize("runs", [None, 3, "0 -10", "a b", ["x", 1], [1.5, 2]])
def test_what_is_no_mask_is_refused(runs: object) -> None:
    with pytest.raises(ValueError, match="a mask is a list of numbers"):
        numbers(runs)


@pytest.mark.parametrize("runs", [[1], [-1, 2], [1, -2], [SIDE * SIDE, 1]])
def test_runs_that_are_not_in_the_picture_are_refused(runs: list[int]) -> None:
    with pytest.raises(ValueError, match="mask"):
        decode(runs)
