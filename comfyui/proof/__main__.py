"""Runs the checks in a real ComfyUI and writes a table of what came out."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image, ImageOps
from safetensors.torch import save_file

import renoise
from comfyui.proof.checks import CHECKS, PICTURES, Results
from comfyui.proof.launch import register_operators
from comfyui.proof.pictures import example
from comfyui.proof.server import running

PACK = Path(__file__).parents[1]
INTRODUCTION = """# In a real ComfyUI

<!-- written by: python -m comfyui.proof --comfy /path/to/ComfyUI --table docs/comfyui-table.md -->

Everything here ran through ComfyUI's HTTP API and its own executor, on a CPU. Distances are the largest difference over
the largest value. [What it means](comfyui.md).
"""
TITLES = {
    "package": "The shipped model, against the package",
    "tiny": "Random weights of other kinds, with patches",
    "edits": "Edits",
    "files": "Files",
    "refusals": "What is refused",
    "manners": "Cancel, and the report",
}


def inputs(folder: Path) -> None:
    """Pictures and latents for the workflows."""
    apple = example()
    changed = (
        apple,
        ImageOps.mirror(apple),
        apple.rotate(90),
        Image.blend(apple, Image.new("RGB", apple.size, "white"), 0.4),
    )
    for name, picture in zip(PICTURES, changed, strict=True):
        picture.save(folder / name)
    mask = Image.new("L", apple.size)
    mask.paste(255, (0, 0, apple.width // 2, apple.height))
    mask.convert("RGB").save(folder / "left-half.png")
    apple.resize((192, 128)).save(folder / "hint.png")
    draw = torch.Generator().manual_seed(7)
    for name, shape in (("tiny-sd", (2, 4, 8, 12)), ("tiny-sd3", (2, 16, 8, 12))):
        coarse = torch.randn(*shape[:2], 4, 6, generator=draw)
        smooth = torch.nn.functional.interpolate(coarse, shape[2:], mode="bicubic") * 4
        tensors = {"latent_tensor": smooth.contiguous(), "latent_format_version_0": torch.tensor([])}
        save_file(tensors, folder / f"{name}.latent")


def kept(page: Path, name: str, section: str) -> None:
    """Puts the section of a group of checks into the page, in place of an earlier one of the same title."""
    sections = page.read_text().split("\n## ")[1:] if page.exists() else []
    known = {part.split("\n", 1)[0]: f"## {part.rstrip()}\n" for part in sections} | {TITLES[name]: section}
    page.write_text("\n".join([INTRODUCTION, *(known[title] for title in TITLES.values() if title in known)]))


def main() -> int:
    """Runs the checks; 1 where one fails."""
    parser = argparse.ArgumentParser(prog="python -m comfyui.proof", description=__doc__)
    parser.add_argument(
        "--comfy", type=Path, required=True, help="folder of a ComfyUI, whose requirements are installed"
    )
    parser.add_argument("--keep", type=Path, help="folder for all files of the run; by default a temporary one")
    parser.add_argument("--table", type=Path, help="where to write the table")
    parser.add_argument("--only", choices=list(CHECKS), action="append", help="these checks alone")
    given = parser.parse_args()
    operators = register_operators()  # noqa: F841 - torchvision looks for them later too
    failed = False
    with tempfile.TemporaryDirectory() as temporary:
        base = given.keep or Path(temporary)
        (base / "input").mkdir(parents=True, exist_ok=True)
        inputs(base / "input")
        started = time.monotonic()
        with running(given.comfy.resolve(), base, PACK) as server:
            stats = server.get("/system_stats")["system"]
            versions = (
                f"ComfyUI {stats['comfyui_version']}, torch {stats['pytorch_version']}, renoise {renoise.__version__}"
            )
            print(f"{versions}; started in {time.monotonic() - started:.0f} s", flush=True)
            for name in given.only or CHECKS:
                results = Results()
                CHECKS[name](server, results)
                failed |= not all(good for *_, good in results.rows)
                if given.table:
                    kept(given.table, name, results.section(TITLES[name], versions))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
