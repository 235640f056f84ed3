"""Two kinds of edit of each emoji, how well they succeed as the judge sees it, and their table."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from benchmarks import pictures
from renoise import metrics
from renoise.evaluation.runs import Run
from renoise.evaluation.scores import Scores
from renoise.evaluation.tables import Block, column, markdown, mean, passes, with_interval
from renoise.judge import Judge

__all__ = ["COLUMNS", "Edits", "edited", "table"]

COLUMNS = (
    *("concept_hit", "concept_target", "concept_source", "concept_psnr"),
    *("style_hit", "style_target", "style_kept", "style_psnr"),
)


@dataclass(frozen=True)
class Edits:
    """Two edits of each picture: another concept in its own style, and its own concept in another style.

    Attributes:
        concepts: the other concept of each picture.
        styles: the other style of each picture.
    """

    concepts: list[str]
    styles: list[str]

    @classmethod
    def of(cls, chosen: pictures.PictureSet, judge: Judge) -> Edits:
        """Edits for pictures: the concept of the next picture, and in turn one of the judge's other styles."""
        styles = []
        for i, own in enumerate(chosen.styles):
            others = [style for style in judge.styles if style != own]
            styles.append(others[i % len(others)])
        return cls(chosen.concepts[1:] + chosen.concepts[:1], styles)

    def part(self, start: int, stop: int) -> Edits:
        """The edits of the pictures from `start` to before `stop`."""
        return Edits(self.concepts[start:stop], self.styles[start:stop])


def edited(run: Run, chosen: pictures.PictureSet, edits: Edits, judge: Judge, guidance_scale: float) -> Scores:
    """The judge's probabilities for both edits, their success, and their PSNR to the source.

    `concept_hit` and `style_hit` are 1 if the judge's first choice is what was asked for.  `concept_target` and
    `style_target` are its probabilities of that, and `concept_source` that of the old concept.  `style_kept` is 1 if
    the judge still finds the concept first after an edit of the style.
    """
    pixels = run.inversion.pixels
    new = run.generate([f"{c}, {s} style" for c, s in zip(edits.concepts, chosen.styles, strict=True)], guidance_scale)
    likely = judge.concept_probabilities(new)
    target, source = _at(likely, judge.concepts, edits.concepts), _at(likely, judge.concepts, chosen.concepts)
    scores = {
        "concept_hit": (target == likely.amax(1)).float(),
        "concept_target": target,
        "concept_source": source,
        "concept_psnr": metrics.psnr(new, pixels),
    }
    new = run.generate([f"{c}, {s} style" for c, s in zip(chosen.concepts, edits.styles, strict=True)], guidance_scale)
    likely, kept = judge.style_probabilities(new), judge.concept_probabilities(new)
    target = _at(likely, judge.styles, edits.styles)
    return scores | {
        "style_hit": (target == likely.amax(1)).float(),
        "style_target": target,
        "style_kept": (_at(kept, judge.concepts, chosen.concepts) == kept.amax(1)).float(),
        "style_psnr": metrics.psnr(new, pixels),
    }


def table(blocks: dict[str, Block]) -> str:
    """The Markdown table of the edits of one sampler, or nothing if there are none."""
    made = {name: block for name, block in blocks.items() if column(block, "concept_hit")}
    return "\n### Edits\n\n" + markdown([_line(name, block) for name, block in made.items()]) if made else ""


def _line(name: str, block: Block) -> dict[str, str]:
    return {
        "method": name,
        "passes": str(passes(block)),
        "concept hit": with_interval(column(block, "concept_hit"), 2),
        "p(target)": mean(block, "concept_target", 3),
        "p(source)": mean(block, "concept_source", 3),
        "dB to source": with_interval(column(block, "concept_psnr")),
        "style hit": with_interval(column(block, "style_hit"), 2),
        "p(style)": mean(block, "style_target", 3),
        "concept kept": mean(block, "style_kept", 2),
        "dB to source ": with_interval(column(block, "style_psnr")),
    }


def _at(likely: Tensor, names: tuple[str, ...], wanted: list[str]) -> Tensor:
    """Of probabilities [batch, name], those of one wanted name per picture [batch]."""
    return likely[range(len(wanted)), [names.index(name) for name in wanted]]
