"""Figures: images side by side, each with a title and a caption, and contact sheets.  Uses PIL only.

Images are PIL images of any size.  Lengths are in pixels of the figure.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from renoise.images import open_image

__all__ = ["Panel", "comparison", "grid", "sheet"]

_INK, _GREY, _RULE, _PAPER = "#1a1a1a", "#5c5c5c", "#d9d9d9", "#ffffff"
_GAP, _MARGIN = 16, 20
# PIL's built-in font has glyphs for ASCII and a few other characters
_PLAIN = str.maketrans({"×": "x", "→": "->", "–": "-", "—": "-", "−": "-", "≥": ">=", "≤": "<=", "≈": "~"})
_DRAWN = set("°’“”·…")


@dataclass(frozen=True)
class Panel:
    """One image of a figure, with the title above and the caption below it.  `caption` may hold line breaks."""

    image: Image.Image
    title: str
    caption: str = ""


def comparison(columns: Sequence[Panel], *, side: int = 256) -> Image.Image:
    """One row of square panels, each with a title above and a caption below, of up to two lines.

    Args:
        columns: the panels, from left to right.
        side: side of a panel in pixels, 64 or more.  An image keeps its aspect ratio, and its longer side becomes this
            long.  Small images are enlarged without smoothing, so their pixels stay visible as squares.  Large images
            are reduced with the Lanczos filter.

    Raises:
        ImageError: an image has no pixels.  This is a ValueError.
        ValueError: there are no columns, or `side` is below 64.
    """
    if not columns:
        raise ValueError("a comparison needs at least one Panel")
    _check_side(side)
    font, small = _font(side / 14), _font(side / 17)
    titles = [_lines(panel.title, font, side, 2) for panel in columns]
    captions = [_lines(panel.caption, small, side, 2) for panel in columns]
    above = max(map(len, titles)) * _leading(font)
    below = max(map(len, captions)) * _leading(small)
    top = _MARGIN + above + (8 if above else 0)
    width = 2 * _MARGIN + len(columns) * side + (len(columns) - 1) * _GAP
    figure = Image.new("RGB", (width, top + side + (10 + below if below else 0) + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(figure)
    for index, panel in enumerate(columns):
        left = _MARGIN + index * (side + _GAP)
        # titles end directly above the image, captions begin directly below it
        _write(draw, titles[index], font, _INK, left + side / 2, top - 8 - len(titles[index]) * _leading(font))
        _place(figure, panel.image, left, top, side)
        _write(draw, captions[index], small, _GREY, left + side / 2, top + side + 10)
    return figure


def sheet(
    images: Sequence[Image.Image], captions: Sequence[str] | None = None, columns: int = 8, *, side: int = 128
) -> Image.Image:
    """Contact sheet: rows of square panels, from left to right and top to bottom, each with a caption below.

    Args:
        images: the images.
        captions: one per image, of up to two lines, or None.
        columns: panels per row, 1 or more.
        side: side of a panel in pixels, 64 or more.  Images are fitted into it as by `comparison`.

    Raises:
        ImageError: an image has no pixels.  This is a ValueError.
        ValueError: there are no images, not one caption per image, `columns` is below 1, or `side` below 64.
    """
    if not images:
        raise ValueError("a contact sheet needs at least one image")
    if captions is not None and len(captions) != len(images):
        raise ValueError(f"{len(captions)} captions for {len(images)} images: pass one each, or None")
    if columns < 1:
        raise ValueError(f"columns {columns} must be at least 1")
    _check_side(side)
    columns = min(columns, len(images))
    font = _font(max(12, side / 11))
    words = [_lines(caption, font, side, 2) for caption in captions or [""] * len(images)]
    below = max(map(len, words)) * _leading(font)
    gap, row_height = max(8, side // 12), side + (6 + below if below else 0)
    rows = -(-len(images) // columns)
    size = (2 * _MARGIN + columns * (side + gap) - gap, 2 * _MARGIN + rows * (row_height + gap) - gap)
    figure = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(figure)
    for index, image in enumerate(images):
        left = _MARGIN + index % columns * (side + gap)
        top = _MARGIN + index // columns * (row_height + gap)
        _place(figure, image, left, top, side)
        _write(draw, words[index], font, _GREY, left + side / 2, top + side + 6)
    return figure


def grid(
    rows: Sequence[Sequence[Image.Image]],
    row_titles: Sequence[str] | None = None,
    column_titles: Sequence[str] | None = None,
    *,
    side: int = 128,
) -> Image.Image:
    """Rows and columns of square panels with titles, such as prompts by points of a dial.

    Args:
        rows: the images, as many in every row.
        row_titles: at the left of the rows, up to four lines each, or None.
        column_titles: above the columns, up to two lines each, or None.
        side: side of a panel in pixels, 64 or more.  Images are fitted into it as by `comparison`.

    Raises:
        ImageError: an image has no pixels.  This is a ValueError.
        ValueError: there are no images, rows of unlike lengths, not one title per row or column, or `side` below 64.
    """
    counts = {len(row) for row in rows}
    if not rows or counts == {0}:
        raise ValueError("a grid needs at least one image")
    if len(counts) > 1:
        raise ValueError(f"the rows of a grid have {sorted(counts)} images: pass as many in every row")
    for what, titles, count in (("row", row_titles, len(rows)), ("column", column_titles, len(rows[0]))):
        if titles is not None and len(titles) != count:
            raise ValueError(f"{len(titles)} {what} titles for {count} {what}s: pass one each, or None")
    _check_side(side)
    font = _font(max(12, side / 11))
    above = [_lines(title, font, side, 2) for title in column_titles or []]
    beside = [_lines(title, font, side, 4) for title in row_titles or []]
    gap = max(8, side // 12)
    top = _MARGIN + max(map(len, above), default=0) * _leading(font) + (6 if above else 0)
    left = _MARGIN + (side + gap if beside else 0)
    columns = len(rows[0])
    size = (left + columns * (side + gap) - gap + _MARGIN, top + len(rows) * (side + gap) - gap + _MARGIN)
    figure = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(figure)
    for column, title in enumerate(above):
        height = top - 6 - len(title) * _leading(font)
        _write(draw, title, font, _INK, left + column * (side + gap) + side / 2, height)
    for number, row in enumerate(rows):
        height = top + number * (side + gap)
        if beside:
            middle = height + (side - len(beside[number]) * _leading(font)) / 2
            _write(draw, beside[number], font, _INK, _MARGIN + side / 2, middle)
        for column, image in enumerate(row):
            _place(figure, image, left + column * (side + gap), height, side)
    return figure


def _check_side(side: int) -> None:
    if side < 64:
        raise ValueError(f"side {side}: panels under 64 pixels leave no room for text, so pass 64 or more")


def _place(figure: Image.Image, image: Image.Image, left: int, top: int, side: int) -> None:
    """Paste an image, centred in its square, with a thin line around it, because many images are white at the edge."""
    image = open_image(image)
    longest = max(image.size)
    factor = -(-side // longest)
    if factor > 1:
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    width, height = (max(1, round(length * side / max(image.size))) for length in image.size)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    x, y = left + (side - width) // 2, top + (side - height) // 2
    figure.paste(image, (x, y))
    ImageDraw.Draw(figure).rectangle((x - 1, y - 1, x + width, y + height), outline=_RULE)


def _font(size: float) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=round(max(11, size)))
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError(
            "figures need a PIL built with FreeType, and this one is not: pip install --force-reinstall pillow"
        )
    return font


def _leading(font: ImageFont.FreeTypeFont) -> int:
    return round(font.size * 1.3)


def _lines(text: str, font: ImageFont.FreeTypeFont, width: int, most: int) -> list[str]:
    """Break a text at spaces into at most `most` lines of about the same length that fit `width`.

    Text that does not fit is cut off and ends in dots.
    """
    text = _drawable(text)
    lines = _wrapped(text, font, width)
    if len(lines) > most:
        lines = [*lines[: most - 1], " ".join(lines[most - 1 :])]
    else:
        for narrower in range(width, width // 2, -4):
            balanced = _wrapped(text, font, narrower)
            if len(balanced) > len(lines) or any(font.getlength(line) > narrower for line in balanced):
                break
            lines = balanced
    return [_shortened(line, font, width) for line in lines]


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    lines: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            joined = f"{line} {word}".strip()
            if line and font.getlength(joined) > width:
                lines.append(line)
                joined = word
            line = joined
        if line:
            lines.append(line)
    return lines


def _shortened(line: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(line + "…") > width:
        line = line[:-1]
    return line.rstrip() + "…"


def _drawable(text: str) -> str:
    """The text in characters that the font has: without accents, and with a question mark for other alphabets."""
    plain = []
    for character in text.translate(_PLAIN):
        if character in _DRAWN or character == "\n":
            plain.append(character)
        else:
            base = "".join(c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c))
            plain.append(base if base.isascii() else "?")
    return "".join(plain)


def _write(
    draw: ImageDraw.ImageDraw, lines: Sequence[str], font: ImageFont.FreeTypeFont, ink: str, middle: float, top: float
) -> None:
    for number, line in enumerate(lines):
        draw.text((middle, top + number * _leading(font)), line, font=font, fill=ink, anchor="ma")
