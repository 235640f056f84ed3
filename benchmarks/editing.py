"""Editing of held-out emoji: what is asked for against what is kept, for every method.

    python -m benchmarks.editing                           # the test split, two seeds, all samplers, docs
    python -m benchmarks.editing --split validation --seeds 1 --count 40 --output build/editing   # while tuning
    python -m benchmarks.editing --docs-only               # table, plot and sheets again, from the records

The edits are those of `benchmarks.natural_edits`, one of the concept and one of the style for each picture.  Records,
one row per edit, go to benchmarks/results/editing-*.csv, one sampler and seed at a time: an interrupted run continues
there when the same command is given again.  Edited pictures go to build/editing, for the sheets of the worst cases.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks import editing_report, pictures
from benchmarks.edit_methods import SAMPLERS, Batch, EditMethod, edit_methods
from benchmarks.natural_edits import NaturalEdit, natural_edits
from renoise import images, metrics, models
from renoise.core import gate
from renoise.edit_controls import PRESERVE
from renoise.evaluation.records import Records, Row, fingerprint
from renoise.judge import Judge
from renoise.masks import AUTO_SHARE
from renoise.pipelines.adapter import Adapter

ROOT = Path(__file__).parents[1]
SHOWN = ROOT / "build/editing"  # of each split
BATCH = 32
CLOSE = 0.06
"""A pixel stays if no channel moves by more than this."""
MANY_STEPS = 60
"""How many pictures many-step models edit at most: a picture takes them ten times as long."""

_CONSTANTS = f"dial {PRESERVE}, power {gate.POWER}, top {gate.TOP}, automatic {AUTO_SHARE}"


def score(edits: Sequence[NaturalEdit], source: Tensor, trip: Tensor, new: Tensor, judge: Judge) -> dict[str, Tensor]:
    """One score per edit in each column.

    Args:
        edits: what was asked for.
        source, trip, new: the pictures, what the auto-encoder makes of them, and the edited ones [batch, 3, h, w].
        judge: of concepts and styles.

    Returns:
        `hit`: the judge's first guess is the new concept, or the new style.  `top5`: the concept that is asked for is
        among its first five.  `gone`: the old concept, or the old style, is not its first guess any more.  `kept`: its
        first guess is the concept that is asked for (after an edit of the style, the old one).  `same`: the share of
        the object's pixels that stay within `CLOSE` of what the auto-encoder makes of them; the object is what is not
        white.  `background`: the same share of the white pixels.  `psnr` and `ssim` to the source.
    """
    concepts, styles = judge.concept_probabilities(new), judge.style_probabilities(new)
    wanted = torch.tensor([judge.concepts.index(edit.new_concept) for edit in edits])
    old = torch.tensor([judge.concepts.index(edit.concept) for edit in edits])
    manner = torch.tensor([judge.styles.index(edit.new_style) for edit in edits])
    old_manner = torch.tensor([judge.styles.index(edit.style) for edit in edits])
    of_concept = torch.tensor([edit.kind == "concept" for edit in edits])
    concept, style = concepts.argmax(1), styles.argmax(1)
    close = (new - trip).abs().amax(1) <= CLOSE
    object_ = (1 - source).amax(1) > CLOSE

    def share(where: Tensor) -> Tensor:
        return (close & where).flatten(1).sum(1) / where.flatten(1).sum(1).clamp(min=1)

    return {
        "hit": torch.where(of_concept, concept == wanted, style == manner).float(),
        "top5": (concepts.topk(5).indices == wanted[:, None]).any(1).float(),
        "gone": torch.where(of_concept, concept != old, style != old_manner).float(),
        "kept": (concept == wanted).float(),
        "same": share(object_),
        "background": share(~object_),
        "psnr": metrics.psnr(new, source),
        "ssim": metrics.ssim(new, source),
    }


def measure(args: argparse.Namespace, records: Records) -> None:
    """Measure what the records do not hold yet."""
    judge, held_out = models.judge(), pictures.load(args.split)
    for name in args.sampler or SAMPLERS:
        sampler = SAMPLERS[name]
        pipe = models.load(sampler.model)
        pipe.set_progress_bar_config(disable=True)
        weights = fingerprint(pipe.unet)
        edits = natural_edits(args.split, judge.styles)
        numbers = sorted({edit.picture for edit in edits})
        few_step = sampler.default.num_inference_steps < 10
        count = args.count if few_step else min(args.count or MANY_STEPS, MANY_STEPS)
        numbers = numbers[:count]
        for seed in range(args.seeds if few_step else 1):
            depends = {
                method.name: f"{method.name}; {sampler}; {len(numbers)} pictures; weights {weights}; {_CONSTANTS}"
                for method in edit_methods(sampler)
            }
            todo = [
                method
                for method in edit_methods(sampler)
                if (not args.only or method.name in args.only)
                and not records.has(depends[method.name], name, method.name, str(seed))
            ]
            rows: dict[str, list[Row]] = {method.name: [] for method in todo}
            with tqdm(total=len(numbers) * 2 * len(todo), desc=f"{name}, seed {seed}", unit="edit") as bar:
                for start in range(0, len(numbers), BATCH):
                    chosen = numbers[start : start + BATCH]
                    _measure_batch(
                        pipe, args.split, name, seed, held_out.pixels[chosen], edits, chosen, todo, judge, rows, bar
                    )
            for method in todo:
                records.add(depends[method.name], rows[method.name])


def _measure_batch(
    pipe: object,
    split: str,
    name: str,
    seed: int,
    source: Tensor,
    edits: Sequence[NaturalEdit],
    numbers: Sequence[int],
    methods: Sequence[EditMethod],
    judge: Judge,
    rows: dict[str, list[Row]],
    bar: tqdm,
) -> None:
    codec = Adapter(pipe).codec
    height, width = source.shape[-2:]
    trip = codec.decode(codec.encode(source), (height, width))
    inversions: dict[str, object] = {}
    for kind in ("concept", "style"):
        mine = [edit for edit in edits if edit.kind == kind and edit.picture in numbers]
        batch = Batch(
            pipe,
            SAMPLERS[name],
            source,
            [edit.source_prompt for edit in mine],
            [edit.prompt for edit in mine],
            seed,
            inversions,  # type: ignore[arg-type]
        )
        for method in methods:
            new, passes = method.make(batch)
            scores = {key: values.tolist() for key, values in score(mine, source, trip, new, judge).items()}
            _keep(new, split, name, seed, method, mine)
            for number, edit in enumerate(mine):
                rows[method.name].append(
                    {
                        "sampler": name,
                        "method": method.name,
                        "seed": seed,
                        "family": method.family,
                        "picture": edit.picture,
                        "kind": edit.kind,
                        "from": edit.source_prompt,
                        "to": edit.prompt,
                        "passes": passes,
                        **{key: f"{values[number]:.5g}" for key, values in scores.items()},
                    }
                )
            bar.update(len(mine))


def _keep(new: Tensor, split: str, name: str, seed: int, method: EditMethod, edits: Sequence[NaturalEdit]) -> None:
    folder = editing_report.folder_of(SHOWN / split, name, str(seed), method.name)
    folder.mkdir(parents=True, exist_ok=True)
    for picture, edit in zip(images.to_pil(new), edits, strict=True):
        picture.save(folder / f"{edit.picture}-{edit.kind}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--count", type=int, help="pictures; by default all that have a natural edit")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--sampler", action="append", choices=tuple(SAMPLERS))
    parser.add_argument("--only", action="append", metavar="METHOD", help="measure these methods alone")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results")
    parser.add_argument("--docs-only", action="store_true", help="write the page from the records, measure nothing")
    args = parser.parse_args()
    records = Records(args.output / f"editing-{args.split}.csv", ("sampler", "method", "seed"))
    if not args.docs_only:
        measure(args, records)
    docs = ROOT / "docs" if args.output == ROOT / "benchmarks/results" else args.output
    print(editing_report.write(records.rows(), docs, args.split, SHOWN / args.split))


if __name__ == "__main__":
    main()
