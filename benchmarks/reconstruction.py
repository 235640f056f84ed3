"""Reconstruction and editing of held-out emoji, for every method of inversion, sampler and number of passes.

    python -m benchmarks.reconstruction                      # 128 pictures of the test split, all samplers, docs
    python -m benchmarks.reconstruction --docs-only          # tables and plots again, from the records
    python -m benchmarks.reconstruction --list               # methods with their passes

Records, one row per picture, go to benchmarks/results/reconstruction-*.csv.  They are written for whole methods at a
time, so an interrupted run continues when the same command is given again.  Methods whose settings or weights have
changed since are measured again.

This command runs all pictures of the artist on whose work no model was trained, with some presets and with plain
reversal, below which no preset may fall:

    python -m benchmarks.reconstruction --split artist --count 765 --edits none --only "plain reversal" \\
        --only "few-step, 8 passes" --only "few-step, 16 passes" --only "many-step, 51 passes"
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks import pictures, plots, tables
from benchmarks.methods import SAMPLERS, Method, describe, methods
from benchmarks.records import Records, Row, fingerprint
from benchmarks.runs import run
from benchmarks.scores import COLUMNS, Edits, edited, failed, reconstructed
from renoise import models
from renoise.core.loop import count_passes
from renoise.judge import Judge
from renoise.pipelines.adapter import Adapter

ROOT = Path(__file__).parents[1]
BATCH = 64


def measured(
    pipe: Any, chosen: pictures.PictureSet, first: int, method: Method, edits: Edits | None, judge: Judge
) -> list[Row]:
    """Rows of one batch, whose first picture has the number `first`.

    If a result is not finite, the pictures are run one by one, so that one failure does not affect the others.
    """
    started = time.perf_counter()
    try:
        found = run(pipe, chosen, first, method)
        seconds = (time.perf_counter() - started) / len(chosen)
        scores = reconstructed(found)
        if edits is not None:
            scores |= edited(found, chosen, edits, judge, method.settings.guidance_scale)
        passes, backward = found.inversion.passes, found.backward
        side = any(step.noise_travel is not None for step in found.inversion.trajectory.steps)
    except ValueError as error:
        if "not finite" not in str(error):
            raise
        if len(chosen) > 1:
            alone = [(i, chosen.part(i, i + 1), edits and edits.part(i, i + 1)) for i in range(len(chosen))]
            return [row for i, one, its in alone for row in measured(pipe, one, first + i, method, its, judge)]
        seconds, passes, backward, side, scores = 0.0, 0, 0, False, failed(1)
    common = {"passes": passes, "backward": backward, "seconds": round(seconds, 4), "side_information": int(side)}
    return [
        {"number": first + i, "picture": caption}
        | common
        | {name: round(float(scores[name][i]), 5) if name in scores else "" for name in COLUMNS}
        for i, caption in enumerate(chosen.captions)
    ]


def passes_of(pipe: Any, method: Method) -> int:
    """Forward passes per picture that an inversion by this method takes."""
    table = Adapter(pipe).schedule(method.fine or method.settings.num_inference_steps)
    return count_passes(table, method.settings)


def chosen_methods(args: argparse.Namespace) -> Iterator[tuple[str, Method, bool]]:
    """What the arguments ask for: name of the sampler, method, and whether its edits are made."""
    for name in args.sampler or SAMPLERS:
        few_step = SAMPLERS[name].few_step
        for method in methods(SAMPLERS[name]):
            if args.only and method.name not in args.only:
                continue
            wanted = args.edits or ("all" if few_step else "few")
            yield name, method, wanted == "all" or (wanted == "few" and method.handful)


def check(rows: list[dict[str, str]]) -> str:
    """A text: how many pictures failed, and for each method how many are worse than with plain reversal."""
    lines = [f"{sum(float(row['finite']) == 0 for row in rows)} of {len(rows)} results are not finite"]
    floor = {(row["sampler"], row["number"]): row for row in rows if row["method"] == "plain reversal"}
    for sampler, method in dict.fromkeys((row["sampler"], row["method"]) for row in rows):
        mine = [row for row in rows if (row["sampler"], row["method"]) == (sampler, method)]
        pairs = [(row, floor[sampler, row["number"]]) for row in mine if (sampler, row["number"]) in floor]
        worse = sum(float(own["psnr_round_trip"]) < float(base["psnr_round_trip"]) for own, base in pairs)
        if method != "plain reversal" and pairs:
            lines.append(f"{sampler}, {method}: {worse} of {len(pairs)} pictures are worse than their plain reversal")
    return "\n".join(lines)


def measure(args: argparse.Namespace, records: Records) -> None:
    """Measure what the arguments ask for and the records do not hold yet, and add it to the records."""
    judge, chosen = models.judge(), pictures.load(args.split).first(args.count)
    edits = Edits.of(chosen, judge)
    for sampler in args.sampler or SAMPLERS:
        pipe = models.load(SAMPLERS[sampler].model, dtype=args.dtype, scheduler=SAMPLERS[sampler].scheduler)
        pipe.set_progress_bar_config(disable=True)
        weights = fingerprint(pipe.unet)
        for name, method, wants_edits in chosen_methods(args):
            depends = f"{describe(method)}; edits {wants_edits}; weights {weights}"
            if name != sampler or records.has(sampler, method.name, depends):
                continue
            rows: list[Row] = []
            with tqdm(
                total=len(chosen) * passes_of(pipe, method), desc=f"{sampler}: {method.name}", unit="pass"
            ) as bar:
                for start in range(0, len(chosen), BATCH):
                    part = chosen.part(start, start + BATCH)
                    its = edits.part(start, start + BATCH) if wants_edits else None
                    rows += measured(pipe, part, start, method, its, judge)
                    bar.update(bar.total * len(part) // len(chosen))
            block = {"sampler": sampler, "method": method.name, "family": method.family}
            records.add(sampler, method.name, depends, [block | dict(row) for row in rows])


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
        help="whose edits to make; by default all with few-step samplers, few with others",
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
    (docs / f"reconstruction-table{suffix}.md").write_text(source + tables.page(rows))
    plots.reconstruction(rows, docs / f"pictures/reconstruction{suffix}.png")


def show(asked: list[tuple[str, Method, bool]]) -> None:
    """Print the methods that the arguments ask for, with their passes per picture."""
    for sampler in dict.fromkeys(name for name, _, _ in asked):
        pipe = models.load(SAMPLERS[sampler].model, scheduler=SAMPLERS[sampler].scheduler)
        total = 0
        for method, edits in ((method, edits) for name, method, edits in asked if name == sampler):
            steps = method.settings.num_inference_steps
            guided = 2 if method.settings.guidance_scale > 1 else 1
            backward = passes_of(pipe, method) if method.gradients else 0
            evaluations = passes_of(pipe, method) + 2 * backward + steps * (1 + 2 * guided * edits)
            total += evaluations
            print(f"{sampler:26s} {method.name:40s} {passes_of(pipe, method):4d} passes{', edited' if edits else ''}")
        print(
            f"{sampler}: about {total} network evaluations per picture (with generation; a backward pass counts as 2)\n"
        )


if __name__ == "__main__":
    main()
