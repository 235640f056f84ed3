"""A small set of edits in exactly the format of PIE-Bench, from held-out emoji, so that its runner runs on any machine.

    python -m benchmarks.pie_set    # writes benchmarks/pie: mapping_file.json and annotation_images

It also writes metadata.jsonl with the captions, so that the same folder is one of pictures with captions.

24 pictures of the test split, of every kind of edit that makes sense for emoji: no materials, since none of them shows
at this size, and no backgrounds, since all are white.  Pictures have the size of the embedded models, are enlarged to
512 pixels (Lanczos) and stored as JPEG.
The mask is one of three:

* "object": every pixel that is not white, and a margin around (2 pixels of 64), for edits of the whole object;
* a number: where the picture differs from that picture of the test split, which shows the new prompt in the same style;
* "all": everything, for edits of the style, as PIE-Bench has it.  Nothing is left to compare then.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from benchmarks import pictures
from renoise.evaluation.pie import IMAGES, MAPPING
from renoise.evaluation.run_lengths import SIDE, encode
from renoise.images import to_pil

FOLDER = Path(__file__).parent / "pie"
FOLDERS = {
    "0": "random",
    "1": "change_object",
    "2": "add_object",
    "3": "delete_object",
    "4": "change_attribute_content",
    "5": "change_attribute_pose",
    "6": "change_attribute_color",
    "9": "change_style",
}
NEAR_WHITE, DIFFERENT = 16, 24  # of 255: below white, and of one picture from another
_BRACKETS = str.maketrans("", "", "[]")
AROUND = 32  # the margin around what differs is the side of a picture over this


@dataclass(frozen=True)
class Edit:
    """One picture and what it shall become.

    Attributes:
        type: kind of edit, as in `renoise.evaluation.pie.TYPES`.
        picture: its number in the test split.
        old: the part of its caption that changes.
        new: what stands there instead.
        mask: "object", "all", or the number of a picture that shows the new caption.
        words: what the edit is about in the old and the new caption, separated by a space; "" if there is no such word.
    """

    type: str
    picture: int
    old: str
    new: str
    mask: str | int = "object"
    words: str = ""


EDITS = (
    Edit("0", 3, "curry rice", "spaghetti", words="rice spaghetti"),
    Edit("0", 134, "doughnut", "pineapple", words="doughnut pineapple"),
    Edit("0", 74, "hotel", "hospital", words="hotel hospital"),
    Edit("1", 102, "pear", "red apple", words="pear apple"),
    Edit("1", 287, "bird", "butterfly", words="bird butterfly"),
    Edit("1", 128, "dog", "cat", words="dog cat"),
    Edit("1", 108, "beetle", "snail", words="beetle snail"),
    Edit("2", 164, "envelope", "envelope with arrow", 214, "envelope arrow"),
    Edit("2", 45, "full moon", "full moon face", 11, "moon face"),
    Edit("2", 6, "grinning face", "face with monocle", 27, "face monocle"),
    Edit("3", 214, "envelope with arrow", "envelope", 164, "arrow envelope"),
    Edit("3", 281, "sun behind cloud", "cloud", words="sun cloud"),
    Edit("3", 254, "bell with slash", "bell", words="slash bell"),
    Edit("4", 87, "smiling face with smiling eyes", "frowning face", 121, "smiling frowning"),
    Edit("4", 299, "slightly smiling", "angry", 76, "smiling angry"),
    Edit("4", 197, "cat with wry smile", "smiling cat with heart-eyes", 105, "cat cat"),
    Edit("5", 73, "seven", "ten", 260, "seven ten"),
    Edit("5", 286, "five", "eight", 312, "five eight"),
    Edit("6", 35, "red", "green", words="red green"),
    Edit("6", 273, "black", "red", words="black red"),
    Edit("6", 179, "green", "blue", words="green blue"),
    Edit("9", 230, "fluent style", "noto style", "all"),
    Edit("9", 329, "blob", "twemoji", "all"),
    Edit("9", 5, "blob", "fluent flat", "all"),
)


def mask(images: list[Image.Image], edit: Edit) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Where a picture is to be edited, [512, 512]."""
    own = np.asarray(images[edit.picture]).astype(int)
    if edit.mask == "all":
        return np.ones((SIDE, SIDE), dtype=np.bool_)
    if isinstance(edit.mask, int):
        found = np.abs(own - np.asarray(images[edit.mask]).astype(int)).max(-1) > DIFFERENT
    else:
        found = own.min(-1) < 255 - NEAR_WHITE
    margin = len(own) // AROUND
    near = Image.fromarray(found).convert("L").filter(ImageFilter.MaxFilter(2 * margin + 1))
    return np.asarray(near.resize((SIDE, SIDE), Image.Resampling.NEAREST)) > 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder to write; what is in it is replaced")
    output = parser.parse_args().output
    shutil.rmtree(output / IMAGES, ignore_errors=True)
    chosen = pictures.load("test")
    images, counts = to_pil(chosen.pixels), Counter(edit.type for edit in EDITS)
    entries: dict[str, dict[str, Any]] = {}
    for number, edit in enumerate(EDITS):
        caption = chosen.captions[edit.picture]
        if edit.old not in caption:
            raise ValueError(f"picture {edit.picture} is {caption!r}, in which there is no {edit.old!r}")
        name = f"{edit.type}{number:011d}"
        path = Path(f"{edit.type}_{FOLDERS[edit.type]}_{counts[edit.type]}/{name}.jpg")
        (output / IMAGES / path).parent.mkdir(parents=True, exist_ok=True)
        large = images[edit.picture].resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        large.save(output / IMAGES / path, quality=90, optimize=True)
        entries[name] = {
            "image_path": str(path),
            "original_prompt": caption.replace(edit.old, f"[{edit.old}]", 1),
            "editing_prompt": caption.replace(edit.old, f"[{edit.new}]", 1),
            "editing_instruction": f"Turn {edit.old} into {edit.new}",
            "editing_type_id": edit.type,
            "blended_word": edit.words,
            "mask": encode(mask(images, edit)),
        }
    (output / MAPPING).write_text(json.dumps(entries) + "\n")
    captioned = [
        {"file_name": f"{IMAGES}/{entry['image_path']}", "text": entry["original_prompt"].translate(_BRACKETS)}
        for entry in entries.values()
    ]
    (output / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in captioned))


if __name__ == "__main__":
    main()
