"""Masks: what is read as one, where it lies, exact widths, and what is refused before a network runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import renoise
from renoise import masks
from renoise.core.settings import Region, Settings
from renoise.images import ImageError
from renoise.masks import MaskWords
from tests.helpers import tiny
from tests.helpers.hostile import NetworkRanError
from tests.helpers.hostile_calls import untouchable

WHOLE = ((0, 0, 32, 24),)
SIZE = (24, 32)


def square(height: int = 24, width: int = 32) -> np.ndarray[Any, Any]:
    """White in the upper left quarter, as booleans."""
    mask = np.zeros((height, width), dtype=bool)
    mask[: height // 2, : width // 2] = True
    return mask


def saved(folder: Path) -> Path:
    Image.fromarray(square()).save(folder / "mask.png")
    return folder / "mask.png"


READ: dict[str, Callable[[Path], Any]] = {
    "PIL L": lambda _: Image.fromarray(square()).convert("L"),
    "PIL 1": lambda _: Image.fromarray(square()).convert("1"),
    "PIL RGB": lambda _: Image.fromarray(square()).convert("RGB"),
    "bool": lambda _: square(),
    "0 and 1": lambda _: square().astype(np.int64),
    "float": lambda _: square().astype(np.float32),
    "uint8": lambda _: square().astype(np.uint8) * 255,
    "[H, W, 1]": lambda _: square()[..., None],
    "path": saved,
    "text": lambda folder: str(saved(folder)),
    "tensor": lambda _: torch.from_numpy(square()).float(),
    "bool tensor": lambda _: torch.from_numpy(square()),
    "half tensor": lambda _: torch.from_numpy(square()).bfloat16(),
    "larger": lambda _: Image.fromarray(square(72, 96)),
    "smaller": lambda _: square(12, 16),
}


@pytest.mark.parametrize("kind", READ)
def test_a_mask_is_white_where_the_picture_may_change(kind: str, tmp_path: Path) -> None:
    mask = masks.opened(READ[kind](tmp_path), WHOLE, SIZE)
    assert mask.dtype == torch.float32
    assert torch.equal(mask, torch.from_numpy(square()).float()[None, None])


def test_greys_are_shares() -> None:
    ramp = np.linspace(0, 1, 32, dtype=np.float32)[None].repeat(24, 0)
    mask = masks.opened(ramp, WHOLE, SIZE)
    torch.testing.assert_close(mask[0, 0], torch.from_numpy(ramp), rtol=0, atol=1 / 255)


def test_masks_lie_where_their_pictures_lie_in_the_padding() -> None:
    boxes = ((0, 8, 32, 16), (8, 0, 24, 24))
    placed = masks.opened([square(8, 32), square(24, 16)], boxes, SIZE)
    for mask, (left, top, right, bottom) in zip(placed[:, 0], boxes, strict=True):
        inside = torch.from_numpy(square(bottom - top, right - left)).float()
        assert torch.equal(mask[top:bottom, left:right], inside)
        assert mask.sum() == inside.sum()


@pytest.mark.parametrize("amounts", [(0, 0), (5, 0), (-3, 0), (0, 6), (2, 3)])
def test_a_mask_is_0_on_the_padding_however_it_grows_and_fades(amounts: tuple[int, int]) -> None:
    """The padding is no neighbour of the picture either: a white mask stays white when it is made smaller."""
    boxes = ((0, 8, 32, 16),)
    white = masks.opened(np.ones((8, 32)), boxes, SIZE)
    for words in (MaskWords(white, boxes, *amounts), MaskWords(None, boxes, *amounts)):
        pixels = words.pixels(torch.ones_like(white))
        assert pixels[..., 8:16, :].eq(1).all()
        assert pixels.sum() == 8 * 32


def box(*, around: int = 0) -> Tensor:
    mask = torch.zeros(1, 1, 40, 48)
    mask[..., 15 - around : 25 + around, 20 - around : 31 + around] = 1
    return mask


@pytest.mark.parametrize("amount", [-4, -1, 0, 1, 7])
def test_growing_and_shrinking_by_pixels_on_every_side(amount: int) -> None:
    assert torch.equal(masks.grown(box(), amount), box(around=amount))


@pytest.mark.parametrize("width", [0, 1, 5])
def test_a_feather_fades_in_a_straight_line_and_is_0_beyond_its_width(width: int) -> None:
    mask = masks.feathered(box(), width)
    assert mask[box() == 1].eq(1).all()
    assert mask[box(around=width) == 0].eq(0).all()
    assert mask[box(around=width) == 1].gt(0).all()
    edge = mask[0, 0, 20, 31 : 31 + width + 1]  # to the right of the mask
    torch.testing.assert_close(edge, 1 - torch.arange(1, width + 2) / (width + 1))


def test_on_latents_a_place_may_change_if_any_of_its_pixels_may() -> None:
    mask = torch.zeros(1, 1, 32, 48)
    mask[..., 9, 17], mask[..., 31, 47] = 0.25, 1
    expected = torch.zeros(1, 1, 4, 6)
    expected[..., 1, 2], expected[..., 3, 5] = 0.25, 1
    assert torch.equal(masks.on_latents(mask, (4, 6)), expected)


def test_blending_keeps_the_bits_of_the_source() -> None:
    source, edited = torch.rand(2, 1, 3, 40, 48, generator=torch.Generator().manual_seed(0)).unbind()
    mask = masks.feathered(box(), 2)
    mixed = masks.blended(source, edited, mask)
    beyond = (mask == 0).expand_as(source)
    assert torch.equal(mixed[beyond], source[beyond])
    inside = (mask == 1).expand_as(source)
    torch.testing.assert_close(mixed[inside], edited[inside])


def test_the_default_feather_goes_with_the_side() -> None:
    assert [masks.check_amounts(0, None, (side, 2 * side))[1] for side in (32, 64, 512)] == [1, 1, 8]


# ---------------------------------------------------------------- refused before a network runs

WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"mask": np.zeros((32, 32))}, ValueError, "the mask is black everywhere, so nothing may change: paint white"),
    ({"mask": np.zeros((32, 32), dtype=np.uint8)}, ValueError, "the mask is black everywhere"),
    ({"mask": np.ones((32, 16))}, ImageError, "the mask is 16 x 32 and the picture 32 x 32: pass a mask of the shape"),
    ({"mask": [np.ones((32, 32))] * 3}, ValueError, "3 masks for 2 pictures: pass one for all, or one each"),
    ({"mask": []}, ValueError, "0 masks for 2 pictures"),
    ({"mask": "nowhere.png"}, ImageError, "mask='nowhere.png': nowhere.png: no such file"),
    ({"mask": 7}, ImageError, "mask=7: cannot read a picture from builtins.int"),
    ({"mask": True}, ImageError, "mask=True: cannot read"),
    ({"mask": torch.ones(3, 32, 32)}, ImageError, "mask=.*cannot read a picture from torch.Tensor"),
    ({"mask": np.full((32, 32), np.nan)}, ImageError, "mask=.*floats must lie in"),
    ({"mask": torch.full((32, 32), 2.0)}, ImageError, "mask=.*floats must lie in"),
    ({"mask": np.ones((0, 0))}, ImageError, "mask="),
    ({"mask": "auto", "mask_grow": 1.5}, ValueError, "mask_grow=1.5 is no whole number of pixels from -32 to 32"),
    ({"mask": "auto", "mask_grow": 33}, ValueError, "mask_grow=33 is no whole number"),
    ({"mask": "auto", "mask_feather": -1}, ValueError, "mask_feather=-1 is no whole number of pixels from 0 to 32"),
    ({"mask": "auto", "mask_feather": True}, ValueError, "mask_feather=True is no whole number"),
]


@pytest.fixture(scope="module")
def inversion() -> renoise.Inversion:
    """Two pictures, on a pipeline whose networks refuse to run."""
    pipe = tiny.sd()
    found = renoise.invert(
        pipe, [square(32, 32)] * 2, "a cat", preset=Settings((Region(iterations=0),), num_inference_steps=2)
    )
    untouchable(pipe)
    return found


@pytest.mark.parametrize(("change", "kind", "message"), WRONG, ids=[repr(change)[:60] for change, _, _ in WRONG])
def test_mistakes_are_named_before_any_work(
    change: dict[str, Any], kind: type[Exception], message: str, inversion: renoise.Inversion
) -> None:
    with pytest.raises(kind, match=message):
        inversion.edit("a dog", **change)
    with pytest.raises(NetworkRanError):
        inversion.edit("a dog", mask=np.ones((32, 32)))


def test_mistakes_in_a_mask_without_inversion_are_named_before_any_work(inversion: renoise.Inversion) -> None:
    with pytest.raises(ImageError, match="the mask is 16 x 32 and the picture 32 x 32"):
        renoise.edit(inversion.pipe, square(32, 32), "a cat", "a dog", mask=np.ones((32, 16)))
    with pytest.raises(NetworkRanError):
        renoise.edit(inversion.pipe, square(32, 32), "a cat", "a dog", mask=np.ones((32, 32)))


def test_what_nobody_painted_on_a_transparent_layer_may_not_change(tmp_path: Path) -> None:
    layer = Image.new("RGBA", (32, 32), (255, 255, 255, 0))
    layer.paste((255, 255, 255, 255), (4, 6, 14, 16))
    layer.save(tmp_path / "layer.png")
    for mask in (layer, tmp_path / "layer.png"):
        read = np.asarray(masks.read(mask, (32, 32)))
        assert (read > 0).sum() == 100
        assert read[6:16, 4:14].min() == 255


@pytest.mark.parametrize("pixels", [1, 3, 9])
def test_a_feather_is_the_mean_of_masks_grown_by_each_number_of_pixels(pixels: int) -> None:
    mask = (torch.rand(2, 1, 24, 40, generator=torch.Generator().manual_seed(pixels)) > 0.98).float()
    rings = [torch.nn.functional.max_pool2d(mask, 2 * r + 1, 1, r) for r in range(pixels + 1)]
    torch.testing.assert_close(masks.feathered(mask, pixels), torch.stack(rings).mean(0))
    assert masks.grown(mask, pixels).equal(rings[-1])
