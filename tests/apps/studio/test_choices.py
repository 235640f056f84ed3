"""Fields of the page become keywords, or are refused with what to write instead."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import studio_examples
from renoise.apps.studio import examples
from renoise.apps.studio.captions import by_judge, vocabulary
from renoise.apps.studio.choices import EditChoices, InvertChoices, Refused, grid, number, prompts, seeds, whole
from renoise.apps.studio.pictures import Limits, decoded, encoded, mask_of, source_of
from tests.helpers.embedded import SIDE
from tests.helpers.studio import png


def test_what_is_left_alone_is_no_keyword() -> None:
    assert InvertChoices("red apple").keywords() == {}
    assert EditChoices("pear").keywords() == {}
    assert InvertChoices("a", preset="fast", seed=0, tol=0.01).keywords() == {"preset": "fast", "tol": 0.01, "seed": 0}


def test_a_seed_counts_with_fresh_noise_and_mask_settings_with_a_mask() -> None:
    assert EditChoices("a", seed=3, mask_grow=2).keywords() == {}
    given = EditChoices("a", randomness=0.5, seed=3, mask="automatic", mask_grow=2, mask_feather=0).keywords()
    assert given == {"randomness": 0.5, "seed": 3, "mask_grow": 2, "mask_feather": 0}


def test_every_prompt_goes_with_every_seed() -> None:
    asked = grid("cat\n\n dog \ncat", "1, 2", {"randomness": 0.3})
    assert [(choices.prompt, choices.seed) for choices in asked] == [("cat", 1), ("cat", 2), ("dog", 1), ("dog", 2)]
    assert [choices.seed for choices in grid("cat\ndog", "1, 2", {})] == [0, 0]


@pytest.mark.parametrize(
    ("text", "seed_text", "given", "told"),
    [
        ("  \n ", "", {}, "Write what"),
        ("cat", "one", {"randomness": 0.5}, "“one” is no seed"),
        ("cat", "-1", {"randomness": 0.5}, "no seed"),
        ("cat", " ".join(map(str, range(13))), {"randomness": 0.5}, "13 edits"),
        ("cat", "", {"mask": "painted"}, "mask is empty"),
    ],
)
def test_what_cannot_be_asked_for(text: str, seed_text: str, given: dict[str, object], told: str) -> None:
    with pytest.raises(Refused, match=told):
        grid(text, seed_text, given)


def test_numbers_as_they_are_typed() -> None:
    assert number("Tolerance", " 0,01 ") == 0.01
    assert number("Tolerance", "") is None
    assert whole("Seed", "7") == 7
    for text in ("much", "nan", "1e999"):
        with pytest.raises(Refused, match="Tolerance"):
            number("Tolerance", text)
    with pytest.raises(Refused, match=r"Seed: 1\.5 is no whole number"):
        whole("Seed", "1.5")
    assert prompts("a\n") == ["a"]
    assert seeds("") == [0]


def test_a_picture_of_any_kind_becomes_a_png_with_its_pixels() -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (30, 20), (255, 0, 0, 128)).save(buffer, "WEBP", lossless=True)
    source = source_of(buffer.getvalue(), Limits())
    assert source.size == (30, 20)
    assert decoded(source.png).getpixel((3, 3)) == (255, 127, 127)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "empty"),
        (b"not a picture", "no picture that can be read"),
        (png(40, 30)[:60], "damaged|no picture"),
        (png(2000, 1000), "2 megapixels"),
    ],
    ids=["nothing", "text", "half", "too many pixels"],
)
def test_what_is_no_picture_is_refused(data: bytes, told: str) -> None:
    with pytest.raises(Refused, match=told):
        source_of(data, Limits(megapixels=1))


def test_an_empty_mask_is_none() -> None:
    assert mask_of(b"", Limits()) is None
    assert mask_of(png(8, 8, 0), Limits()) is None
    kept = mask_of(png(8, 8, 255), Limits())
    assert kept is not None
    assert Image.open(io.BytesIO(kept)).mode == "L"


def test_the_examples_are_held_out_pictures_that_the_judge_knows() -> None:
    known = vocabulary()
    assert len(examples.examples()) >= 12
    for example in examples.examples():
        assert example.picture.size == (SIDE, SIDE)
        assert example.picture.mode == "RGB"
        concept, _, style = example.caption.rpartition(", ")
        assert concept in known.concepts
        assert style.removesuffix(" style") in known.styles
    files = [path for path in examples.STATIC.iterdir() if path.stem == "examples"]
    assert sum(path.stat().st_size for path in files) < 100_000


def test_the_examples_are_what_their_command_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["studio_examples", "--output", str(tmp_path / "examples.webp")])
    studio_examples.main()
    with Image.open(tmp_path / "examples.webp") as written, Image.open(examples.STATIC / "examples.webp") as shipped:
        assert written.convert("RGB").tobytes() == shipped.convert("RGB").tobytes()


def test_the_judge_fills_in_the_caption() -> None:
    right = [by_judge(example.picture)[0].caption == example.caption for example in examples.examples()]
    assert sum(right) >= 14  # of 16, which were chosen among those that it gets right
    guesses = by_judge(Image.new("RGB", (300, 40), "red"))
    assert len(guesses) == 3
    assert guesses[0].probability is not None


def test_encoding_keeps_every_pixel() -> None:
    picture = examples.examples()[0].picture
    assert decoded(encoded(picture)).tobytes() == picture.tobytes()
