"""Stage 7b: emoji-turbo-sharp, a LoRA on emoji-turbo that matches distributions, as SDXL Turbo's kin are trained.

    python -m training.sharpen --work WORK

Stage 7 has the student name the end of one trajectory, and where several ends are possible it names what lies between
them, which is soft. Here no target is given. Clean estimates x of the student, from states that it reaches itself, are
noised, and two networks say what they were: the teacher with guidance, which knows what captions should show (real),
and a copy of the teacher that goes on learning from the student's own estimates (fake). The student moves along

    x_fake - x_real        divided by the mean of |x - x_real| of the picture,

the gradient of the Kullback-Leibler divergence between what it draws and what it should draw, summed over noise levels
(distribution matching: Yin et al., CVPR 2024, eq. 7 and 8, in terms of clean estimates; written from these formulas).
Pictures get sharp, and the student hard to invert: it is no default, it is the model on which a method can fail.

The LoRA is on all linear layers and convolutions, so that diffusers' own `load_lora_weights` takes it. It is trained
on the student as it is shipped, in 16 bit. No picture is needed, only captions of the training split. Writes
WORK/sharp/checkpoint.safetensors (resumable); training/export.py makes the file that is loaded.
"""

import argparse
import copy
import hashlib
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from torch import Tensor, nn

from training.distil import load_turbo
from training.fused import fuse
from training.loop import DEVICE, Companion, Run, keep_memory, late_linear, load_average, train
from training.pictures import load_rows
from training.rollouts import Prompts, estimate, guided, level, noise_of, reached
from training.text_to_emoji import load_emoji

RANK = 16
FAKE_RATE = 2e-4
ALONE = 60  # steps in which only the fake learns, until it knows what the student draws
NOISINGS = 2  # of each picture, for the fake
NOISED = (20, 980)  # timesteps of noised estimates, both included


def student_as_shipped(work: Path) -> UNet2DConditionModel:
    """The student of stage 7, rounded to 16 bit."""
    return load_turbo(work).half().float()


def add_lora(student: UNet2DConditionModel, rank: int = RANK) -> UNet2DConditionModel:
    """The same network with a LoRA that changes nothing yet, and whose weights alone require a gradient.

    One rank, and alpha equal to it, since that is what diffusers takes for granted.
    """
    names = [name for name, module in student.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    student.requires_grad_(False).add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=names))
    return student


def check_base(work: Path, student: UNet2DConditionModel) -> None:
    """Refuses to go on with a LoRA that was begun on another student. Call it before the LoRA is added."""
    digest = hashlib.sha256()
    for value in student.state_dict().values():
        digest.update(value.half().cpu().contiguous().numpy().tobytes())
    path = work / "sharp/base.txt"
    if path.exists() and path.read_text() != digest.hexdigest():
        raise SystemExit(f"{path.parent} was begun on another emoji-turbo than the one there is now: move it away")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(digest.hexdigest())


def load_sharp(work: Path) -> tuple[UNet2DConditionModel, int]:
    """The student with the averaged LoRA of this stage's newest checkpoint, and the steps that it has seen."""
    student = student_as_shipped(work)
    check_base(work, student)
    step = load_average(work / "sharp/checkpoint.safetensors", nn.ModuleDict({"unet": add_lora(student)}))
    return student.eval(), step


def matching_loss(clean: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """A number whose gradient by ``clean`` is the direction above, divided by the count of numbers.

    Args:
        clean: the student's pictures (B, ...), with a gradient.
        real: what the teacher takes them for after noising, same shape, without a gradient.
        fake: what the fake takes them for, likewise.
    """
    with torch.no_grad():
        distance = (clean - real).abs().flatten(1).mean(1).clamp_min(1e-6)
        direction = (fake - real) / distance.view(-1, *[1] * (clean.ndim - 1))
    return 0.5 * (clean - (clean - direction).detach()).square().mean()


def noised(clean: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures noised to a level by chance each: latents, timesteps (B,), noise."""
    t = torch.randint(NOISED[0], NOISED[1] + 1, (len(clean),), generator=generator).to(clean.device)
    noise = torch.randn(clean.shape, generator=generator).to(clean.device)
    alpha, sigma = level(t)
    return alpha * clean + sigma * noise, t, noise


def sharpen(
    run: Run,
    student: UNet2DConditionModel,
    teacher: UNet2DConditionModel,
    prompts: Prompts,
    *,
    guidance: float,
    alone: int = ALONE,
) -> None:
    """Trains the weights of ``student`` that require a gradient, in place, for square latents of its sample size."""
    fake = copy.deepcopy(teacher).requires_grad_(True).train()
    side = teacher.config.sample_size
    shape = (run.batch, teacher.config.in_channels, side, side)
    learnt = [p for p in student.parameters() if p.requires_grad]
    drawn: list[tuple[Tensor, Tensor, torch.Generator]] = []  # of this step: pictures, states of captions, chance

    def loss_of(step: int) -> dict[str, Tensor]:
        start = reached(student, prompts, step, shape)
        with torch.set_grad_enabled(step >= alone):
            clean, _ = estimate(student, start.z, start.stop, start.states[1])
        drawn[:] = [(clean.detach(), start.states[1], start.generator)]
        if step < alone:
            nothing = sum(p.sum() for p in learnt) * 0.0  # has a gradient, which is 0
            return {"loss": nothing, "gap": nothing}
        with torch.no_grad():
            z, t, _ = noised(clean, start.generator)
            alpha, sigma = level(t)
            real = (z - sigma * guided(teacher, z, t, start.states, guidance)) / alpha
            taken = (z - sigma * noise_of(fake, z, t, start.states[1])) / alpha
        return {"loss": matching_loss(clean, real, taken), "gap": (real - taken).square().mean()}

    def fake_loss(step: int) -> dict[str, Tensor]:
        clean, states, generator = drawn.pop()
        z, t, noise = noised(clean.repeat(NOISINGS, 1, 1, 1), generator)
        predicted = noise_of(fake, z, t, states.repeat(NOISINGS, 1, 1))
        return {"loss": (predicted - noise).square().mean()}

    train(
        run,
        nn.ModuleDict({"unet": student}),
        loss_of,
        companion=Companion(nn.ModuleDict({"fake": fake}), fake_loss, FAKE_RATE),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/training"))
    parser.add_argument("--images", type=int, default=16_000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=4e-4)
    parser.add_argument("--guidance", type=float, default=4.0, help="of the teacher")
    args = parser.parse_args()
    keep_memory()
    torch.manual_seed(0)
    rows = load_rows(args.work, "train")
    teacher, text, tokenizer = load_emoji(args.work)
    student = student_as_shipped(args.work)
    check_base(args.work, student)
    student = fuse(add_lora(student)).to(DEVICE, memory_format=torch.channels_last).train()
    teacher = fuse(teacher).to(DEVICE, memory_format=torch.channels_last).requires_grad_(False)
    text.to(DEVICE).requires_grad_(False)
    run = Run(
        args.work / "sharp",
        args.images,
        args.batch,
        args.learning_rate,
        warmup=ALONE + 40,
        average=0.98,
        weight_decay=0.0,
        decay=late_linear,
    )
    sharpen(run, student, teacher, Prompts(rows, text, tokenizer), guidance=args.guidance)


if __name__ == "__main__":
    main()
