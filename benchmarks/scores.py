"""What is recorded of each picture: fidelity, statistics of latents and noise, and the success of two kinds of edit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks import pictures
from benchmarks.runs import Run
from renoise import metrics
from renoise.core.correction import whiteness
from renoise.judge import Judge

__all__ = ["COLUMNS", "Edits", "edited", "failed", "reconstructed"]

FIDELITY = ("psnr_round_trip", "psnr_image", "ssim", "ceiling")
NOISE = ("z_std", "z_neighbour", "noise_std", "noise_std_furthest", "noise_neighbour", "noise_travel")
EDITS = (
    *("concept_hit", "concept_target", "concept_source", "concept_psnr"),
    *("style_hit", "style_target", "style_kept", "style_psnr"),
)
COLUMNS = ("finite", *FIDELITY, *NOISE, *EDITS)

Scores = dict[str, Tensor]  # column: [batch]


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


def reconstructed(run: Run) -> Scores:
    """Fidelity, and how far z_T and the noise are from white noise, one score per picture [batch] in each column.

    `z_std` is in units of sqrt(alpha^2 + sigma^2) at the noisiest level, so 1 for white noise.  The noise columns are
    means over the steps that draw noise.  `noise_std_furthest` is the standard deviation at the step where it is
    furthest from 1.  `noise_travel` is the RMS over these steps of how far the noise moved towards a residual, as a
    share of the length of white noise.  It measures side information.
    """
    inversion = run.inversion
    found, ceiling, z_T = run.generate(inversion.scene.prompts or ()), inversion.round_trip(), inversion.latents  # noqa: N806
    size = torch.hypot(inversion.table.alpha[0], inversion.table.sigma[0]).item()
    white = whiteness(z_T)
    scores = {
        "finite": torch.ones(len(found)),
        "psnr_round_trip": metrics.psnr(found, ceiling),
        "psnr_image": metrics.psnr(found, inversion.pixels),
        "ssim": metrics.ssim(found, inversion.pixels),
        "ceiling": metrics.psnr(ceiling, inversion.pixels),
        "z_std": white.std / size,
        "z_neighbour": white.neighbour,
    }
    noises, steps = inversion.trajectory.noises, inversion.table.n.nonzero().flatten().tolist()
    if noises is None or not steps:
        return scores
    each = [whiteness(noises[step]) for step in steps]
    std = torch.stack([noise.std for noise in each])
    furthest = (std - 1).abs().argmax(0)
    moved = [step.noise_travel for step in inversion.trajectory.steps if step.noise_travel is not None]
    return scores | {
        "noise_std": std.mean(0),
        "noise_std_furthest": std.gather(0, furthest[None])[0],
        "noise_neighbour": torch.stack([noise.neighbour for noise in each]).mean(0),
        "noise_travel": (torch.stack(moved).square().sum(0) / len(steps)).sqrt() if moved else 0 * std[0],
    }


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


def failed(count: int) -> Scores:
    """Scores of pictures that could not be inverted or generated: 0 dB, so that they count in every mean."""
    return {name: torch.zeros(count) for name in ("finite", *FIDELITY[:3])}


def _at(likely: Tensor, names: tuple[str, ...], wanted: list[str]) -> Tensor:
    """Of probabilities [batch, name], those of one wanted name per picture [batch]."""
    return likely[range(len(wanted)), [names.index(name) for name in wanted]]
