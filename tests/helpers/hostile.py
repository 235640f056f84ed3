"""Inputs as a hostile or a clumsy user hands them over, drawn by hypothesis, and a count of what becomes of them.

Every input is refused, by a documented exception with a message of ours, or gives the right answer.  Anything else is
bad: another exception, an exception raised by a library, a message that does not name the argument, a wrong answer.
"""

from __future__ import annotations

import io
import json
import tempfile
import traceback
import warnings
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save as serialise

import renoise
from renoise import archive, images
from renoise.core.settings import EditLosses, Region, Settings
from tests.helpers import tiny

PACKAGE = str(Path(renoise.__file__).parent)
DOCUMENTED = (renoise.ImageError, renoise.ArchiveError, renoise.NotInvertible, ValueError, TypeError)
SETTINGS = Settings((Region(iterations=1),), num_inference_steps=2)
PICTURE = np.random.default_rng(0).integers(0, 256, (20, 32, 3), dtype=np.uint8)


class NetworkRanError(Exception):
    """Everything was accepted, and a network was asked."""


class Tally:
    """What became of the inputs of one kind."""

    def __init__(self, name: str) -> None:
        self.name, self.tried, self.refused, self.right = name, 0, 0, 0
        self.bad: list[str] = []

    def add(self, shown: object, action: Callable[[], Any], right: Callable[[Any], bool], says: str = "") -> None:
        """Tries one input.

        Args:
            shown: the input, for the list of bad ones.
            action: what is done with it.
            right: whether the result is.
            says: what a refusal's message must name.
        """
        self.tried += 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = action()
        except DOCUMENTED as error:
            if self._ours(error) and says in str(error):
                self.refused += 1
            else:
                self._note(shown, error)
        except NetworkRanError:
            self.right += 1
        except Exception as error:
            self._note(shown, error)
        else:
            if right(result):
                self.right += 1
            else:
                self._note(shown, "a wrong answer")

    def _note(self, shown: object, why: object) -> None:
        self.bad.append(f"{shown!r:.200}: {type(why).__name__}: {why!s:.200}")

    @staticmethod
    def _ours(error: BaseException) -> bool:
        last = traceback.extract_tb(error.__traceback__)[-1]
        ours = last.filename.startswith(PACKAGE) or last.name == "start"  # the end of a command line
        return ours and len(str(error)) < 2000

    def __str__(self) -> str:
        return f"{self.name}: {self.tried} tried, {self.refused} refused, {self.right} right, {len(self.bad)} bad"


def fuzzed(count: int) -> Callable[[Any], Any]:
    """The same inputs every time, `count` of them."""
    return settings(
        max_examples=count, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )


NUMBERS = st.one_of(
    st.integers(-3, 12),
    st.integers(),
    st.floats(),
    st.sampled_from([0.5, 1.0, 2.0, 10**400, 2**64, True, False]),
    st.sampled_from([np.int64(3), np.float32(0.5), np.uint8(1), np.float64("nan"), np.array(2), np.bool_(True)]),
    st.sampled_from([torch.tensor(2), torch.tensor(0.5), torch.tensor(True), torch.tensor(1.0, device="meta")]),
)
ODD = st.one_of(
    st.none(),
    st.text(max_size=8),
    st.binary(max_size=8),
    st.just({}),
    st.just([]),
    st.lists(st.integers(-2, 64), max_size=3),
    st.tuples(st.floats(0, 2), st.floats(0, 2)),
    st.sampled_from([np.array([1.0, 2.0]), np.zeros((2, 2)), torch.zeros(2), object(), int, 1j, np.array(["a"])]),
)
VALUES = st.one_of(NUMBERS, ODD)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.integers(-2, 3), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=4,
)


def arrays(count: int) -> Tally:
    """Arrays of any dtype, shape, byte order and layout."""
    tally = Tally("pictures: arrays")
    dtypes = st.one_of(
        hnp.integer_dtypes(endianness="?"),
        hnp.unsigned_integer_dtypes(endianness="?"),
        hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
        st.sampled_from([np.dtype(bool), np.dtype(complex), np.dtype("U3"), np.dtype(object), np.dtype("M8[s]")]),
    )
    shapes = st.one_of(
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
        st.tuples(st.integers(1, 4), st.integers(1, 4), st.sampled_from([1, 3, 4])),
    )

    @fuzzed(count)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        dtype = data.draw(dtypes)
        elements = st.floats(0, 1, width=dtype.itemsize * 8) if dtype.kind == "f" and data.draw(st.booleans()) else None
        array = data.draw(hnp.arrays(dtype, data.draw(shapes), elements=elements))
        if array.ndim and data.draw(st.booleans()):
            array = array[::-1]
        tally.add(array, lambda: images.open_image(array), lambda found: _as_expected(array, found))

    run()
    return tally


def _as_expected(array: Any, found: Image.Image) -> bool:
    """The levels computed in another way: float64, transparency as a mean with white."""
    white = {"u": 2 ** (8 * array.dtype.itemsize) - 1, "b": 1, "f": 1}[array.dtype.kind]
    levels = np.round(array.astype(np.float64) * 255 / white)
    levels = levels[..., None] if levels.ndim == 2 else levels
    if levels.shape[2] == 4:
        share = levels[..., 3:] / 255
        levels = levels[..., :3] * share + 255 * (1 - share)
    return found.mode == "RGB" and bool((np.abs(np.asarray(found) - levels) <= 1).all())


def files(count: int) -> Tally:
    """Files of pictures with bits flipped, bytes lost, put in or doubled."""
    tally = Tally("pictures: damaged files")
    kinds = [("PNG", "RGB"), ("PNG", "P"), ("PNG", "LA"), ("PNG", "I;16"), ("JPEG", "L"), ("GIF", "P"), ("BMP", "RGB")]
    whole = [_encoded(*kind) for kind in [*kinds, ("WEBP", "RGBA"), ("TIFF", "F"), ("TIFF", "RGB"), ("PPM", "RGB")]]

    @fuzzed(count)
    @given(st.sampled_from(whole), st.data())
    def run(file: bytes, data: st.DataObject) -> None:
        changed = _damaged(file, data)
        path = scratch() / "picture"
        path.write_bytes(changed)
        tally.add(changed, lambda: images.open_image(path), lambda found: found.mode == "RGB" and 0 not in found.size)

    run()
    return tally


def _encoded(kind: str, mode: str) -> bytes:
    buffer = io.BytesIO()
    picture = Image.fromarray(PICTURE)
    made = Image.fromarray(PICTURE[..., 0].astype(np.uint16) * 257) if mode == "I;16" else picture.convert(mode)
    made.save(buffer, kind)
    return buffer.getvalue()


def _damaged(whole: bytes, data: st.DataObject) -> bytes:
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, max(0, len(changed) - 1)))
        match data.draw(st.sampled_from(["flip", "flip", "cut", "lose", "double", "put"])):
            case "flip" if changed:
                changed[place] ^= 1 << data.draw(st.integers(0, 7))
            case "cut":
                del changed[place:]
            case "lose":
                del changed[place : place + data.draw(st.integers(1, 16))]
            case "double":
                changed[place:place] = changed[place : place + 16]
            case "put":
                changed[place:place] = data.draw(st.binary(max_size=8))
    return bytes(changed)


def method_settings(count: int) -> Tally:
    """Every field of Settings, Region and EditLosses with values of every kind."""
    tally = Tally("settings")
    base: dict[Any, dict[str, Any]] = {
        Settings: {"regions": (Region(),)},
        Region: {},
        EditLosses: {"lambda_pair": 1, "lambda_kl": 1},
    }
    places = [(kind, field.name) for kind in base for field in fields(kind)]

    @fuzzed(count)
    @given(st.sampled_from(places), VALUES)
    def run(place: tuple[Any, str], value: Any) -> None:
        kind, name = place
        says = "weights" if kind is Region and name == "weights" else name
        tally.add((kind.__name__, name, value), lambda: kind(**{**base[kind], name: value}), _can_be_kept, says)

    run()
    return tally


def _can_be_kept(made: Any) -> bool:
    """Whether settings come back from JSON as they were."""
    if isinstance(made, Region):
        made = Settings((made,)) if made.below == float("inf") else Settings((made, Region()))
    if isinstance(made, EditLosses):
        made = Settings((Region(weights=(1,)),), made)
    if callable(made.solver) or callable(made.method):
        return True
    return bool(archive._settings(json.loads(json.dumps(archive._plain(made)))) == made)


@cache
def scratch() -> Path:
    return Path(tempfile.mkdtemp(prefix="renoise-fuzz-"))


@cache
def _saved() -> bytes:
    inversion = renoise.invert(tiny.sd(tiny.euler_ancestral()), PICTURE, "a cat", preset=SETTINGS)
    return archive.dumps(inversion.record)


@cache
def _pipe() -> Any:
    return tiny.sd(tiny.euler_ancestral())


def bits(count: int) -> Tally:
    """Archives with bits flipped, bytes lost, put in or doubled."""
    tally = Tally("archives: damaged bytes")
    whole = _saved()

    @fuzzed(count)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        changed = _damaged(whole, data)
        path = scratch() / "archive"
        path.write_bytes(changed)
        tally.add("bytes", lambda: renoise.load(path, _pipe()), lambda found: archive.dumps(found.record) == whole)

    run()
    return tally


def mutated_json(count: int) -> Tally:
    """Archives whose JSON was changed in one place, by somebody who knows how to compute the digest."""
    tally = Tally("archives: changed JSON")
    path = scratch() / "archive"
    path.write_bytes(_saved())
    with safe_open(path, "pt") as file:
        told = json.loads(file.metadata()["renoise"])
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    places = [place for place in _places(told) if place != ("sha256",)]

    @fuzzed(count)
    @given(st.sampled_from(places), st.one_of(st.just("lose"), JSON))
    def run(place: tuple[Any, ...], value: Any) -> None:
        changed = json.loads(json.dumps(told))
        inside = changed
        for key in place[:-1]:
            inside = inside[key]
        if value == "lose":
            del inside[place[-1]]
        else:
            inside[place[-1]] = value
        changed["sha256"] = archive.digest(changed, tensors)
        path.write_bytes(serialise(tensors, {"renoise": json.dumps(changed)}))
        tally.add((place, value), lambda: renoise.load(path, _pipe()), _comes_back)

    run()
    return tally


def _comes_back(inversion: Any) -> bool:
    """Whether what was loaded can be saved, loaded and saved again without a change."""
    data = archive.dumps(inversion.record)
    return archive.dumps(archive.loads(data)) == data


def _places(node: Any, at: tuple[Any, ...] = ()) -> Any:
    if at:
        yield at
    if isinstance(node, (dict, list)):
        for key, inner in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _places(inner, (*at, key))
