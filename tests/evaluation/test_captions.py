"""Folders of pictures with captions, in each of the forms."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from renoise.evaluation.captions import read
from tests.helpers.pie_sets import image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for number in range(3):
        image(number).save(tmp_path / "images" / f"{number}.png")
    return tmp_path


def as_jsonl(folder: Path) -> None:
    rows = [{"file_name": f"images/{i}.png", "text": f"picture {i}", "more": 1} for i in range(3)]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")


def as_csv(folder: Path) -> None:
    lines = ["file_name,caption", *(f'images/{i}.png,"picture {i}"' for i in range(3))]
    (folder / "metadata.csv").write_text("\ufeff" + "\n".join(lines))


def as_coco(folder: Path) -> None:
    images = [{"id": 10 + i, "file_name": f"{i}.png"} for i in range(3)]
    captions = [{"image_id": 10 + i, "caption": text} for i in (2, 0, 1) for text in (f" picture {i}", "another")]
    (folder / "annotations").mkdir()
    (folder / "annotations/captions_val.json").write_text(json.dumps({"images": images, "annotations": captions}))


@pytest.mark.parametrize("form", [as_jsonl, as_csv, as_coco])
def test_every_form_gives_pictures_with_captions_in_order(folder: Path, form: object) -> None:
    form(folder)  # type: ignore[operator]
    found = read(folder)
    assert [(each.number, each.name, each.caption) for each in found] == [
        (i, f"images/{i}.png", f"picture {i}") for i in range(3)
    ]
    assert [each.number for each in read(folder, 2)] == [0, 1]


def test_the_pictures_of_coco_may_lie_in_a_folder_named_as_its_json(folder: Path) -> None:
    as_coco(folder)
    (folder / "images").rename(folder / "val")
    assert read(folder)[0].name == "val/0.png"


def test_a_picture_of_coco_without_a_caption_is_no_picture(folder: Path) -> None:
    as_coco(folder)
    file = folder / "annotations/captions_val.json"
    stored = json.loads(file.read_text())
    stored["annotations"] = [each for each in stored["annotations"] if each["image_id"] != 10]
    file.write_text(json.dumps(stored))
    assert [each.caption for each in read(folder)] == ["picture 1", "picture 2"]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("metadata.jsonl", '{"file_name": "images/0.png"}', "line 1: needs file_name and one of text, caption, prompt"),
        ("metadata.jsonl", "{", "line 1: no JSON"),
        ("metadata.jsonl", "[]", "line 1: no JSON object"),
        ("metadata.jsonl", '{"file_name": "9.png", "text": "a"}', r"9\.png does not exist"),
        ("metadata.jsonl", '{"file_name": "images/0.png", "text": "  "}', "empty caption"),
        ("metadata.jsonl", "", "lists no pictures"),
        ("metadata.csv", "file_name,words\nimages/0.png,a\n", "line 2: needs file_name"),
        ("captions.json", '{"images": [{"id": 1}], "annotations": [{}]}', "an entry has no 'image_id'"),
        ("captions.json", '{"pictures": []}', "has no captions: it needs metadata.jsonl"),
    ],
)
def test_what_cannot_be_read_is_named(folder: Path, name: str, text: str, reason: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(ValueError, match=reason):
        read(folder)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no folder"):
        read(tmp_path / "nothing")
