"""Reconstruction and editing of held-out emoji, by sampler and method: the published ablation on the embedded models.

    python -m benchmarks.reconstruction                      # 64 pictures of the test split
    python -m benchmarks.reconstruction --split validation   # for tuning

Writes one CSV row per picture and method to benchmarks/results, the summary to docs/reconstruction.md and a plot of
quality against passes to docs/pictures/reconstruction.png. An edit changes the concept of the caption to that of
another picture, keeping the style; the judge says how likely target and source concept are in what comes out.
"""

import argparse
import csv
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tqdm import tqdm

import renoise
from benchmarks import pictures
from renoise import metrics, models
from renoise.api import measured_table
from renoise.images import to_pil
from renoise.judge import Judge
from renoise.presets import PRESETS, Region, Settings, plain

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
BATCH = 16


@dataclass(frozen=True)
class Sampler:
    """A model with a scheduler; ``fine`` steps are those of the plain reversal that spends as much as ReNoise."""

    model: str
    scheduler: str | None
    preset: str
    iterations: tuple[int, ...]
    fine: int


SAMPLERS = {
    "ancestral Euler, 4 steps": Sampler("emoji-turbo", None, "paper-sdxl-turbo", (1, 4, 9), 40),
    "LCM, 4 steps": Sampler("emoji-turbo", "LCMScheduler", "paper-lcm", (1, 4, 9), 40),
    "DDIM, 50 steps": Sampler("emoji", None, "paper-sd", (1, 4), 100),
}


def methods(sampler: Sampler) -> Iterator[tuple[str, Settings, int]]:
    """Name, settings and inversion steps of every row of the table."""
    full = PRESETS[sampler.preset]
    steps = full.num_inference_steps
    bare = replace(plain(full), num_inference_steps=steps)
    yield "plain reversal", bare, steps
    yield f"plain reversal, {sampler.fine} inversion steps", bare, sampler.fine
    for iterations in sampler.iterations:
        yield f"ReNoise K={iterations}", replace(bare, regions=(Region(iterations=iterations),)), steps
    yield "+ averaging", replace(full, edit_losses=None, correction=0.0), steps
    yield "+ edit losses", replace(full, correction=0.0), steps
    if full.correction:
        yield "+ noise correction", full, steps
        yield "averaging + correction", replace(full, edit_losses=None), steps


def inverted(pipe, images, captions: list[str], settings: Settings, steps: int) -> renoise.Inversion:  # type: ignore[no-untyped-def]
    """An inversion whose generation runs on the preset's steps even where the inversion took more."""
    inversion = renoise.invert(pipe, images, captions, preset=replace(settings, num_inference_steps=steps))
    if steps == settings.num_inference_steps:
        return inversion
    noises = inversion.trajectory.noises
    stride = steps // settings.num_inference_steps
    coarse = replace(inversion.trajectory, noises=None if noises is None else noises[::stride])
    return replace(inversion, table=measured_table(pipe, settings.num_inference_steps), trajectory=coarse)


def records(
    name: str, sampler: Sampler, chosen: pictures.PictureSet, judge: Judge, dtype: str
) -> Iterator[dict[str, object]]:
    pipe = models.load(sampler.model, dtype=dtype, scheduler=sampler.scheduler)
    pipe.set_progress_bar_config(disable=True)
    images = to_pil(chosen.pixels)
    shifted = chosen.concepts[1:] + chosen.concepts[:1]
    targets = [f"{concept}, {style} style" for concept, style in zip(shifted, chosen.styles, strict=True)]
    for method, settings, steps in tqdm(list(methods(sampler)), desc=name):
        for start in range(0, len(images), BATCH):
            part = slice(start, start + BATCH)
            started = time.perf_counter()
            inversion = inverted(pipe, images[part], chosen.captions[part], settings, steps)
            seconds = (time.perf_counter() - started) / len(images[part])
            ceiling = inversion.round_trip()
            found = inversion.regenerate(inversion.scene)
            edited = inversion.regenerate(
                replace(inversion.scene, prompts=tuple(targets[part]), guidance_scale=settings.guidance_scale)
            )
            likely = judge.concept_probabilities(edited)
            columns = {
                "psnr_image": metrics.psnr(found, inversion.pixels),
                "psnr_round_trip": metrics.psnr(found, ceiling),
                "ssim": metrics.ssim(found, inversion.pixels),
                "ceiling": inversion.ceiling(),
                "z_std": inversion.latents.flatten(1).std(1)
                / torch.linalg.vector_norm(torch.stack([inversion.table.alpha[0], inversion.table.sigma[0]])),
                "edit_psnr_source": metrics.psnr(edited, inversion.pixels),
                "edit_target": torch.stack([likely[i, judge.concepts.index(c)] for i, c in enumerate(shifted[part])]),
                "edit_source": torch.stack(
                    [likely[i, judge.concepts.index(c)] for i, c in enumerate(chosen.concepts[part])]
                ),
                "edit_hit": torch.tensor(
                    [float(likely[i].argmax() == judge.concepts.index(c)) for i, c in enumerate(shifted[part])]
                ),
            }
            for i, caption in enumerate(chosen.captions[part]):
                row = {
                    "sampler": name,
                    "method": method,
                    "passes": inversion.passes,
                    "seconds": round(seconds, 4),
                    "picture": caption,
                }
                yield row | {key: round(float(value[i]), 5) for key, value in columns.items()}


def summary(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """One line per sampler and method: mean, median and 5th percentile, and 95 % bootstrap interval of the mean."""
    lines = []
    for sampler, method in dict.fromkeys((row["sampler"], row["method"]) for row in rows):
        mine = [row for row in rows if (row["sampler"], row["method"]) == (sampler, method)]

        def column(name: str, mine: list[dict[str, object]] = mine) -> list[float]:
            return [float(str(row[name])) for row in mine]

        image, trip = column("psnr_image"), column("psnr_round_trip")
        low, high = metrics.interval(image)
        lines.append(
            {
                "sampler": sampler,
                "method": method,
                "passes": int(column("passes")[0]),
                "dB": f"{statistics.mean(image):.1f} [{low:.1f}, {high:.1f}]",
                "median": f"{statistics.median(image):.1f}",
                "5th": f"{sorted(image)[len(image) // 20]:.1f}",
                "dB to round trip": f"{statistics.mean(trip):.1f}",
                "5th ": f"{sorted(trip)[len(trip) // 20]:.1f}",
                "SSIM": f"{statistics.mean(column('ssim')):.3f}",
                "std z_T": f"{statistics.mean(column('z_std')):.2f}",
                "s/picture": f"{statistics.mean(column('seconds')):.2f}",
                "edit hit": f"{statistics.mean(column('edit_hit')):.2f}",
                "p(target)": f"{statistics.mean(column('edit_target')):.3f}",
                "p(source)": f"{statistics.mean(column('edit_source')):.3f}",
                "dB edit to source": f"{statistics.mean(column('edit_psnr_source')):.1f}",
            }
        )
    return lines


def markdown(lines: list[dict[str, object]]) -> str:
    keys = list(lines[0])
    body = [" | ".join(str(line[key]) for key in keys) for line in lines]
    return "\n".join(f"| {row} |" for row in [" | ".join(keys), " | ".join("---" for _ in keys), *body]) + "\n"


def plot(lines: list[dict[str, object]], path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(str(line["sampler"]) for line in lines))
    figure, axes = pyplot.subplots(1, len(names), figsize=(5 * len(names), 4), squeeze=False, layout="constrained")
    for axis, name in zip(axes[0], names, strict=True):
        for line in (line for line in lines if line["sampler"] == name):
            method = str(line["method"])
            marker = "o" if method.startswith("ReNoise K") else "s" if "plain" in method else "^"
            x, y = float(str(line["passes"])), float(str(line["dB to round trip"]))
            axis.plot(x, y, marker, label=method)
        axis.set(title=name, xlabel="network passes of the inversion", ylabel="dB to the auto-encoder's round trip")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", default="test", choices=pictures.SPLITS)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--sampler", action="append", choices=list(SAMPLERS), help="only these; by default all")
    parser.add_argument("--docs", action="store_true", help="write the docs page and the plot too")
    args = parser.parse_args()
    judge, chosen = models.judge(), pictures.load(args.split).first(args.count)
    rows = [
        row for name in args.sampler or SAMPLERS for row in records(name, SAMPLERS[name], chosen, judge, args.dtype)
    ]
    RESULTS.mkdir(exist_ok=True)
    name = f"reconstruction-{args.split}{args.count}-{args.dtype}-torch{torch.__version__}"
    with (RESULTS / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    lines = summary(rows)
    print(markdown(lines))
    if args.docs:
        plot(lines, ROOT / "docs/pictures/reconstruction.png")
        command = (
            f"python -m benchmarks.reconstruction --split {args.split} --count {args.count} --dtype {args.dtype} --docs"
        )
        page = ROOT / "docs/reconstruction-table.md"
        page.write_text(f"<!-- {command}; raw records: benchmarks/results/{name}.csv -->\n{markdown(lines)}")


if __name__ == "__main__":
    main()
