"""Stage 7: the few-step model, taught by the ends of its teacher's trajectories from where it gets to itself.

    python -m training.distil --work WORK

The student draws from noise with its own four levels, by ancestral Euler or by LCM, and stops at one of them. From
there the teacher, with guidance, draws to the end by DPM-Solver++ in a few steps, and the student learns to name that
end at once. So it is corrected for states that it meets when it is used, and since the target is a place where the
teacher's trajectory ends and no distribution to imitate, it stays as easy to invert as it was. Guidance is folded in:
the student needs none. No picture is needed, only the captions of the training split.

The student starts as the teacher, or as the shipped student moved by what the teacher has learnt since it was shipped.
Writes WORK/turbo/checkpoint.safetensors (resumable).
"""

import argparse
import copy
import random
from pathlib import Path

import torch
from diffusers import DPMSolverMultistepScheduler, UNet2DConditionModel
from torch import Tensor, nn

from training.fused import fuse
from training.loop import DEVICE, Run, fast_precision, keep_memory, late_linear, train
from training.pictures import caption, load_rows
from training.text_to_emoji import WEIGHTS, add_known, build_scheduler, load_emoji, token_ids

LEVELS = (999, 749, 499, 249)  # where a four-step sampler with trailing spacing stops
TEACHER_STEPS = (11, 8, 6, 4)  # from each of them
HUBER = 0.03


def first_student(teacher: UNet2DConditionModel) -> UNet2DConditionModel:
    """A copy of the teacher, plus what an earlier distillation has changed, where the package ships one."""
    student = copy.deepcopy(teacher)
    if (WEIGHTS / "emoji-turbo/unet").exists():
        before, after = (
            UNet2DConditionModel.from_pretrained(WEIGHTS / name / "unet").float().state_dict()
            for name in ("emoji", "emoji-turbo")
        )
        add_known(student, {name: after[name] - before[name] for name in after})
    return student


def guided(teacher: nn.Module, z: Tensor, t: Tensor, states: tuple[Tensor, Tensor], scale: float) -> Tensor:
    """The teacher's noise; ``states`` are those of the empty caption and of the captions."""
    both = noise_of(teacher, torch.cat([z, z]), t, torch.cat(states))
    without, given = both.chunk(2)
    return without + scale * (given - without)


def noise_of(unet: nn.Module, z: Tensor, t: Tensor, states: Tensor) -> Tensor:
    with fast_precision():
        return unet(z.to(memory_format=torch.channels_last), t.to(z.device).expand(len(z)), states).sample.float()


def end_of_trajectory(teacher: nn.Module, z: Tensor, stop: int, states: tuple[Tensor, Tensor], scale: float) -> Tensor:
    """Where the teacher gets from ``z`` at level number ``stop``."""
    solver = DPMSolverMultistepScheduler.from_config(build_scheduler().config)
    count = TEACHER_STEPS[stop]
    solver.set_timesteps(timesteps=torch.linspace(LEVELS[stop], 0, count + 1)[:-1].round().int().tolist())
    for t in solver.timesteps:
        z = solver.step(guided(teacher, z, t, states, scale), t, z).prev_sample
    return z


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/training"))
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=5e-5, help="1e-4 for batches of 128 and more")
    parser.add_argument("--guidance", type=float, default=4.0, help="guidance scale folded into the student")
    args = parser.parse_args()
    keep_memory()
    torch.manual_seed(0)
    rows = load_rows(args.work, "train")
    teacher, text, tokenizer = load_emoji(args.work)
    student = fuse(first_student(teacher)).to(DEVICE, memory_format=torch.channels_last).train()
    teacher = fuse(teacher).to(DEVICE, memory_format=torch.channels_last).requires_grad_(False)
    text.to(DEVICE).requires_grad_(False)
    shape = (args.batch, teacher.config.in_channels, 16, 16)
    signal = build_scheduler().alphas_cumprod[list(LEVELS)]
    alphas, sigmas = signal.sqrt().tolist(), (1 - signal).sqrt().tolist()
    run = Run(
        args.work / "turbo",
        args.images,
        args.batch,
        args.learning_rate,
        average=0.98,
        weight_decay=0.0,
        decay=late_linear,
    )

    def estimate(z: Tensor, stop: int, states: Tensor) -> tuple[Tensor, Tensor]:
        """The student's clean estimate and noise at level number ``stop``."""
        noise = noise_of(student, z, torch.tensor(LEVELS[stop]), states)
        return (z - sigmas[stop] * noise) / alphas[stop], noise

    def step_down(z: Tensor, stop: int, states: Tensor, ancestral: bool, fresh: Tensor) -> Tensor:
        """From one level to the next: LCM makes all noise anew, ancestral Euler keeps a part of the predicted one."""
        clean, noise = estimate(z, stop, states)
        high, low = (sigmas[i] / alphas[i] for i in (stop, stop + 1))
        new = low * (1 - (low / high) ** 2) ** 0.5 if ancestral else low
        kept = (low**2 - new**2) ** 0.5
        return alphas[stop + 1] * (clean + kept * noise + new * fresh)

    def loss_of(step: int) -> dict[str, Tensor]:
        generator, rng = torch.Generator().manual_seed(step), random.Random(step)
        chosen = [rows[rng.randrange(len(rows))] for _ in range(run.batch)]
        captions = [row["label"] if rng.random() < 0.1 else caption(row) for row in chosen]
        stop, ancestral = rng.randrange(len(LEVELS)), rng.random() < 0.5
        with torch.no_grad():
            given = text(token_ids(tokenizer, captions).to(DEVICE)).last_hidden_state
            nothing = text(token_ids(tokenizer, [""]).to(DEVICE)).last_hidden_state.expand_as(given)
            z = sigmas[0] * torch.randn(shape, generator=generator).to(DEVICE)
            for i in range(stop):
                z = step_down(z, i, given, ancestral, torch.randn(shape, generator=generator).to(DEVICE))
            goal = end_of_trajectory(teacher, z, stop, (nothing, given), args.guidance)
        clean, _ = estimate(z, stop, given)
        squared = (clean - goal).square().mean((1, 2, 3))
        return {"loss": ((squared + HUBER**2).sqrt() - HUBER).mean(), "squared": squared.mean()}

    train(run, nn.ModuleDict({"unet": student}), loss_of)


if __name__ == "__main__":
    main()
