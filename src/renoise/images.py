"""Pictures in, pictures out: open anything, fit it to the size a model wants, move between PIL and tensors.

Pixels are RGB throughout, 8 bits in a PIL image and float32 in [0, 1] in a tensor [batch, 3, height, width].  Sizes are
(height, width); boxes are PIL's (left, top, right, bottom).  Colour profiles are not converted.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from renoise.core.checks import LIMITS, scalar, shown

if TYPE_CHECKING:  # pictures are looked at before torch is imported, which takes seconds
    from torch import Tensor

__all__ = ["Box", "ImageError", "Source", "decode", "fit", "listed", "open_image", "to_pil", "to_tensor", "unfit"]

Source = str | os.PathLike[str] | Image.Image | npt.NDArray[np.generic]
Box = tuple[int, int, int, int]


class ImageError(ValueError):
    """A picture that cannot be used; the message names it, the reason and the remedy."""


def open_image(source: Source) -> Image.Image:
    """Read a picture as plain 8-bit RGB: upright (EXIF), on white where it is transparent, the first frame of many.

    A grey picture of 16 bits or of floats (modes I;16 and F) has its white at 65535 and at 1.  In mode I, which PIL
    gives to pictures of 8 and of 16 bits alike, white is 255 where no pixel is lighter than that, and 65535 otherwise.

    Args:
        source: the path of any file that PIL reads, a PIL image (its current frame), or an array [H, W], [H, W, 1],
            [H, W, 3] or [H, W, 4] of uint8, uint16, bool, or floats in [0, 1].

    Raises:
        ImageError: not there, not a picture, damaged, empty, of a wrong type, or larger than 100 megapixels
            (`LIMITS.picture_pixels` of `renoise.core.checks`).
    """
    if isinstance(source, Image.Image):
        with _decoding("the PIL image"):
            return _rgb(source, "the PIL image")
    if isinstance(source, np.ndarray):
        return _rgb(_from_array(source), "the array")
    if isinstance(source, (str, os.PathLike)):
        return _from_file(Path(source))
    raise ImageError(
        f"cannot read a picture from {type(source).__module__}.{type(source).__qualname__}: pass a path, a PIL image "
        "or a numpy array (for tensors see renoise.images.to_pil; for bytes, PIL.Image.open(io.BytesIO(data)))"
    )


def decode(data: bytes, name: str) -> Image.Image:
    """A picture file that is in memory, as `open_image` reads one.  Errors call it by `name`; raises ImageError."""
    with _decoding(name), Image.open(io.BytesIO(data)) as image:
        return _rgb(image, name)


def listed(image: Source | Sequence[Source]) -> tuple[list[Source], bool]:
    """Pictures as a list, and whether a list went in.

    Raises:
        ValueError: an empty list.
    """
    batched = isinstance(image, (list, tuple))
    sources = list(cast("Sequence[Source]", image)) if batched else [cast("Source", image)]
    if not sources:
        raise ValueError(f"image={image!r} holds no picture; pass one picture or a list of at least one")
    return sources, batched


def fit(image: Image.Image, size: tuple[int, int]) -> tuple[Image.Image, Box]:
    """Scale a picture to fit into `size`, keeping its aspect ratio, and pad it evenly to exactly that size.

    The pad has the median colour of the picture's own border, so that it stays quiet on a photograph and white around
    a cut-out on white.

    Args:
        image: RGB, of any size; small pictures are enlarged.
        size: (height, width) in pixels.

    Returns:
        The picture of that size, and the box of its content for `unfit`.
    """
    if image.mode != "RGB" or 0 in image.size:
        raise ImageError(
            f"fit takes a non-empty RGB picture, not mode {image.mode} of {_by(image.size)}: open_image first"
        )
    sides = tuple(scalar(side) for side in size) if isinstance(size, (list, tuple)) else ()
    if len(sides) != 2 or not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in sides):
        raise ImageError(f"size {shown(size)} is not a (height, width) of positive whole numbers, e.g. (512, 512)")
    height, width = sides
    scale = min(width / image.width, height / image.height)
    # at least a pixel each way, however long and thin the picture
    inner = tuple(
        max(1, min(round(side * scale), room)) for side, room in zip(image.size, (width, height), strict=True)
    )
    content = image if inner == image.size else image.resize((inner[0], inner[1]), Image.Resampling.LANCZOS)
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    fitted = Image.new("RGB", (width, height), _border_colour(content))
    fitted.paste(content, (left, top))
    return fitted, (left, top, left + inner[0], top + inner[1])


def unfit(image: Image.Image, box: Box) -> Image.Image:
    """Cut the padding that `fit` put on: the part of `image` in `box`, at the model's resolution."""
    left, top, right, bottom = box
    if not (0 <= left < right <= image.width and 0 <= top < bottom <= image.height):
        raise ImageError(f"box {box} does not lie in a picture of {_by(image.size)}: pass the box that fit returned")
    return image.crop(box)


def to_tensor(images: Sequence[Image.Image]) -> Tensor:
    """Stack RGB pictures of one size: float32 [batch, 3, height, width] in [0, 1]."""
    if isinstance(images, Image.Image) or not images:
        raise ImageError("to_tensor takes a list of at least one PIL image: write to_tensor([image])")
    if any(image.mode != "RGB" for image in images):
        raise ImageError(f"to_tensor takes RGB pictures, not {sorted({i.mode for i in images})}: open_image them first")
    if len({image.size for image in images}) > 1:
        sizes = ", ".join(_by(image.size) for image in images)
        raise ImageError(f"a batch needs pictures of one size, not {sizes}: fit each of them to the same size")
    import torch

    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    return pixels.permute(0, 3, 1, 2).to(torch.float32).contiguous() / 255


def to_pil(pixels: Tensor) -> list[Image.Image]:
    """Pictures of a float tensor [batch, 3, height, width] in [0, 1]; values beyond are clipped.

    Raises:
        ImageError: wrong shape, not floating point, or NaN.
    """
    import torch

    if pixels.ndim != 4 or pixels.shape[1] != 3 or not pixels.is_floating_point():
        raise ImageError(f"to_pil takes floats [batch, 3, height, width], not {pixels.dtype} {list(pixels.shape)}")
    pixels = pixels.detach().to("cpu", torch.float32)
    if bool(pixels.isnan().any()):
        raise ImageError("the picture holds NaN: a network overflowed, as float16 ones do; use bfloat16 or float32")
    bytes_ = (pixels.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return [Image.fromarray(image) for image in bytes_]


def _from_file(path: Path) -> Image.Image:
    try:
        if not path.exists():
            raise ImageError(
                f"{path}: no such file (looked in {Path.cwd()}); a picture on the web must be downloaded first"
            )
        if not path.is_file():
            raise ImageError(
                f"{path} is {'a directory' if path.is_dir() else 'not a regular file'}: name one picture in it"
            )
        if path.stat().st_size == 0:
            raise ImageError(f"{path} is empty (0 bytes): fetch or save it again")
    except OSError as error:
        raise ImageError(f"{path} cannot be looked at: {error.strerror or error}") from error
    with _decoding(str(path)), Image.open(path) as image:
        return _rgb(image, str(path))


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Turn whatever PIL throws at a file into an ImageError."""
    try:
        # PIL's own limit on size follows a global that others set; ours is checked on the header, in _rgb
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} is too large: {error} Reduce it first.") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is not a picture in a format that PIL reads: convert it to PNG or JPEG") from error
    except PermissionError as error:
        raise ImageError(f"{name} may not be read: {error.strerror}") from error
    except Exception as error:  # decoders raise nearly anything on damaged data
        raise ImageError(f"{name} is damaged, cut short or of a kind that PIL cannot decode: {error}") from error


def _rgb(image: Image.Image, name: str) -> Image.Image:
    """8-bit RGB of any PIL image; the size is judged before the pixels are decoded."""
    if 0 in image.size:
        raise ImageError(f"{name} is {_by(image.size)}: it has no pixels")
    _check_area(name, image.size)
    clear, sixteen = _clear_level(image), str(_layout(image)).startswith("I;16")
    image = ImageOps.exif_transpose(image)  # a copy
    if image.mode.startswith("I") or image.mode == "F":
        return _deep(image, name, sixteen)
    if clear is not None:
        image.info["transparency"] = clear
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return Image.fromarray(np.asarray(image.convert("RGB")))  # leaves the file's metadata behind


def _check_area(name: str, size: tuple[int, int]) -> None:
    """Refuses more pixels than the limit; (width, height)."""
    pixels, most = size[0] * size[1], LIMITS.picture_pixels
    if pixels > most:
        raise ImageError(
            f"{name} is {_by(size)}, {pixels / 1e6:.0f} megapixels; the limit is {most / 1e6:g}: reduce it first, or "
            f"raise the limit: renoise.core.checks.LIMITS.picture_pixels = {pixels}"
        )


def _clear_level(image: Image.Image) -> int | tuple[int, ...] | None:
    """The transparent colour of a PNG at the 8 bits that PIL decodes it to, where PIL leaves it at the file's own bits.

    Known only before the pixels are decoded; None where there is nothing to correct.
    """
    clear: Any = image.info.get("transparency")
    layout = _layout(image)
    if layout in ("L;2", "L;4") and isinstance(clear, int):
        return min(clear, 3) * 85 if layout == "L;2" else min(clear, 15) * 17
    if image.mode == "RGB" and isinstance(clear, tuple) and (layout == "RGB;16B" or max(clear) > 255):
        return tuple(level >> 8 for level in clear)
    return None


def _layout(image: Image.Image) -> Any:
    """How a file holds its pixels, until they are decoded: "L;4", "RGB;16B" ..."""
    tiles = getattr(image, "tile", None)
    return tiles[0][3] if tiles else None


def _deep(image: Image.Image, name: str, sixteen: bool) -> Image.Image:
    """Greyscale of more than 8 bits, on white where one level is transparent; see `open_image` for what white is."""
    levels = np.asarray(image).astype(np.float64)
    white, kind = (1.0, "floats") if image.mode == "F" else (65535.0, "16-bit integers")
    if image.mode == "I" and not sixteen and levels.max() <= 255:
        white, kind = 255.0, "8-bit integers"
    if not (levels.min() >= 0 and levels.max() <= white):
        raise ImageError(
            f"{name} has {kind} from {levels.min():g} to {levels.max():g} (mode {image.mode}), not from 0 to "
            f"{white:g}: scale them, or convert the picture to 8 bits"
        )
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        levels[levels == clear] = white
    return Image.fromarray((levels / white * 255).round().astype(np.uint8)).convert("RGB")


def _from_array(array: npt.NDArray[np.generic]) -> Image.Image:
    shape = array.shape
    if array.ndim not in (2, 3) or (array.ndim == 3 and shape[2] not in (1, 3, 4)):
        hint = ": channels go last, array.transpose(1, 2, 0)" if array.ndim == 3 and shape[0] in (1, 3, 4) else ""
        raise ImageError(f"an array of shape {shape} is not a picture [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]{hint}")
    if 0 in shape:
        raise ImageError(f"the array has shape {shape}: it has no pixels")
    _check_area("the array", (shape[1], shape[0]))
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype == np.uint8:
        levels = array.astype(np.uint8)
    elif array.dtype in (np.uint16, np.bool_):
        levels = (array.astype(np.float64) / (65535 if array.dtype == np.uint16 else 1) * 255).round().astype(np.uint8)
    elif array.dtype.kind == "f":
        values = array.astype(np.float64)
        if not (values.min() >= 0 and values.max() <= 1):  # NaN fails too
            raise ImageError(
                f"an array of floats must lie in [0, 1], not [{values.min():g}, {values.max():g}]: scale it"
            )
        levels = (values * 255).round().astype(np.uint8)
    else:
        raise ImageError(f"an array of {array.dtype} has no agreed white: pass uint8, uint16 or floats in [0, 1]")
    return Image.fromarray(levels[:, :, 0] if array.ndim == 3 and shape[2] == 1 else levels)


def _border_colour(image: Image.Image) -> tuple[int, int, int]:
    pixels = np.asarray(image)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    red, green, blue = (round(float(level)) for level in np.median(border, axis=0))
    return red, green, blue


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]} pixels"
