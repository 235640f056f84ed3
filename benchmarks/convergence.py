"""How the estimates of a step converge, by iteration, noise level, sampler and solver, as analysed in the paper.

    python -m benchmarks.convergence              # 8 pictures of the validation split, all samplers
    python -m benchmarks.convergence --docs-only  # table and figure again, from the records

Two quantities are measured, at every step of the few-step samplers and at eight steps of the others:

* the residual |g(z) - z| of each pass, as an RMS in units of sqrt(alpha^2 + sigma^2), the RMS of a latent at this noise
  level.  For plain renoising it is the distance between successive estimates;
* the local contraction factor |b / a| ||dm/dz|| at the last point that was evaluated, as the spectral radius.  It says
  by how much one more iteration of g, which is what renoising does, multiplies a difference.  It is estimated by power
  iteration: eight times, a random direction v is normalised and replaced by (g(z + h v) - g(z)) / h, and the last
  length is the estimate.  h is a hundredth of sqrt(alpha^2 + sigma^2).

Writes benchmarks/results/convergence-*.csv, docs/convergence-table.md and docs/pictures/convergence.png.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks import pictures
from benchmarks.methods import SAMPLERS, Sampler
from renoise import models
from renoise.core.loop import drive, invert
from renoise.core.query import Denoiser, Query
from renoise.core.settings import Region, Settings
from renoise.core.table import StepTable
from renoise.evaluation import records
from renoise.evaluation.tables import markdown
from renoise.pipelines.adapter import Adapter
from renoise.presets import PRESETS
from renoise.record import Scene

ROOT = Path(__file__).parents[1]
PASSES = {True: 10, False: 4}  # passes per step, for few-step samplers (True) and the others
SHOWN = 8  # steps at which the contraction is measured, for samplers with many
ITERATIONS = 8  # number of power iterations

_RENOISE = Settings((Region(),))
VARIANTS: dict[str, Settings] = {
    "renoising": _RENOISE,
    "Anderson": replace(_RENOISE, solver="anderson"),
    "Anderson, expected start": replace(_RENOISE, solver="anderson", start="expected"),
    "Anderson, expected start, matched noise": replace(_RENOISE, solver="anderson", start="expected", noise="matched"),
}
COLOURS = ("#000000", "#56B4E9", "#0072B2", "#D55E00")  # of Okabe and Ito, distinct with any colour vision


@dataclass
class Listener:
    """A denoiser that remembers the latents of the last query at each step."""

    denoise: Denoiser
    points: dict[int, Tensor]

    def __call__(self, query: Query) -> Tensor:
        self.points[query.step] = query.z
        return self.denoise(query)


@torch.no_grad()
def contraction(table: StepTable, denoise: Denoiser, step: int, z: Tensor) -> Tensor:
    """Spectral radius of (b / a) dm/dz at latents z [batch, ...] by power iteration, per image [batch]."""
    size = torch.hypot(table.alpha[step], table.sigma[step]).item()
    pull, h = abs(table.b[step] / table.a[step]).item(), 0.01 * size
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(z.shape, generator=generator)
    each = (-1, *[1] * (z.ndim - 1))
    m = denoise(Query(z, step))
    length = torch.zeros(len(z))
    for _ in range(ITERATIONS):
        v = v / v.flatten(1).square().mean(1).sqrt().view(each)
        v = pull * (denoise(Query(z + h * v, step)) - m) / h
        length = v.flatten(1).square().mean(1).sqrt()
    return length


def measured(name: str, sampler: Sampler, chosen: pictures.PictureSet) -> list[dict[str, object]]:
    """Rows of the records, one per variant, step and picture."""
    pipe = models.load(sampler.model, scheduler=sampler.scheduler)
    pipe.set_progress_bar_config(disable=True)
    steps = PRESETS[sampler.paper].settings.num_inference_steps
    adapter = Adapter(pipe)
    call = adapter.call(Scene(tuple(chosen.captions), None, 1.0, {}), steps, adapter.size(None))
    (rehearsal,) = adapter.rehearsals([call])
    table, z_0 = rehearsal.measure(), adapter.codec.encode(chosen.pixels)
    shape = (len(table), *z_0.shape[1:])
    seeds = [torch.Generator().manual_seed(i) for i in range(len(chosen))]
    noises = torch.stack([torch.randn(shape, generator=seed) for seed in seeds], 1) if table.stochastic else None
    denoise = adapter.denoiser([rehearsal], table)
    few, rows = sampler.few_step, []
    shown = range(len(table)) if few else torch.linspace(0, len(table) - 1, SHOWN).long().tolist()
    variants = {k: v for k, v in VARIANTS.items() if table.stochastic or v.noise == "independent"}
    for variant, settings in tqdm(variants.items(), desc=name):
        settings = replace(settings, regions=(Region(iterations=PASSES[few] - 1),))
        listener = Listener(denoise, {})
        found = drive(invert(table, z_0, settings=settings, noises=noises), listener)
        for step in shown:
            size = torch.hypot(table.alpha[step], table.sigma[step]).item()
            factors = contraction(table, denoise, step, listener.points[step])
            residuals = found.steps[step].residuals / size  # [pass, batch]
            for picture in range(len(chosen)):
                row = {"sampler": name, "variant": variant, "step": step, "timestep": float(table.timesteps[step])}
                row |= {"picture": chosen.captions[picture], "contraction": round(float(factors[picture]), 5)}
                lengths = [f"{float(r):.3e}" for r in residuals[:, picture]]
                rows.append(row | {f"pass {k}": r for k, r in enumerate(lengths, 1)})
    return rows


def table_of(rows: Sequence[dict[str, str]]) -> str:
    """A Markdown table per sampler, one line per variant.

    The columns are the contraction factor at three steps (the noisiest, the middle one, the one nearest the image) and
    the residual after some of the passes.
    """
    parts = []
    for sampler in dict.fromkeys(row["sampler"] for row in rows):
        lines = []
        mine = [row for row in rows if row["sampler"] == sampler]
        steps = sorted({int(row["step"]) for row in mine})
        for variant in dict.fromkeys(row["variant"] for row in mine):
            line = {"variant": variant}
            for title, step in (("noisiest", steps[0]), ("middle", steps[len(steps) // 2]), ("nearest", steps[-1])):
                here = [row for row in mine if row["variant"] == variant and int(row["step"]) == step]
                line[f"factor, {title}"] = f"{statistics.mean(float(row['contraction']) for row in here):.2f}"
            here = [row for row in mine if row["variant"] == variant]
            for k in (1, 2, 4, 10):
                lengths = [float(row[f"pass {k}"]) for row in here if row.get(f"pass {k}")]
                line[f"residual, pass {k}"] = f"{statistics.geometric_mean(lengths):.4f}" if lengths else ""
            lines.append(line)
        parts.append(f"\n## {sampler}\n\n{markdown(lines)}")
    return "".join(parts)


def figure(rows: Sequence[dict[str, str]], path: Path) -> None:
    """Draw residuals by pass (geometric mean over steps and pictures) above contraction factors by timestep."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    samplers = list(dict.fromkeys(row["sampler"] for row in rows))
    picture, axes = pyplot.subplots(2, len(samplers), figsize=(3.4 * len(samplers), 6.4), squeeze=False, sharey="row")
    for place, sampler in enumerate(samplers):
        for variant, colour in zip(VARIANTS, COLOURS, strict=True):
            mine = [row for row in rows if (row["sampler"], row["variant"]) == (sampler, variant)]
            if not mine:
                continue
            passes = [k for k in range(1, 11) if mine[0].get(f"pass {k}")]
            lengths = [statistics.geometric_mean(float(row[f"pass {k}"]) for row in mine) for k in passes]
            axes[0, place].semilogy(passes, lengths, "o-", ms=3, color=colour, label=variant)
            times = sorted({float(row["timestep"]) for row in mine})
            factors = [
                statistics.mean(float(r["contraction"]) for r in mine if float(r["timestep"]) == t) for t in times
            ]
            axes[1, place].plot(times, factors, "o-", ms=3, color=colour)
        axes[1, place].axhline(1, color="#999999", lw=1, ls="--")
        axes[0, place].set(title=sampler, xlabel="pass")
        axes[1, place].set(xlabel="timestep")
        for axis in axes[:, place]:
            axis.grid(alpha=0.25)
    axes[0, 0].set_ylabel("residual, in units of the level")
    axes[1, 0].set_ylabel("contraction factor")
    picture.legend(*axes[0, 0].get_legend_handles_labels(), loc="lower center", ncols=2, frameon=False)
    picture.tight_layout(rect=(0, 0.09, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, dpi=100)
    pyplot.close(picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", default="validation", choices=pictures.SPLITS)
    parser.add_argument("--count", type=int, default=8, help="how many pictures, from the first on")
    parser.add_argument("--sampler", action="append", choices=list(SAMPLERS), help="only this sampler; can be repeated")
    parser.add_argument("--output", type=Path, default=ROOT, help="folder for benchmarks/results and docs")
    parser.add_argument("--docs-only", action="store_true", help="only make table and figure from the records")
    args = parser.parse_args()
    path = args.output / f"benchmarks/results/convergence-{args.split}{args.count}-torch{torch.__version__}.csv"
    if not args.docs_only:
        chosen = pictures.load(args.split).first(args.count)
        found = [row for name in args.sampler or SAMPLERS for row in measured(name, SAMPLERS[name], chosen)]
        records.write(path, found)
    rows = records.read(path)
    figure(rows, args.output / "docs/pictures/convergence.png")
    command = f"python -m benchmarks.convergence --split {args.split} --count {args.count}"
    page = f"<!-- {command}; records: {path.relative_to(args.output)} -->\n{table_of(rows)}"
    (args.output / "docs/convergence-table.md").write_text(page)


if __name__ == "__main__":
    main()
