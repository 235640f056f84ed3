"""Pictures in and out: every kind that users have, and errors that say what to do."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from renoise import images
from renoise.core.checks import LIMITS
from renoise.images import ImageError, fit, open_image, to_pil, to_tensor, unfit

LOSSLESS: dict[str, Any] = {"webp": {"lossless": True}}


def gradient(height: int = 24, width: int = 40) -> npt.NDArray[np.uint8]:
    """A picture in which every pixel tells where it is."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 5, columns * 5, rows + columns], axis=-1).astype(np.uint8)


def pixel(image: Image.Image, at: tuple[int, int] = (0, 0)) -> tuple[int, ...]:
    assert image.mode == "RGB"
    value = image.getpixel(at)
    assert isinstance(value, tuple)
    return tuple(int(level) for level in value)


# ---------------------------------------------------------------- what opens


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp", "ppm"])
def test_files_of_many_formats_open_unchanged(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(gradient()).save(path, **LOSSLESS.get(suffix, {}))
    for source in (path, str(path)):
        assert np.array_equal(np.asarray(open_image(source)), gradient())


def test_pil_images_and_arrays_open_unchanged() -> None:
    for source in (Image.fromarray(gradient()), gradient(), gradient() / 255, gradient().astype(np.uint16) * 257):
        assert np.array_equal(np.asarray(open_image(source)), gradient())


def test_the_source_is_not_changed_nor_shared() -> None:
    array, image = gradient(), Image.fromarray(gradient())
    for source in (array, image):
        open_image(source).paste("red", (0, 0, 9, 9))
    assert np.array_equal(array, gradient())
    assert np.array_equal(np.asarray(image), gradient())


def test_grey_arrays() -> None:
    grey = gradient()[:, :, 0]
    for source in (grey, grey[:, :, None], Image.fromarray(grey)):
        assert np.array_equal(np.asarray(open_image(source)), np.stack([grey] * 3, axis=-1))
    assert pixel(open_image(np.ones((2, 2), dtype=bool))) == (255, 255, 255)
    assert pixel(open_image(Image.new("1", (2, 2), 1))) == (255, 255, 255)


def transparent_palette() -> Image.Image:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    image.info["transparency"] = 1
    return image


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("RGBA", (2, 1), (255, 0, 0, 0)), (255, 255, 255)),
        (Image.new("RGBA", (2, 1), (255, 0, 0, 51)), (255, 204, 204)),
        (Image.new("LA", (2, 1), (0, 51)), (204, 204, 204)),
        (Image.new("RGBa", (2, 1), (51, 0, 0, 51)), (255, 204, 204)),
        (transparent_palette(), (255, 255, 255)),
        (Image.new("RGBA", (2, 1), (1, 2, 3, 255)), (1, 2, 3)),
    ],
    ids=["clear", "translucent", "grey", "premultiplied", "palette", "opaque"],
)
def test_transparency_goes_on_white(image: Image.Image, expected: tuple[int, int, int]) -> None:
    assert pixel(open_image(image), (1, 0)) == pytest.approx(expected, abs=1)


@pytest.mark.parametrize(("mode", "clear"), [("L", 7), ("RGB", (7, 8, 9)), ("P", bytes([255, 0]))])
def test_transparency_by_colour_key_in_a_file(tmp_path: Path, mode: str, clear: Any) -> None:
    image = Image.new(mode, (2, 1), 1 if mode == "P" else clear)
    if mode == "P":
        image.putpalette([255, 0, 0, 0, 0, 255])
    image.save(tmp_path / "key.png", transparency=clear)
    assert pixel(open_image(tmp_path / "key.png"), (1, 0)) == (255, 255, 255)


def test_transparent_array() -> None:
    assert pixel(open_image(np.zeros((2, 2, 4), dtype=np.uint8))) == (255, 255, 255)


def test_palette_and_cmyk_keep_their_colours(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "print.jpg", quality=100)
    assert pixel(open_image(tmp_path / "print.jpg")) == pytest.approx((255, 0, 0), abs=3)
    Image.new("RGB", (8, 8), (10, 200, 30)).quantize(4).save(tmp_path / "palette.png")
    assert pixel(open_image(tmp_path / "palette.png")) == (10, 200, 30)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = Image.fromarray(gradient())
    # how a camera would have stored it
    undo: dict[int, list[Image.Transpose]] = {
        1: [],
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    stored = upright
    for step in undo[orientation]:
        stored = stored.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "phone.png", exif=exif)
    opened = open_image(tmp_path / "phone.png")
    assert np.array_equal(np.asarray(opened), gradient())
    assert np.array_equal(np.asarray(open_image(opened)), gradient())  # not applied twice


def test_a_broken_exif_block_does_not_cost_the_picture(tmp_path: Path) -> None:
    Image.fromarray(gradient()).save(tmp_path / "odd.png", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01")
    with pytest.warns(UserWarning, match="EXIF"):
        assert open_image(tmp_path / "odd.png").size == (40, 24)


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_sixteen_bits_are_scaled(tmp_path: Path, mode: str) -> None:
    image = Image.new(mode, (2, 1), 0)
    image.putpixel((0, 0), 0x8080)
    image.putpixel((1, 0), 0xFFFF)
    image.save(tmp_path / "deep.tiff")
    for source in (image, tmp_path / "deep.tiff"):
        assert pixel(open_image(source)) == (128,) * 3
        assert pixel(open_image(source), (1, 0)) == (255,) * 3


def test_sixteen_bit_png(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 0x8080, dtype=np.uint16)).save(tmp_path / "deep.png")
    assert pixel(open_image(tmp_path / "deep.png")) == (128,) * 3


def png(colours: int, bits: int, rows: bytes, width: int, clear: bytes) -> bytes:
    """A PNG of one row, with a transparent colour."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, 1, bits, colours, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"tRNS", clear), chunk(b"IDAT", zlib.compress(b"\0" + rows))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (png(0, 16, struct.pack(">3H", 0, 1000, 65535), 3, struct.pack(">H", 0)), [255, 4, 255]),
        (png(0, 16, struct.pack(">3H", 0, 1000, 65535), 3, struct.pack(">H", 1000)), [0, 255, 255]),
        (png(0, 8, bytes([0, 7, 9]), 3, struct.pack(">H", 7)), [0, 255, 9]),
        (png(0, 4, bytes([0x05, 0xA0]), 3, struct.pack(">H", 5)), [0, 255, 170]),
        (png(0, 2, bytes([0b00011000]), 3, struct.pack(">H", 1)), [0, 255, 170]),
        (png(0, 1, bytes([0b01000000]), 3, struct.pack(">H", 0)), [255, 255, 255]),
        (png(2, 16, struct.pack(">6H", 0x1234, 9, 9, 0, 0, 0), 2, struct.pack(">3H", 0x1234, 9, 9)), [255, 0]),
        (png(2, 16, struct.pack(">6H", 7, 7, 7, 0x4000, 0, 0), 2, struct.pack(">3H", 7, 7, 7)), [255, 64]),
    ],
    ids=["grey 16, black", "grey 16", "grey 8", "grey 4", "grey 2", "grey 1", "colour 16", "colour 16, dark"],
)
def test_a_transparent_colour_in_a_png_of_any_depth(file: bytes, expected: list[int], tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(file)
    for source in (tmp_path / "picture.png", Image.open(tmp_path / "picture.png")):
        assert np.asarray(open_image(source))[0, :, 0].tolist() == expected


def test_mode_i_made_of_an_8_bit_picture_is_not_black() -> None:
    grey = Image.fromarray(gradient()[:, :, 0])
    assert np.array_equal(np.asarray(open_image(grey.convert("I")))[:, :, 0], gradient()[:, :, 0])
    bright = Image.fromarray(np.array([[0, 256, 65535]], np.int32))
    assert np.asarray(open_image(bright))[0, :, 0].tolist() == [0, 1, 255]


@pytest.mark.parametrize("dtype", [">u2", "<u2", ">f2", ">f4", ">f8", "<f4"])
def test_arrays_of_either_byte_order(dtype: str) -> None:
    levels = gradient() / 255 if "f" in dtype else gradient().astype(np.uint16) * 257
    assert np.array_equal(np.asarray(open_image(levels.astype(dtype))), gradient())


def test_large_arrays_are_refused_before_they_are_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    for dtype in (np.uint8, np.uint16, np.float32):
        array = np.broadcast_to(np.zeros((1, 1, 3), dtype), (30_000, 30_000, 3))  # takes no memory itself
        with pytest.raises(ImageError, match=r"900 megapixels; the limit is 100: .*LIMITS.picture_pixels = 900000000"):
            open_image(array)
    monkeypatch.setattr(LIMITS, "picture_pixels", 100)
    with pytest.raises(ImageError, match=r"the limit is 0\.0001"):
        open_image(gradient())


def test_floats_are_read_from_zero_to_one() -> None:
    assert pixel(open_image(Image.new("F", (2, 2), 0.5))) == (128,) * 3
    with pytest.raises(ImageError, match=r"from 200 to 200 \(mode F\), not from 0 to 1: scale them"):
        open_image(Image.new("F", (2, 2), 200.0))
    with pytest.raises(ImageError, match=r"\(mode I\), not from 0 to 65535"):
        open_image(Image.new("I", (2, 2), 70000))


def test_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for suffix in ("gif", "png", "webp"):
        path = tmp_path / f"moving.{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:], **LOSSLESS.get(suffix, {}))
        assert pixel(open_image(path)) == (255, 0, 0)


# ---------------------------------------------------------------- what does not


def refusal(source: Any) -> str:
    with pytest.raises(ImageError) as caught:
        open_image(source)
    return str(caught.value)


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    assert "no-such.png: no such file" in refusal(tmp_path / "no-such.png")
    assert "downloaded first" in refusal("https://example.org/cat.png")
    assert "is a directory" in refusal(tmp_path)
    (tmp_path / "empty.png").touch()
    assert "is empty (0 bytes)" in refusal(tmp_path / "empty.png")
    assert "cannot be looked at" in refusal("x" * 5000)
    (tmp_path / "text.png").write_text("not a picture at all")
    assert "not a picture in a format that PIL reads" in refusal(tmp_path / "text.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "webp", "tiff"])
def test_files_cut_short_or_damaged_are_refused_or_opened_but_never_crash(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert str(path) in refusal(path)
    rng = np.random.default_rng(1)
    refusals = []
    for _ in range(60):
        damaged = bytearray(whole)
        for position in rng.integers(0, min(len(whole), 300), 3):
            damaged[position] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            assert open_image(path).mode == "RGB"
        except ImageError as error:
            refusals.append(str(error))
        except UserWarning:
            pass  # PIL's own, about metadata
    assert all(str(path) in message for message in refusals)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing: what a decompression bomb looks like before it goes off."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("limit", [None, 1_000, 10**12])
@pytest.mark.parametrize("size", [(11_000, 10_000), (60_000, 50_000)])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int | None, size: tuple[int, int]
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    (tmp_path / "bomb.png").write_bytes(png_header(*size))
    assert "too large" in (message := refusal(tmp_path / "bomb.png")) or "the limit is 100" in message
    with pytest.raises(ImageError), Image.open(tmp_path / "bomb.png") if limit is None else _lazy(*size) as lazy:
        open_image(lazy)


def _lazy(width: int, height: int) -> Any:
    """An image object of some size that must not be decoded."""

    class Bomb(Image.Image):
        def load(self) -> Any:
            raise AssertionError("decoded")

    bomb = Bomb()
    bomb._mode, bomb._size = "RGB", (width, height)
    return bomb


def test_large_photographs_pass_in_silence(tmp_path: Path) -> None:
    # above PIL's own warning at 89 megapixels, below the limit: gets as far as the missing data
    (tmp_path / "large.png").write_bytes(png_header(10_000, 9_500))
    message = refusal(tmp_path / "large.png")
    assert "damaged" in message
    assert "pixels" not in message


def test_pictures_without_pixels() -> None:
    assert "no pixels" in refusal(Image.new("RGB", (0, 4)))
    assert "no pixels" in refusal(np.zeros((0, 4, 3), dtype=np.uint8))


def test_things_that_are_no_pictures() -> None:
    assert "torch.Tensor" in refusal(torch.zeros(3, 4, 4))
    assert "builtins.bytes" in refusal(b"...")
    assert "NoneType" in refusal(None)
    assert "channels go last, array.transpose(1, 2, 0)" in refusal(np.zeros((3, 8, 8), dtype=np.uint8))
    assert "(1, 8, 8, 3)" in refusal(np.zeros((1, 8, 8, 3), dtype=np.uint8))
    assert "float" in refusal(np.full((4, 4, 3), 200.0))
    assert "nan" in refusal(np.full((4, 4, 3), np.nan))
    assert "int64" in refusal(np.zeros((4, 4, 3), dtype=np.int64))


# ---------------------------------------------------------------- fitting


@pytest.mark.parametrize("size", [(64, 64), (32, 96), (96, 32), (7, 9)])
@pytest.mark.parametrize("given", [(64, 64), (300, 200), (1, 1), (5000, 1), (1, 5000), (33, 97)])
def test_fit_keeps_the_aspect_ratio_inside_exactly_the_size(size: tuple[int, int], given: tuple[int, int]) -> None:
    image = Image.new("RGB", given, "navy")
    fitted, (left, top, right, bottom) = fit(image, size)
    assert fitted.size == (size[1], size[0])
    width, height = right - left, bottom - top
    scale = min(size[1] / given[0], size[0] / given[1])
    assert abs(width - max(1, given[0] * scale)) <= 0.5
    assert abs(height - max(1, given[1] * scale)) <= 0.5
    assert abs(left - (size[1] - right)) <= 1
    assert abs(top - (size[0] - bottom)) <= 1
    assert unfit(fitted, (left, top, right, bottom)).size == (width, height)


def test_a_picture_of_the_right_size_stays_as_it_is() -> None:
    image = Image.fromarray(gradient())
    fitted, box = fit(image, (24, 40))
    assert np.array_equal(np.asarray(fitted), gradient())
    assert box == (0, 0, 40, 24)
    fitted, box = fit(image, (40, 40))
    assert np.array_equal(np.asarray(unfit(fitted, box)), gradient())  # padded only


def test_the_pad_has_the_median_colour_of_the_border() -> None:
    image = Image.new("RGB", (40, 20), "white")
    image.paste("red", (10, 5, 30, 20))  # touches the lower border, over less than half of it
    fitted, _ = fit(image, (40, 40))
    assert pixel(fitted) == (255, 255, 255)
    assert pixel(fitted, (39, 39)) == (255, 255, 255)
    photograph = Image.new("RGB", (40, 20), (60, 90, 30))
    photograph.paste("white", (8, 4, 32, 16))
    assert pixel(fit(photograph, (40, 40))[0]) == (60, 90, 30)


def test_reduction_averages_instead_of_skipping() -> None:
    checks = np.indices((64, 64)).sum(axis=0) % 2 * 255
    small, _ = fit(Image.fromarray(checks.astype(np.uint8)).convert("RGB"), (8, 8))
    assert np.abs(np.asarray(small).astype(int) - 128).max() <= 2


def test_fit_says_what_it_needs() -> None:
    with pytest.raises(ImageError, match="open_image first"):
        fit(Image.new("RGBA", (4, 4)), (8, 8))
    sizes: list[Any] = [(0, 8), (8,), (8.0, 8.0), (-8, 8)]
    for size in sizes:
        with pytest.raises(ImageError, match="height, width"):
            fit(Image.new("RGB", (4, 4)), size)
    with pytest.raises(ImageError, match="does not lie in"):
        unfit(Image.new("RGB", (4, 4)), (0, 0, 5, 4))


# ---------------------------------------------------------------- tensors


def test_tensors_and_back() -> None:
    flipped = np.ascontiguousarray(gradient()[::-1])
    pixels = to_tensor([Image.fromarray(gradient()), Image.fromarray(flipped)])
    assert pixels.shape == (2, 3, 24, 40)
    assert pixels.dtype == torch.float32
    assert pixels.is_contiguous()
    assert pixels.max() <= 1
    assert pixels[0, 1, 0, 39].item() == pytest.approx(39 * 5 / 255)
    back = to_pil(pixels)
    assert np.array_equal(np.asarray(back[0]), gradient())
    assert np.array_equal(np.asarray(back[1]), flipped)


def test_to_pil_rounds_and_clips_any_precision() -> None:
    pixels = torch.tensor([-0.5, 1.5, 100.4 / 255, 100.6 / 255]).view(1, 1, 1, 4).expand(1, 3, 1, 4)
    for dtype in (torch.float32, torch.float64):
        image = to_pil(pixels.to(dtype))[0]
        assert [pixel(image, (x, 0))[0] for x in range(4)] == [0, 255, 100, 101]
    assert pixel(to_pil(torch.ones(1, 3, 2, 2, dtype=torch.bfloat16))[0]) == (255, 255, 255)


def test_tensors_say_what_they_need() -> None:
    picture = Image.new("RGB", (4, 4))
    with pytest.raises(ImageError, match="NaN: a network overflowed"):
        to_pil(torch.full((1, 3, 2, 2), torch.nan))
    with pytest.raises(ImageError, match=r"not torch.float32 \[3, 2, 2\]"):
        to_pil(torch.zeros(3, 2, 2))
    with pytest.raises(ImageError, match="uint8"):
        to_pil(torch.zeros(1, 3, 2, 2, dtype=torch.uint8))
    with pytest.raises(ImageError, match="4 x 4 pixels, 5 x 4 pixels"):
        to_tensor([picture, Image.new("RGB", (5, 4))])
    with pytest.raises(ImageError, match=r"\['RGBA'\]"):
        to_tensor([Image.new("RGBA", (4, 4))])
    with pytest.raises(ImageError, match=r"to_tensor\(\[image\]\)"):
        to_tensor([])
    with pytest.raises(ImageError, match=r"to_tensor\(\[image\]\)"):
        to_tensor(picture)  # type: ignore[arg-type]


def test_names_are_sorted() -> None:
    assert images.__all__ == sorted(images.__all__)
    assert all(hasattr(images, name) for name in images.__all__)
