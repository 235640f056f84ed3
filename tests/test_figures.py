"""Figures: the right pictures in the right places, words that fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from renoise import figures as report
from renoise.figures import Panel, comparison, grid, sheet

WHITE = (255, 255, 255)


def array(image: Image.Image) -> npt.NDArray[np.uint8]:
    assert image.mode == "RGB"
    return np.asarray(image)


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def found(figure: Image.Image, picture: Image.Image) -> tuple[int, int] | None:
    """Where a picture lies in a figure, pixel by pixel, or None."""
    whole, part = array(figure).astype(int), array(picture).astype(int)
    height, width = part.shape[:2]
    for top, left in np.argwhere((whole == part[0, 0]).all(axis=-1)):
        if np.array_equal(whole[top : top + height, left : left + width], part):
            return int(left), int(top)
    return None


def ink(figure: Image.Image, box: tuple[int, int, int, int]) -> int:
    """Number of dark pixels in a box."""
    return int((array(figure.crop(box)).max(axis=-1) < 140).sum())


def test_small_pictures_are_enlarged_pixel_by_pixel_and_stand_in_a_row() -> None:
    pictures = [noise(64, 64, seed) for seed in range(3)]
    figure = comparison([Panel(picture, "title", "31.2 dB, 4 passes") for picture in pictures])
    places = [found(figure, picture.resize((256, 256), Image.Resampling.NEAREST)) for picture in pictures]
    lefts, tops = zip(*(place for place in places if place is not None), strict=True)
    assert len(lefts) == 3
    assert len(set(tops)) == 1
    assert lefts[1] - lefts[0] == lefts[2] - lefts[1] > 256
    assert lefts[0] == figure.width - (lefts[2] + 256)  # margins alike
    above, below = (0, 0, figure.width, tops[0] - 2), (0, tops[0] + 258, figure.width, figure.height)
    assert ink(figure, above) > 100
    assert ink(figure, below) > 100


def test_pictures_of_any_size_come_to_the_same_display_height() -> None:
    frame = (217, 217, 217)
    for side in (1, 64, 100, 256, 300, 1024):
        figure = comparison([Panel(Image.new("RGB", (side, side), "teal"), "")], side=256)
        teal = (array(figure) == (0, 128, 128)).all(axis=-1)
        assert teal.any(axis=0).sum() == teal.any(axis=1).sum() == 256
        rows, columns = np.nonzero(teal)
        assert tuple(array(figure)[rows.min() - 1, columns.min() - 1]) == frame


def test_large_pictures_are_averaged() -> None:
    checks = Image.fromarray((np.indices((512, 512)).sum(axis=0) % 2 * 255).astype(np.uint8))
    figure = comparison([Panel(checks, "")], side=128)
    middle = array(figure)[figure.height // 2 - 30 : figure.height // 2 + 30, 60:110]
    assert np.abs(middle.astype(int) - 128).max() <= 2


def test_oblong_pictures_keep_their_shape_in_the_middle_of_the_square() -> None:
    figure = comparison([Panel(Image.new("RGB", (64, 32), "teal"), "")], side=128)
    rows, columns = np.nonzero((array(figure) == (0, 128, 128)).all(axis=-1))
    assert [int(np.ptp(along)) + 1 for along in (columns, rows)] == [128, 64]
    assert (rows.min() + rows.max() + 1) / 2 == figure.height / 2


def test_transparent_pictures_stand_on_white() -> None:
    figure = comparison([Panel(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), "")], side=64)
    assert array(figure).min() > 200


def test_words_stay_inside_their_column() -> None:
    long = "supercalifragilisticexpialidocious and much more than two lines can hold " * 3
    white = Image.new("RGB", (64, 64), "white")
    figure = comparison([Panel(white, "", ""), Panel(white, long, long), Panel(white, "", "")], side=128)
    left, right = 20 + 128 + 16, 20 + 128 + 16 + 128
    assert ink(figure, (left, 0, right, figure.height)) > 200
    assert ink(figure, (0, 0, left, figure.height)) == ink(figure, (right, 0, figure.width, figure.height)) == 0


def test_short_titles_stand_on_the_picture_beside_long_ones() -> None:
    white = Image.new("RGB", (64, 64), "white")
    figure = comparison([Panel(white, "short"), Panel(white, "a title that needs\na second line")], side=128)
    top = figure.height - 20 - 128
    for left in (20, 20 + 128 + 16):
        assert ink(figure, (left, top - 8 - 15, left + 128, top - 2)) > 30
    assert ink(figure, (20, 0, 20 + 128, top - 8 - 15)) == 0


def test_words_that_fit_a_line_less_do_not_take_it() -> None:
    white = Image.new("RGB", (64, 64), "white")
    heights = [comparison([Panel(white, "", text)]).height for text in ("", "one", "one\ntwo", "one\ntwo\nthree")]
    assert heights[0] < heights[1] < heights[2] == heights[3]


def test_lines_are_of_about_one_length() -> None:
    font = report._font(16)
    words = "a small red tiger in the noto style"
    lines = report._lines(words, font, round(font.getlength(words) * 0.9), 2)
    assert " ".join(lines) == words
    assert len(lines) == 2
    assert abs(font.getlength(lines[0]) - font.getlength(lines[1])) < font.getlength(words) / 4


def test_characters_that_the_face_lacks_are_replaced() -> None:
    font = report._font(16)
    text = "64 × 64 → café, “tiger” … − 漢 \t😀"
    (line,) = report._lines(text, font, 1000, 2)
    assert line == "64 x 64 -> cafe, “tiger” … - ? ?"
    missing = bytes(font.getmask("\uffff"))
    assert all(bytes(font.getmask(character)) != missing for character in line)


def test_sheet_reads_like_text() -> None:
    pictures = [noise(64, 64, seed) for seed in range(5)]
    figure = sheet(pictures, [f"caption {index}" for index in range(5)], 3, side=128)
    places = [found(figure, picture.resize((128, 128), Image.Resampling.NEAREST)) for picture in pictures]
    tops = [place[1] for place in places if place]
    lefts = [place[0] for place in places if place]
    assert tops[0] == tops[1] == tops[2] < tops[3] - 128
    assert tops[3] == tops[4]
    assert lefts[0] == lefts[3] < lefts[1] == lefts[4] < lefts[2]
    assert sheet(pictures, None, 3).height < figure.height
    assert sheet(pictures[:2], columns=9).width < figure.width  # no empty columns


def test_a_grid_has_every_picture_in_its_row_and_column() -> None:
    pictures = [[noise(64, 64, 3 * row + column) for column in range(3)] for row in range(2)]
    figure = grid(pictures, ["one", "two"], ["a", "b", "c"], side=128)
    places = [[found(figure, p.resize((128, 128), Image.Resampling.NEAREST)) for p in row] for row in pictures]
    lefts = [[place[0] for place in row if place] for row in places]
    tops = [[place[1] for place in row if place] for row in places]
    assert lefts[0] == lefts[1] == sorted(lefts[0])
    assert lefts[0][1] - lefts[0][0] == lefts[0][2] - lefts[0][1] > 128
    assert [len(set(row)) for row in tops] == [1, 1]
    assert tops[1][0] - tops[0][0] == lefts[0][1] - lefts[0][0]
    assert figure.width - (lefts[0][2] + 128) == figure.height - (tops[1][0] + 128)  # margins alike
    first, below = (tops[0][0], tops[0][0] + 128), (tops[1][0], tops[1][0] + 128)
    for top, bottom in (first, below):
        assert ink(figure, (0, top, lefts[0][0] - 2, bottom)) > 20  # a title at the left of its row
    assert ink(figure, (0, first[1] + 2, lefts[0][0] - 2, below[0] - 2)) == 0
    for left in lefts[0]:
        assert ink(figure, (left, 0, left + 128, first[0] - 2)) > 5  # and one above its column


def test_a_grid_without_titles_is_pictures_alone() -> None:
    rows = [[noise(64, 64)] * 2]
    plain, above, beside = grid(rows), grid(rows, None, ["a", "b"]), grid(rows, ["a"])
    assert (plain.width, plain.height) == (above.width, beside.height)
    assert above.height > plain.height
    assert beside.width > plain.width
    assert found(plain, noise(64, 64).resize((128, 128), Image.Resampling.NEAREST)) == (20, 20)


def test_words_of_a_grid_stay_beside_their_row() -> None:
    long = "supercalifragilisticexpialidocious and much more than four lines can hold " * 4
    white = Image.new("RGB", (64, 64), "white")
    figure = grid([[white], [white], [white]], ["", long, ""], side=128)
    top = 20 + 128 + 10  # the gap is a twelfth of the side
    assert ink(figure, (0, top, 20 + 128, top + 128)) > 200
    assert ink(figure, (0, 0, figure.width, top)) == ink(figure, (0, top + 128, figure.width, figure.height)) == 0
    assert ink(figure, (20 + 128 + 2, 0, figure.width, figure.height)) == 0


def test_figures_say_what_they_need() -> None:
    white = Image.new("RGB", (8, 8), "white")
    with pytest.raises(ValueError, match="at least one Panel"):
        comparison([])
    with pytest.raises(ValueError, match="side 10"):
        comparison([Panel(white, "")], side=10)
    with pytest.raises(ValueError, match="no pixels"):
        comparison([Panel(Image.new("RGB", (0, 0)), "")])
    with pytest.raises(ValueError, match="at least one image"):
        sheet([])
    with pytest.raises(ValueError, match="1 captions for 2 images"):
        sheet([white, white], ["one"])
    with pytest.raises(ValueError, match="columns 0"):
        sheet([white], columns=0)
    wrong: list[tuple[list[list[Image.Image]], dict[str, Any], str]] = [
        ([], {}, "a grid needs at least one image"),
        ([[], []], {}, "a grid needs at least one image"),
        ([[white], [white, white]], {}, r"rows of a grid have \[1, 2\] images"),
        ([[white]], {"row_titles": ["a", "b"]}, "2 row titles for 1 rows"),
        ([[white]], {"column_titles": []}, "0 column titles for 1 columns"),
        ([[white]], {"side": 10}, "side 10"),
        ([[Image.new("RGB", (0, 0))]], {}, "no pixels"),
    ]
    for rows, options, message in wrong:
        with pytest.raises(ValueError, match=message):
            grid(rows, **options)


def test_names_are_sorted() -> None:
    assert report.__all__ == sorted(report.__all__)
    assert all(hasattr(report, name) for name in report.__all__)
