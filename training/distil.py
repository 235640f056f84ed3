"""Stage 6: the few-step model, a latent-consistency distillation of the many-step one (Luo et al. 2023).

    python -m training.distil --work WORK

The student starts as the teacher, or as the shipped student moved by what the teacher has learnt since it was shipped.
It learns that its clean estimate does not change along the teacher's guided trajectory: estimate(z_t) = average
student's estimate(z_s), with z_s one guided DDIM step (40 of 1000 levels) further.
Guidance is folded in, so the student needs none. Writes WORK/turbo/checkpoint.safetensors (resumable).
"""

import argparse
import copy
import random
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from training.fused import fuse
from training.loop import Run, fast_precision, keep_memory, train
from training.pictures import caption, load_split
from training.text_to_emoji import WEIGHTS, build_scheduler, cached_latents, load_emoji, spread, token_ids

STRIDE = 40
HUBER = 0.03


@torch.no_grad()
def first_student(teacher: UNet2DConditionModel) -> UNet2DConditionModel:
    """A copy of the teacher, plus what an earlier distillation has changed, where the package ships one."""
    student = copy.deepcopy(teacher)
    if (WEIGHTS / "emoji-turbo/unet").exists():
        before, after = (
            UNet2DConditionModel.from_pretrained(WEIGHTS / name / "unet").float().state_dict()
            for name in ("emoji", "emoji-turbo")
        )
        for name, value in student.state_dict().items():
            value.add_(after[name] - before[name])
    return student


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/training"))
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--guidance", type=float, default=4.0, help="guidance scale folded into the student")
    args = parser.parse_args()
    keep_memory()
    torch.manual_seed(0)
    rows, latents = load_split(args.work, "train").rows, cached_latents(args.work, "train")
    teacher, text, tokenizer = load_emoji(args.work)
    student = fuse(first_student(teacher)).to(memory_format=torch.channels_last).train()
    teacher = fuse(teacher).to(memory_format=torch.channels_last).requires_grad_(False)
    target: nn.Module | None = None  # made at the first step, when a resumed student has its weights
    levels = build_scheduler().alphas_cumprod
    run = Run(
        args.work / "turbo", args.images, batch=16, learning_rate=1.5e-4, average=0.995, warmup=100, weight_decay=0.0
    )
    with torch.no_grad():
        nothing = text(token_ids(tokenizer, [""])).last_hidden_state

    def noise_of(unet: nn.Module, z: Tensor, t: Tensor, states: Tensor) -> Tensor:
        with fast_precision():
            return unet(z.to(memory_format=torch.channels_last), t, states).sample.float()

    def loss_of(step: int) -> dict[str, Tensor]:
        nonlocal target
        if target is None:
            target = copy.deepcopy(student).requires_grad_(False)
        generator, rng = torch.Generator().manual_seed(step), random.Random(step)
        index = torch.randint(len(rows), (run.batch,), generator=generator)
        captions = [rows[i]["label"] if rng.random() < 0.1 else caption(rows[i]) for i in index.tolist()]
        t = (1000 * spread(run.batch, generator)).long()
        s = (t - STRIDE).clamp(min=0)
        (alpha_t, sigma_t), (alpha_s, sigma_s) = (
            (levels[level].sqrt().view(-1, 1, 1, 1), (1 - levels[level]).sqrt().view(-1, 1, 1, 1)) for level in (t, s)
        )
        z_t = alpha_t * latents[index] + sigma_t * torch.randn((run.batch, 4, 16, 16), generator=generator)
        with torch.no_grad():
            states = text(token_ids(tokenizer, captions)).last_hidden_state
            both = noise_of(
                teacher, torch.cat([z_t, z_t]), torch.cat([t, t]), torch.cat([nothing.expand_as(states), states])
            )
            without, given = both.chunk(2)
            guided = without + args.guidance * (given - without)
            clean = (z_t - sigma_t * guided) / alpha_t
            z_s = alpha_s * clean + sigma_s * guided
            goal = (z_s - sigma_s * noise_of(target, z_s, s, states)) / alpha_s
            goal = torch.where((s == 0).view(-1, 1, 1, 1), clean, goal)
            torch._foreach_lerp_(list(target.parameters()), [p.detach() for p in student.parameters()], 0.05)
        estimate = (z_t - sigma_t * noise_of(student, z_t, t, states)) / alpha_t
        distance = ((estimate - goal).square().mean((1, 2, 3)) + HUBER**2).sqrt() - HUBER
        return {"loss": distance.mean()}

    train(run, nn.ModuleDict({"unet": student}), loss_of)


if __name__ == "__main__":
    main()
