"""The pictures of docs/controls.md: which control of an edit does what, one strip per control.

    python -m benchmarks.controls [--output docs/pictures]

Three natural edits (`benchmarks.natural_edits`) of held-out test pictures on emoji-turbo, each with the default preset.
They were picked by eye, because they show the controls clearly; benchmarks/editing.py measures edits of all pictures.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import renoise
from benchmarks import pictures
from benchmarks.natural_edits import NaturalEdit, natural_edits
from renoise import images, models
from renoise.figures import grid

PICTURES = (6, 13, 24)  # numbers in the test split
LIMIT = 120_000  # bytes of a picture

Columns = dict[str, list[Any]]  # title: a picture per row


@dataclass(frozen=True)
class Edits:
    """The pictures, inverted, and what they shall become.

    Attributes:
        chosen: one edit per picture.
        originals: the pictures.
        inversion: of all of them.
    """

    chosen: list[NaturalEdit]
    originals: list[Image.Image]
    inversion: renoise.Inversion

    @property
    def prompts(self) -> list[str]:
        return [edit.prompt for edit in self.chosen]

    def made(self, **controls: Any) -> list[renoise.Edited]:
        """One edited picture per row."""
        edits: list[renoise.Edited] = self.inversion.edit(self.prompts, **controls)
        return edits


def prepared() -> Edits:
    """Inverts the pictures."""
    pipe, styles, split = models.load("emoji-turbo"), models.judge().styles, pictures.load("test")
    wanted = {edit.picture: edit for edit in natural_edits("test", styles) if edit.kind == "concept"}
    chosen = [wanted[number] for number in PICTURES]
    originals = images.to_pil(split.pixels[list(PICTURES)])
    inversion = renoise.invert(pipe, originals, [edit.source_prompt for edit in chosen], keep_latents=True)
    return Edits(chosen, originals, inversion)


def preserve(edits: Edits) -> Columns:
    """From all may change to next to nothing."""
    dials = ("creative", 0.2, "balanced", "faithful", 0.8, 1.0)
    return {f"preserve\n{dial}": edits.made(preserve=dial) for dial in dials}


def strength(edits: Edits) -> Columns:
    """From all steps to the last one."""
    return {f"strength\n{share}": edits.made(strength=share) for share in (1.0, 0.75, 0.5, 0.25)}


def source_guidance(edits: Edits) -> Columns:
    """Away from what the picture shows."""
    dials = (0.0, 0.5, 1.0, 2.0, 4.0)
    return {f"source_guidance\n{w}": edits.made(preserve="balanced", source_guidance=w) for w in dials}


def randomness(edits: Edits) -> Columns:
    """Seeds of fresh noise."""
    columns: Columns = {"randomness\n0": edits.made(preserve="balanced")}
    for share in (0.3, 1.0):
        for seed in (1, 2, 3):
            made = edits.made(preserve="balanced", randomness=share, seed=seed)
            columns[f"{share}\nseed {seed}"] = made
    return columns


def mask(edits: Edits) -> Columns:
    """Masks, and what becomes of them."""
    side = edits.originals[0].height
    lower = np.arange(side)[:, None].repeat(side, 1) >= side // 2
    shrink, feather = side // 16, side // 4
    columns: Columns = {"without\na mask": edits.made()}
    ways: dict[str, dict[str, Any]] = {
        "lower half": {"mask": lower},
        "auto": {"mask": "auto"},
        f"auto,\ngrow -{shrink}": {"mask": "auto", "mask_grow": -shrink},
        f"lower half,\nfeather {feather}": {"mask": lower, "mask_feather": feather},
    }
    for title, controls in ways.items():
        made = edits.made(**controls)
        columns[f"mask:\n{title}" if "\n" not in title else title] = [drawn(edit) for edit in made]
        columns["its edit" + " " * len(columns)] = made
    return columns


def chain(edits: Edits) -> Columns:
    """Another concept first, and then another style."""
    first = edits.made(preserve="balanced")
    styled = [replace(edit, new_style="twemoji").prompt for edit in edits.chosen]
    second = [edit.edit(prompt, preserve="balanced") for edit, prompt in zip(first, styled, strict=True)]
    direct = edits.inversion.edit(styled, preserve="balanced")
    return {"one edit": first, "then twemoji\nstyle": second, "both\nat once": direct}


def drawn_edits(edits: Edits) -> Columns:
    """With and without inversion."""
    columns: Columns = {"inv.edit": edits.made(preserve="balanced")}
    sources = [edit.source_prompt for edit in edits.chosen]
    for seed in (0, 1, 2):
        columns[f"renoise.edit\nseed {seed}"] = renoise.edit(
            edits.inversion.pipe, edits.originals, sources, edits.prompts, preserve="balanced", seed=seed
        )
    return columns


CONTROLS: dict[str, Callable[[Edits], Columns]] = {
    "preserve": preserve,
    "strength": strength,
    "source-guidance": source_guidance,
    "randomness": randomness,
    "mask": mask,
    "chain": chain,
    "drawn": drawn_edits,
}


def drawn(edit: renoise.Edited) -> Image.Image:
    """The mask of an edit as a picture."""
    assert edit.mask is not None
    return Image.fromarray((255 * edit.mask.numpy()).round().astype(np.uint8))


def save(figure: Image.Image, path: Path) -> None:
    """As PNG, with at most 256 colours where it would be too large otherwise."""
    figure.save(path, optimize=True)
    if path.stat().st_size > LIMIT:
        figure.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size} bytes", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("docs/pictures"), help="folder of the pictures")
    parser.add_argument("--only", choices=tuple(CONTROLS), nargs="+", default=tuple(CONTROLS), help="some of them")
    arguments = parser.parse_args()
    edits = prepared()
    titles = [f"{edit.concept} -> {edit.new_concept}" for edit in edits.chosen]
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name in arguments.only:
        columns = {"original": edits.originals, **CONTROLS[name](edits)}
        rows = [[column[row] for column in columns.values()] for row in range(len(titles))]
        save(grid(rows, titles, list(columns)), arguments.output / f"control-{name}.png")
        passes = {title: column[0].passes for title, column in columns.items() if hasattr(column[0], "passes")}
        print(", ".join(f"{' '.join(title.split())}: {count} passes" for title, count in passes.items()), flush=True)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
