"""Inversion of flow matching with trained weights: the many-step model, used as a flow-matching model.

    python -m benchmarks.flow                  # 8 pictures of the validation split
    python -m benchmarks.flow --split test --count 64

The package has no flow-matching model of its own, but a network that predicts noise can stand for one.  Such a network
knows the noise level by alpha / sigma.  A flow-matching latent z = (1 - s) x + s e has the ratio (1 - s) / s, which
alpha x + sigma e has too at some timestep.  Scaled to unit variance, z can be given to the network at that timestep.
The noise e that it predicts determines x, and so the velocity e - x.  The sampler is diffusers'
FlowMatchEulerDiscreteScheduler.

Prints dB to the auto-encoder's round trip and writes benchmarks/results/flow.json.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from benchmarks import pictures
from renoise import metrics, models
from renoise.core.loop import drive, invert, replay
from renoise.core.query import Denoiser, Query
from renoise.core.settings import Settings, plain
from renoise.core.table import StepTable
from renoise.evaluation.tables import markdown
from renoise.metrics import Summary
from renoise.pipelines.adapter import Adapter
from renoise.pipelines.measure import measure
from renoise.presets import PRESETS
from renoise.record import Scene

RESULTS = Path(__file__).parent / "results"
GRIDS = ((28, 3.0), (50, 1.0))  # steps and shift


@dataclass(frozen=True)
class FlowView:
    """A denoiser that predicts velocities by a network that predicts noise.

    Attributes:
        denoise: the network, for latents of unit variance.
        rows: the table of the flow-matching sampler.
        least_alpha: smallest alpha of the network's training schedule.
    """

    denoise: Denoiser
    rows: StepTable
    least_alpha: float

    def __call__(self, query: Query) -> Tensor:
        s = self.rows.sigma[query.step].item()
        norm = math.hypot(1 - s, s)
        alpha = max((1 - s) / norm, self.least_alpha)
        z = query.z / norm
        noise = self.denoise(replace(query, z=z))
        return noise - (z - math.sqrt(1 - alpha**2) * noise) / alpha


def timesteps(rows: StepTable, alphas_cumprod: Tensor) -> Tensor:
    """The network's fractional timestep at the noise level of each row; `alphas_cumprod` is its alpha^2 by timestep."""
    known = 0.5 * torch.log(alphas_cumprod / (1 - alphas_cumprod))
    s = rows.sigma.clamp(1e-6, 1 - 1e-6)
    wanted = torch.log((1 - s) / s)
    found = np.interp(wanted.numpy(), known.flip(0).numpy(), np.arange(len(known) - 1, -1, -1.0))
    return torch.from_numpy(found)


def scores(chosen: pictures.PictureSet, steps: int, shift: float) -> dict[str, dict[str, float]]:
    """Passes and dB of three methods: plain reversal, one renoising iteration per step, and the preset "flow"."""
    pipe = models.load("emoji", scheduler="EulerDiscreteScheduler")  # a sampler with fractional timesteps
    pipe.set_progress_bar_config(disable=True)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(steps)
    rows = measure(scheduler)
    alphas_cumprod = pipe.scheduler.alphas_cumprod.double()
    shown = replace(rows, timesteps=timesteps(rows, alphas_cumprod), input_scale=torch.ones_like(rows.a))
    adapter = Adapter(pipe)
    size = adapter.size(None)
    call = adapter.call(Scene(tuple(chosen.captions), None, 1.0, {}), steps, size)
    view = FlowView(adapter.denoiser(adapter.rehearsals([call]), shown), rows, alphas_cumprod[-1].sqrt().item())
    z_0 = adapter.codec.encode(chosen.pixels)
    ceiling = adapter.codec.decode(z_0, size)
    methods: dict[str, Settings] = {
        "plain reversal": plain(PRESETS["flow"].settings),
        "ReNoise K=1": PRESETS["paper-flow"].settings,
        "flow": PRESETS["flow"].settings,
    }
    found = {}
    for name, settings in methods.items():
        trajectory = drive(invert(rows, z_0, settings=settings), view)
        pixels = adapter.codec.decode(drive(replay(rows, trajectory.z_T), view), size)
        summary = Summary.of(metrics.psnr(pixels, ceiling))
        found[name] = {"passes": trajectory.passes} | {
            key: round(getattr(summary, key), 1) for key in ("mean", "median", "p5", "worst")
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", default="validation", choices=pictures.SPLITS)
    parser.add_argument("--count", type=int, default=8)
    args = parser.parse_args()
    chosen = pictures.load(args.split).first(args.count)
    report = {f"{steps} steps, shift {shift:g}": scores(chosen, steps, shift) for steps, shift in GRIDS}
    lines = [
        {"schedule": grid, "method": method} | {key: str(value) for key, value in numbers.items()}
        for grid, methods in report.items()
        for method, numbers in methods.items()
    ]
    print(markdown(lines))
    path = RESULTS / "flow.json"
    path.write_text(
        json.dumps({"split": args.split, "count": args.count, "torch": torch.__version__} | report, indent=1)
    )


if __name__ == "__main__":
    main()
