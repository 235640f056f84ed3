"""Reconstruction and editing of held-out emoji, for every method of inversion, sampler and number of passes.

    python -m benchmarks.reconstruction                      # 128 pictures of the test split, all samplers, docs
    python -m benchmarks.reconstruction --docs-only          # tables and plots again, from the records
    python -m benchmarks.reconstruction --list               # methods with their passes

Records, one row per picture, go to benchmarks/results/reconstruction-*.csv.  They are written for whole methods at a
time, so an interrupted run continues when the same command is given again.  Methods whose settings or weights have
changed since are measured again.

This command runs all 765 pictures of the artist on whose work no model was trained, with some presets and with plain
reversal, below which no preset may fall:

    python -m benchmarks.reconstruction --split artist --count 765 --edits none --only "plain reversal" \\
        --only "few-step, 8 passes" --only "few-step, 16 passes" --only "many-step, 51 passes"
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks import edits, methods, pictures
from benchmarks.edits import Edits
from benchmarks.methods import SAMPLERS
from renoise import models, shipped
from renoise.evaluation import plots, tables
from renoise.evaluation.methods import Method, describe
from renoise.evaluation.reconstruction import COLUMNS, Captioned, check, measured, passes_of
from renoise.evaluation.records import Records, Row, fingerprint
from renoise.evaluation.runs import Run
from renoise.evaluation.scores import Scores
from renoise.images import to_pil

ROOT = Path(__file__).parents[1]
BATCH = 64


def chosen_methods(args: argparse.Namespace) -> Iterator[tuple[str, Method, bool]]:
    """What the arguments ask for: name of the sampler, method, and whether its edits are made."""
    for name in args.sampler or SAMPLERS:
        for method in methods.methods(SAMPLERS[name]):
            if args.only and method.name not in args.only:
                continue
            few = args.edits == "few" and methods.edited(SAMPLERS[name], method)
            yield name, method, few or args.edits == "all"


def measure(args: argparse.Namespace, records: Records) -> None:
    """Measure what the arguments ask for and the records do not hold yet, and add it to the records."""
    judge, chosen = models.judge(), pictures.load(args.split).first(args.count)
    both = Edits.of(chosen, judge)
    listed = [
        Captioned(number, caption, image, caption)
        for number, (image, caption) in enumerate(zip(to_pil(chosen.pixels), chosen.captions, strict=True))
    ]

    def with_edits(run: Run, batch: Sequence[Captioned]) -> Scores:
        first, last = batch[0].number, batch[-1].number + 1
        guidance = run.inversion.settings.guidance_scale
        return edits.edited(run, chosen.part(first, last), both.part(first, last), judge, guidance)

    for sampler in args.sampler or SAMPLERS:
        pipe = models.load(SAMPLERS[sampler].model, dtype=args.dtype, scheduler=SAMPLERS[sampler].scheduler)
        pipe.set_progress_bar_config(disable=True)
        if shipped.loras(SAMPLERS[sampler].model):
            pipe.fuse_lora()  # a pass takes two thirds of the time then
        weights = fingerprint(pipe.unet)
        for name, method, wants_edits in chosen_methods(args):
            depends = f"{describe(method)}; edits {wants_edits}; weights {weights}"
            if name != sampler or records.has(depends, sampler, method.name):
                continue
            rows: list[Row] = []
            more = with_edits if wants_edits else None
            total = len(chosen) * passes_of(pipe, method)
            with tqdm(total=total, desc=f"{sampler}: {method.name}", unit="pass") as bar:
                for start in range(0, len(listed), BATCH):
                    part = listed[start : start + BATCH]
                    rows += measured(pipe, part, method, more=more, columns=(*COLUMNS, *edits.COLUMNS))
                    bar.update(total * len(part) // len(chosen))
            block = {"sampler": sampler, "method": method.name, "family": method.family}
            records.add(depends, [block | dict(row) for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", default="test", choices=pictures.SPLITS)
    parser.add_argument("--count", type=int, default=128, help="how many pictures, from the first on")
    parser.add_argument("--dtype", default="float32", help="precision of the networks")
    parser.add_argument("--sampler", action="append", choices=list(SAMPLERS), help="only this sampler; can be repeated")
    parser.add_argument("--only", action="append", metavar="NAME", help="only this method; can be repeated")
    parser.add_argument(
        "--edits",
        choices=["few", "all", "none"],
        default="few",
        help="whose edits to make; by default those of one or two methods of a family",
    )
    parser.add_argument("--output", type=Path, default=ROOT, help="folder for benchmarks/results and docs")
    parser.add_argument("--docs-only", action="store_true", help="only make tables and plots from the records")
    parser.add_argument("--list", action="store_true", help="print methods and passes, and measure nothing")
    args = parser.parse_args()
    asked = list(chosen_methods(args))
    unknown = set(args.only or ()) - {method.name for _, method, _ in asked}
    if unknown:
        parser.error(f"no method is called {', '.join(sorted(unknown))}: --list prints their names")
    if args.list:
        show(asked)
        return
    name = f"reconstruction-{args.split}{args.count}-{args.dtype}-torch{torch.__version__}"
    records = Records(args.output / "benchmarks/results" / f"{name}.csv")
    if not args.docs_only:
        measure(args, records)
    rows = sorted(
        records.rows(), key=lambda row: list(SAMPLERS).index(row["sampler"])
    )  # in a fixed order of the samplers
    print(check(rows))
    suffix = "" if args.split == "test" else f"-{args.split}{args.count}"
    docs = args.output / "docs"
    (docs / "pictures").mkdir(parents=True, exist_ok=True)
    command = f"python -m benchmarks.reconstruction --split {args.split} --count {args.count} --dtype {args.dtype}"
    source = f"<!-- {command}; records: benchmarks/results/{name}.csv -->\n"
    (docs / f"reconstruction-table{suffix}.md").write_text(source + tables.page(rows, edits.table))
    plots.reconstruction(rows, docs / f"pictures/reconstruction{suffix}.png", methods.STYLE)


def show(asked: list[tuple[str, Method, bool]]) -> None:
    """Print the methods that the arguments ask for, with their passes per picture."""
    for sampler in dict.fromkeys(name for name, _, _ in asked):
        pipe = models.load(SAMPLERS[sampler].model, scheduler=SAMPLERS[sampler].scheduler)
        total = 0
        for method, edited in ((method, edited) for name, method, edited in asked if name == sampler):
            steps = method.settings.num_inference_steps
            guided = 2 if method.settings.guidance_scale > 1 else 1
            backward = passes_of(pipe, method) if method.gradients else 0
            evaluations = passes_of(pipe, method) + 2 * backward + steps * (1 + 2 * guided * edited)
            total += evaluations
            print(f"{sampler:26s} {method.name:40s} {passes_of(pipe, method):4d} passes{', edited' if edited else ''}")
        print(
            f"{sampler}: about {total} network evaluations per picture (with generation; a backward pass counts as 2)\n"
        )


if __name__ == "__main__":
    main()
