"""Stage 1: render the emoji of seven public npm packages and write captions and splits.

    npm install --prefix WORK/npm $(python -m training.data --packages)
    python -m training.data --work WORK

Writes WORK/data/images.npy (N, 128, 128, 3) uint8 on white and WORK/data/manifest.json, one row an image.
The split is a hash of "pack/name", so it does not move when a package gains icons.
"""

import argparse
import hashlib
import io
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

SIZE = 128
MARGIN = 0.03
GROUPS = (0, 3, 4, 5, 6, 7)  # emojibase: smileys, animals and nature, food, travel, activities, objects
STYLES = {
    "noto": "noto",
    "twemoji": "twemoji",
    "openmoji": "openmoji",
    "fluent-emoji-flat": "fluent flat",
    "fluent-emoji": "fluent",
    "noto-v1": "blob",
}
UNSEEN_ARTIST = "emojione"
PACKAGES = [f"@iconify-json/{pack}" for pack in (*STYLES, UNSEEN_ARTIST)] + ["emojibase-data"]


@dataclass(frozen=True)
class Row:
    """One picture: where it comes from, what it shows and which split it belongs to."""

    pack: str
    name: str
    style: str
    label: str
    tags: tuple[str, ...]
    split: str  # train, validation, test, artist


def icon_name(label: str) -> str:
    """The icon-set spelling of an emojibase label: "twelve o’clock" -> "twelve-oclock"."""
    plain = label.lower().replace("’", "").replace("'", "")
    return re.sub(r"[^a-z0-9ñéãôíç]+", "-", plain).strip("-")


def split_of(pack: str, name: str) -> str:
    if pack == UNSEEN_ARTIST:
        return "artist"
    bucket = int(hashlib.sha256(f"{pack}/{name}".encode()).hexdigest(), 16) % 20
    return {0: "validation", 1: "test"}.get(bucket, "train")


def find_icon(icons: dict[str, Any], aliases: dict[str, Any], name: str) -> dict[str, Any] | None:
    while name in aliases:
        if set(aliases[name]) - {"parent"}:  # a rotated or flipped alias is another picture
            return None
        name = aliases[name]["parent"]
    return icons.get(name)


def render(body: str, width: float, height: float) -> np.ndarray:
    import resvg_py

    pad = MARGIN * max(width, height)
    box = f"{-pad} {-pad} {width + 2 * pad} {height + 2 * pad}"
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{box}" width="{SIZE}" height="{SIZE}">{body}</svg>'
    )
    png = resvg_py.svg_to_bytes(svg_string=svg, width=SIZE, height=SIZE, background="white", skip_system_fonts=True)
    image = Image.open(io.BytesIO(bytes(png))).convert("RGB")
    if image.size != (SIZE, SIZE):
        image = image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    return np.asarray(image)


def collect(node_modules: Path) -> tuple[list[Row], np.ndarray]:
    concepts = [
        entry
        for entry in json.loads((node_modules / "emojibase-data/en/data.json").read_text())
        if entry.get("group") in GROUPS
    ]
    rows, images = [], []
    for pack in (*STYLES, UNSEEN_ARTIST):
        collection = json.loads((node_modules / f"@iconify-json/{pack}/icons.json").read_text())
        for entry in tqdm(concepts, desc=pack):
            name = icon_name(entry["label"])
            icon = find_icon(collection["icons"], collection.get("aliases", {}), name)
            if icon is None:
                continue
            width = icon.get("width", collection.get("width", 16))
            height = icon.get("height", collection.get("height", 16))
            images.append(render(icon["body"], width, height))
            label = entry["label"].lower().replace("’", "").replace(":", "")
            tags = tuple(entry.get("tags", ()))
            rows.append(Row(pack, name, STYLES.get(pack, pack), label, tags, split_of(pack, name)))
    return rows, np.stack(images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/training"))
    parser.add_argument("--packages", action="store_true", help="print the npm packages and stop")
    args = parser.parse_args()
    if args.packages:
        print(" ".join(PACKAGES))
        return
    rows, images = collect(args.work / "npm/node_modules")
    folder = args.work / "data"
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "images.npy", images)
    (folder / "manifest.json").write_text(json.dumps([asdict(row) for row in rows], ensure_ascii=False, indent=0))
    counts = {split: sum(row.split == split for row in rows) for split in ("train", "validation", "test", "artist")}
    print(f"{len(rows)} pictures of {len({row.label for row in rows})} concepts: {counts}")


if __name__ == "__main__":
    main()
