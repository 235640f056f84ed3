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
from pathlib import Path

import torch
from diffusers import DPMSolverMultistepScheduler, UNet2DConditionModel
from torch import Tensor, nn

from training.fused import fuse
from training.loop import DEVICE, Run, keep_memory, late_linear, load_average, train
from training.pictures import load_rows
from training.rollouts import LEVELS, Prompts, estimate, guided, reached
from training.text_to_emoji import (
    WEIGHTS,
    add_known,
    build_scheduler,
    build_unet,
    latent_channels,
    load_emoji,
)

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


def end_of_trajectory(teacher: nn.Module, z: Tensor, stop: int, states: tuple[Tensor, Tensor], scale: float) -> Tensor:
    """Where the teacher gets from ``z`` at level number ``stop``."""
    solver = DPMSolverMultistepScheduler.from_config(build_scheduler().config)
    count = TEACHER_STEPS[stop]
    solver.set_timesteps(timesteps=torch.linspace(LEVELS[stop], 0, count + 1)[:-1].round().int().tolist())
    for t in solver.timesteps:
        z = solver.step(guided(teacher, z, t, states, scale), t, z).prev_sample
    return z


def load_turbo(work: Path) -> UNet2DConditionModel:
    """The averaged weights of this stage's newest checkpoint, or the shipped ones."""
    channels = latent_channels(work)
    checkpoint = work / "turbo/checkpoint.safetensors"
    if checkpoint.exists():
        turbo = nn.ModuleDict({"unet": build_unet(channels)})
        load_average(checkpoint, turbo)
        return turbo["unet"].eval()
    shipped = WEIGHTS / "emoji-turbo/unet"
    if UNet2DConditionModel.load_config(shipped)["in_channels"] == channels:
        return UNet2DConditionModel.from_pretrained(shipped).float().eval()
    raise SystemExit(f"no emoji-turbo has latents of {channels} channels: run stage 7, python -m training.distil")


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
    prompts = Prompts(rows, text, tokenizer)
    shape = (args.batch, teacher.config.in_channels, 16, 16)
    run = Run(
        args.work / "turbo",
        args.images,
        args.batch,
        args.learning_rate,
        average=0.98,
        weight_decay=0.0,
        decay=late_linear,
    )

    def loss_of(step: int) -> dict[str, Tensor]:
        start = reached(student, prompts, step, shape)
        with torch.no_grad():
            goal = end_of_trajectory(teacher, start.z, start.stop, start.states, args.guidance)
        clean, _ = estimate(student, start.z, start.stop, start.states[1])
        squared = (clean - goal).square().mean((1, 2, 3))
        return {"loss": ((squared + HUBER**2).sqrt() - HUBER).mean(), "squared": squared.mean()}

    train(run, nn.ModuleDict({"unet": student}), loss_of)


if __name__ == "__main__":
    main()
