"""Edits that somebody might ask for: a red heart turned blue, a cat's face into a dog's, a picture in another style.

benchmarks/pictures/natural-edits.json groups concepts that a local change turns into one another: another colour,
expression, kind of animal, vehicle, flower. A held-out picture whose concept is in a group is edited into another
concept of that group, in its own style, and into another style with its own concept.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks import pictures

__all__ = ["NaturalEdit", "natural_edits"]


@dataclass(frozen=True)
class NaturalEdit:
    """One edit of one held-out picture.

    Attributes:
        picture: number of the picture in its split.
        kind: "concept" or "style".
        concept, style: of the picture.
        new_concept, new_style: what is asked for; one of them is the picture's own.
    """

    picture: int
    kind: str
    concept: str
    style: str
    new_concept: str
    new_style: str

    @property
    def source_prompt(self) -> str:
        return f"{self.concept}, {self.style} style"

    @property
    def prompt(self) -> str:
        return f"{self.new_concept}, {self.new_style} style"


def natural_edits(split: str, styles: tuple[str, ...]) -> list[NaturalEdit]:
    """All edits of a split, in the order of its pictures, a concept and a style for each.

    Args:
        split: "validation" or "test".
        styles: that the models know.
    """
    groups: dict[str, list[str]] = json.loads((pictures.FOLDER / "natural-edits.json").read_text())
    chosen = pictures.load(split, pictures.LARGEST)  # for their captions alone
    return list(_edits(chosen, list(groups.values()), styles))


def _edits(chosen: pictures.PictureSet, groups: list[list[str]], styles: tuple[str, ...]) -> Iterator[NaturalEdit]:
    turn = 0
    for number, (concept, style) in enumerate(zip(chosen.concepts, chosen.styles, strict=True)):
        group = next((members for members in groups if concept in members), None)
        if group is None:
            continue
        others = [member for member in group if member != concept]
        manners = [other for other in styles if other != style]
        yield NaturalEdit(number, "concept", concept, style, others[turn % len(others)], style)
        yield NaturalEdit(number, "style", concept, style, concept, manners[turn % len(manners)])
        turn += 1
