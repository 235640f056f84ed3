"""Measures families, samplers and drivers on the tiny pipelines and prints docs/support.md.

python -m tests.helpers.support_table > docs/support.md
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import diffusers
import torch

from renoise.core.loop import replay
from renoise.core.query import Job
from renoise.pipelines.families import FAMILIES, family
from renoise.pipelines.recorder import recorded
from renoise.pipelines.stand_in import Measure, through
from tests.helpers import kinds, tiny, tiny_flow
from tests.helpers.tiny_transformers import small_conditions

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

Written by `python -m tests.helpers.support_table > docs/support.md`.

Every row is a test of a tiny pipeline: the real class of diffusers {version}, with random weights from a fixed seed,
two pictures that are not square, float32, on a CPU. No row was run with the weights of the big models, because they
could not be had where this was written. The code is the same.

* **replay**: we generate in three steps from the same noise as the pipeline itself. The number is the difference of
  the latents, relative to their standard deviation.
* **round trip**: the largest difference of a pixel (0 to 1) between the reconstruction and the auto-encoder's
  picture, with 4 of 20 steps and K = 8, without guidance. **guided**: the same with guidance 1.5. The number says how
  well the equations of a step can be solved with *these random weights*. A trained model has its own.
* **drivers**: how the pipeline is asked. "direct" calls the network itself. It is the default where it is listed, and
  takes prompts or prompt embeddings. "pipeline" runs the pipeline's own loop. It takes nearly every keyword of the
  pipeline's call, and costs one pass more. Where both are listed, both give the same bits
  (`tests/pipelines/test_stand_in.py`: 1 to 20 steps, with and without guidance). With half-precision networks
  "direct" computes guidance in float32, and some pipelines compute it in half precision."""
TABLE = """
## {title}

{about}| pipeline | sampler | drivers | replay | round trip | guided |
|---|---|---|---|---|---|"""
TITLES: dict[str, tuple[str, str]] = {
    "words": ("Pictures from words", ""),
    "editing": (
        "Editing models",
        """They see a condition picture beside the one that they make: `pipe_kwargs={"image": picture}`. The record
keeps it, an edit may show another, and [Editing models](editing-models.md) says what an inversion adds there. Here the
condition pictures have about 64 x 64 pixels, where the pipelines bring theirs to a megapixel.
QwenImageEditPlusPipeline makes one picture at a time, so its row is of one. The rows of Flux2KleinPipeline are without
a condition picture; with one, the drivers are compared (`tests/pipelines/test_kinds.py`).

""",
    ),
    "control": (
        "Control pictures",
        """ControlNets and T2I-Adapters: the control picture goes through `pipe_kwargs` and is kept by the record.

""",
    ),
    "start": (
        "Image to image, and inpainting",
        """The networks of a pipeline for words, with another start. The picture that is inverted takes the place of the
pipeline's `image`, and the latents that are found are, bit for bit, those that the pipeline for words gives
(`tests/pipelines/test_kinds.py`). An inpainting network that sees its mask (9 channels) takes `image` and `mask_image`
in `pipe_kwargs`, as conditions.

""",
    ),
}
TAIL = """
## Also tested

LoRA (SD, SDXL), IP-Adapter (SD), ControlNet (SD), bfloat16 and float16 networks, int8 weights by torchao (SD, SD3),
prompt embeddings, `eta`, your own timesteps, and model offload and sequential offload by accelerate
(`tests/pipelines/test_adapters.py`). Offloaded networks are given back after every stage, also after an error or an
interrupt. Samplers alone are on the page [Samplers](samplers.md).

## What does not work

* Samplers that keep a history (`renoise.make_invertible` replaces them), that call the network twice in a step, or
  whose step drops the latent.
* Two inversions on the same pipeline at the same time.
* Inpainting with a network that does not see the mask: the pipeline's loop pastes the picture back outside of the mask
  after every step, so nothing that was there can be found again. `mask_image` is refused; `edit` takes `mask=`.
* `driver="direct"` where a call does more at every step than to ask its network: ControlNets, which are networks of
  their own; perturbed attention (PAG), which is on the network only while the pipeline's loop runs. They take the
  pipeline's own loop.
* Some pipelines *draw* the latents of their condition picture (inpainting networks, FLUX ControlNet). Our calls draw
  them with the seed 0, always the same. In your own call inside `replaying()`, pass
  `generator=torch.Generator().manual_seed(0)`.
* Keywords that count the rounds of the pipeline's loop, such as the start and end of a ControlNet, skip-layer guidance
  and callbacks: here a round is a pass and not a step. They are refused by name.

## Generating with other steps than those of the inversion

* `edit(num_inference_steps=M)` works with samplers that draw no noise. M is the number of steps of the whole
  schedule. The edit starts at the noise level that the inversion reached, also where its strength was below 1.
* With a sampler that draws noise it is refused: the noise of one schedule means nothing in another.
* Another strength than that of the inversion is refused. An inversion ends at one noise level; invert again.
* `eta`, `sigmas`, `timesteps` or `mu` in the `pipe_kwargs` of an edit are refused. Hand them to `invert`; edits then
  use them.
* `num_inference_steps` is refused after an inversion with your own `sigmas` or `timesteps`, because these set the
  steps.
* Inside `replaying()` your own call may not ask for another schedule: that is refused."""


def replay_error(pipe: Any) -> float:
    texts = kinds.scene(pipe, 1.0)
    prompts = texts["prompt"] and tuple(texts["prompt"])
    keywords = kinds.call_keywords(pipe, prompts, 1.0, texts.get("pipe_kwargs", {}), kinds.size_of(pipe))
    draws: list[torch.Tensor] = []
    with recorded(pipe) as stock:
        pipe(**keywords, generator=torch.Generator().manual_seed(0), output_type="latent")

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


def rows(make: Any, samplers: dict[str, Any], note: str = "") -> Iterator[str]:
    """A line of the table for each sampler that a pipeline sets up."""
    for name, scheduler in samplers.items():
        pipe = make(scheduler())
        kind = family(pipe)
        if (kind == "lcm" and name != "LCM") or (kind == "sana" and "dynamic" in name):
            continue  # not what these pipelines set up
        if make in kinds.UNETS.values():
            pipe.vae = tiny.vae(scaling_factor=4.0)  # latents of order 1
        drivers = "direct, pipeline" if FAMILIES[kind].direct else "pipeline"
        numbers = [replay_error(pipe), round_trip(pipe, 1.0), round_trip(pipe, 1.5)]
        yield f"| {type(pipe).__name__}{note} | {name} | {drivers} | " + " | ".join(f"{n:.0e}" for n in numbers) + " |"


def later() -> Iterator[tuple[str, str]]:
    """For each of the later kinds, what it is for and its lines."""
    few = {"diffusion": ("DDIM", "ancestral Euler"), "flow": ("flow Euler", "flow Euler, stochastic")}
    every = UNET_SAMPLERS | FLOW_SAMPLERS
    for name, make in kinds.LATER.items():
        rules = FAMILIES[family(make())]
        samplers = {sampler: every[sampler] for sampler in few[rules.sampler]}
        if name == "hunyuan":
            samplers["DDPM"] = lambda: diffusers.DDPMScheduler(**TRAINING, clip_sample=False)
        note = " (9 channels)" if "sees the mask" in name else ""
        for row in rows(make, samplers, note):
            yield rules.task, row


def main() -> None:
    warnings.simplefilter("ignore")
    lines: dict[str, list[str]] = {task: [] for task in TITLES}
    for group, samplers in ((kinds.UNETS, UNET_SAMPLERS), (kinds.FLOW, FLOW_SAMPLERS)):
        for make in group.values():
            for row in rows(make, samplers):
                task = "editing" if row.startswith("| Flux2KleinPipeline") else "words"
                lines[task].append(row)
    with small_conditions():
        for task, row in later():
            lines[task].append(row)
    print(HEAD.format(version=diffusers.__version__))
    for task, (title, about) in TITLES.items():
        print(TABLE.format(title=title, about=about))
        print("\n".join(lines[task]))
    print(TAIL)


if __name__ == "__main__":
    main()
