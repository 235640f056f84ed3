"""Measures families, samplers and drivers on the tiny pipelines and prints docs/support.md.

python -m tests.helpers.support_table > docs/support.md
"""

from __future__ import annotations

import warnings
from typing import Any

import diffusers
import torch

from renoise.core.loop import replay
from renoise.core.query import Job
from renoise.pipelines.families import FAMILIES, family
from renoise.pipelines.stand_in import Measure, through
from tests.helpers import kinds, tiny, tiny_flow

TRAINING = {**tiny.TRAINING, "timestep_spacing": "leading"}
UNET_SAMPLERS: dict[str, Any] = {
    "DDIM": tiny.ddim,
    "ancestral Euler": tiny.euler_ancestral,
    "LCM": tiny.lcm_scheduler,
    "Euler": lambda: diffusers.EulerDiscreteScheduler(**TRAINING),
    "DPM-Solver++, order 1": lambda: diffusers.DPMSolverMultistepScheduler(**TRAINING, solver_order=1),
    "TCD": lambda: diffusers.TCDScheduler(**tiny.TRAINING),
}
FLOW_SAMPLERS: dict[str, Any] = {
    "flow Euler": tiny_flow.flow,
    "flow Euler, dynamic shift": tiny_flow.flow_dynamic,
    "flow Euler, stochastic": lambda: tiny_flow.flow(stochastic_sampling=True),
}
HEAD = """# What works, measured

Every row is a test on a tiny pipeline of the real diffusers class with seeded random weights (`tests/helpers/tiny.py`,
`tests/helpers/tiny_flow.py`), batch of two, not square, diffusers {version}, float32 on a CPU. No row was run with the
weights of the big models: there is no hub and no GPU where this is built. The code that runs is the same.

* **replay**: distance of our regeneration from the stock pipeline's own three-step generation from the same noise,
  relative to the latents' standard deviation.
* **round trip**: largest difference of a pixel (0 to 1) between reconstruction and auto-encoder, 4 of 20 steps, K = 8,
  without guidance and at guidance 1.5. It says how well the fixed point of *these random weights* converges; a trained
  model has its own numbers.
* **drivers**: "pipeline" runs the pipeline's own loop, which takes every keyword of its call, and discards its first
  evaluation. "direct", the default where it is known, asks the network itself and saves that evaluation; it takes
  prompts and their embeddings. Both give the same bits for every pipeline that has both: batch of two, not square, 1 to
  20 steps, guided and not (`tests/pipelines/test_stand_in.py`). With half-precision networks "direct" computes guidance
  in float32, where some pipelines do so in half precision.

`python -m tests.helpers.support_table > docs/support.md` makes this page.

| pipeline | sampler | drivers | replay | round trip | guided |
|---|---|---|---|---|---|"""
TAIL = """
Also tested: LoRA (SD, SDXL), IP-Adapter (SD), ControlNet (SD), bfloat16 and float16 networks, int8 weights by torchao
(SD, SD3), prompt embeddings, `eta`, custom timesteps, model and sequential offload by accelerate's hooks
(`tests/pipelines/test_adapters.py`).
Offloaded networks are given back after every stage, also after an error or an interrupt. Samplers by themselves are in
[samplers.md](samplers.md). Not inverted: samplers with a history (`renoise.make_invertible` exchanges them), two
network calls a step, and steps that drop the latent. Fragile through a pipeline's loop, because they count its rounds:
skip-layer guidance, the start and end of a ControlNet, guidance callbacks. Not supported: a second inversion on the
same pipeline at the same time.

## Generating on other steps than the inversion's

* `edit(num_inference_steps=M)` with a sampler that draws no noise: M steps of the whole schedule, walked from the level
  that the inversion went to, also where its strength was below 1. Held against curves in closed form
  (`tests/core/test_regrid.py`), and run through both drivers of every family.
* The same with a sampler that draws noise: refused, since the noise of one grid says nothing on another.
* Another strength than the inversion's: refused. An inversion ends at one level; invert again with that strength.
* `eta`, `sigmas`, `timesteps` or `mu` in the `pipe_kwargs` of an edit: refused. `invert` takes them, and they hold.
* `num_inference_steps` after an inversion with `sigmas` or `timesteps` of one's own, which set the steps: refused.
* Another schedule in one's own call inside `replaying()`: not read. The inversion's own steps are replayed."""


def replay_error(pipe: Any) -> float:
    texts = kinds.scene(pipe, 1.0)
    prompts = texts["prompt"] and tuple(texts["prompt"])
    keywords = kinds.call_keywords(pipe, prompts, 1.0, texts.get("pipe_kwargs", {}), kinds.size_of(pipe))
        pipe, texts["prompt"] and tuple(texts["prompt"]), 1.0, texts.get("pipe_kwargs", {}), kinds.size_of(pipe)
    )
    draws: list[torch.Tensor] = []
    with kinds.Spy(pipe) as stock:
        pipe(**keywords, generator=torch.Generator().manual_seed(3), output_type="latent")

    def begin(measure: Measure) -> Job[torch.Tensor]:
        table = measure()
        for step in range(len(table)):  # the noise that the stock run drew, from what it did
            z_t, z_s = stock.latents[step].float(), stock.results[step].float()
            drawn = float(table.n[step]) != 0
            m = stock.predictions[step].float()
            draws.append(table.residual_noise(step, z_s, z_t, m) if drawn else torch.zeros_like(z_t))
        return Job(replay(table, stock.latents[0].float(), torch.stack(draws)), table, len(table))

    ours = through(pipe, begin, keywords)
    return float((ours - stock.results[-1]).abs().max() / stock.results[-1].std())


def round_trip(pipe: Any, guidance: float) -> float:
    inversion = kinds.inverted(pipe, kinds.settings(20, 8, guidance), strength=0.2)
    return float((inversion.regenerate(inversion.scene) - inversion.round_trip()).abs().max())


def main() -> None:
    warnings.simplefilter("ignore")
    print(HEAD.format(version=diffusers.__version__))
    for group, samplers in ((kinds.UNETS, UNET_SAMPLERS), (kinds.FLOW, FLOW_SAMPLERS)):
        for make in group.values():
            for name, scheduler in samplers.items():
                pipe = make(scheduler())
                kind = family(pipe)
                if (kind == "lcm" and name != "LCM") or (kind == "sana" and "dynamic" in name):
                    continue  # not what these pipelines set up
                if make in kinds.UNETS.values():
                    pipe.vae = tiny.vae(scaling_factor=4.0)  # latents of order 1
                drivers = "direct, pipeline" if FAMILIES[kind].direct else "pipeline"
                numbers = [replay_error(pipe), round_trip(pipe, 1.0), round_trip(pipe, 1.5)]
                print(
                    f"| {type(pipe).__name__} | {name} | {drivers} | " + " | ".join(f"{n:.0e}" for n in numbers) + " |"
                )
    print(TAIL)


if __name__ == "__main__":
    main()
