"""Measures the newest checkpoints of stages 6, 6b, 7 and 7b, before their export: what the judge finds in pictures.

    python -m training.measure --work WORK --model emoji --prompts 512
    python -m training.measure --work WORK --model emoji-turbo --scheduler LCMScheduler --sheet sheet.png
    python -m training.measure --work WORK --model emoji-flow --blanks 1

Draws the prompts of the training split in benchmarks/pictures and all pairs of concept and style of a held-out split
by the stock pipeline, picture i from seed i. The judge was trained at 64 pixels: it sees the mean of 2x2 pixels.
The auto-encoder is measured by `python -m training.grow --measure SPLIT`.
"""

import argparse
import json
from pathlib import Path

import diffusers
import torch
from torch import Tensor
from tqdm import tqdm

from renoise import models
from renoise.figures import sheet
from renoise.images import to_pil
from training.distil import load_turbo
from training.export import load_pipeline, turbo_scheduler
from training.flow import load_flow
from training.fused import fuse
from training.held_out import FOLDER
from training.loop import DEVICE, fast_precision, keep_memory
from training.pictures import load_rows
from training.sharpen import load_sharp

BATCH = 32
FLOW, STUDENTS = "emoji-flow", ("emoji-turbo", "emoji-turbo-sharp")


@torch.no_grad()
def draw(
    pipe: diffusers.DiffusionPipeline, captions: list[str], steps: int, guidance: float, **keywords: float
) -> Tensor:
    """Pictures (N, 3, side, side) in [0, 1]."""
    drawn = []
    for start in tqdm(range(0, len(captions), BATCH), mininterval=10):
        part = captions[start : start + BATCH]
        seeds = [torch.Generator().manual_seed(start + i) for i in range(len(part))]
        with fast_precision():
            chosen = {"num_inference_steps": steps, "guidance_scale": guidance} | keywords
            drawn.append(pipe(part, generator=seeds, output_type="pt", **chosen).images)
    return torch.cat(drawn).float().cpu()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/training"))
    parser.add_argument("--model", default="emoji", choices=["emoji", *STUDENTS, FLOW])
    parser.add_argument("--scheduler", help="a diffusers scheduler class in place of the model's own")
    parser.add_argument("--steps", type=int, help="50 for emoji, 4 for the students, 28 for emoji-flow")
    parser.add_argument(
        "--blanks", type=int, default=256, help="tokens of zeros after emoji-flow's captions; 1 is faster"
    )
    parser.add_argument("--prompts", type=int, default=512, help="at most so many of either kind")
    parser.add_argument("--split", default="validation", choices=["validation", "test"])
    parser.add_argument("--sheet", type=Path, help="where to write a contact sheet of the first 40 held-out pairs")
    args = parser.parse_args()
    keep_memory()
    torch.manual_seed(0)
    turbo, flow = args.model in STUDENTS, args.model == FLOW
    pipe = load_flow(args.work) if flow else load_pipeline(args.work)
    if turbo:
        pipe.unet = load_turbo(args.work) if args.model == "emoji-turbo" else load_sharp(args.work)[0]
        pipe.scheduler = turbo_scheduler()
    if args.scheduler:
        pipe.scheduler = getattr(diffusers, args.scheduler).from_config(pipe.scheduler.config)
    pipe.to(DEVICE)
    if flow:  # its sampler would keep latents in the precision of the network's answer
        pipe.transformer.register_forward_hook(lambda module, given, answer: tuple(part.float() for part in answer))
    else:
        fuse(pipe.unet).to(memory_format=torch.channels_last)
    pipe.set_progress_bar_config(disable=True)
    steps, guidance = args.steps or (4 if turbo else 28 if flow else 50), 1.0 if turbo else 4.0
    keywords = {"max_sequence_length": args.blanks} if flow else {}
    rows = load_rows(args.work, args.split)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()  # as training.held_out
    trained = json.loads((FOLDER / "training-prompts.json").read_text())
    pairs = {
        "training": [(row["concept"], row["style"]) for row in trained],
        args.split: [(rows[i]["label"], rows[i]["style"]) for i in order],
    }
    judge = models.judge()
    for kind, prompts in pairs.items():
        concepts, styles = (list(part) for part in zip(*prompts[: args.prompts], strict=True))
        captions = [f"{concept}, {style} style" for concept, style in zip(concepts, styles, strict=True)]
        drawn = draw(pipe, captions, steps, guidance, **keywords)
        scores = judge.accuracy(drawn, concepts, styles)
        print(json.dumps({"model": args.model, "prompts": kind, "n": len(drawn), "steps": steps} | scores), flush=True)
        if args.sheet and kind == args.split:
            sheet(to_pil(drawn[:40]), captions[:40], columns=10, side=128).save(args.sheet)


if __name__ == "__main__":
    main()
