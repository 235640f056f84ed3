"""Scores of the embedded models on held-out data, and contact sheets of what they draw.

    python -m benchmarks.models

Auto-encoder: PSNR of its round trip. Judge: accuracy on real pictures, the ceiling of the rest. Generators: how often
the judge finds the prompted concept (of all it knows) and style in what they draw, for prompts of the training split
and for held-out pairs of concept and style. Writes benchmarks/results/models.json and docs/pictures/samples-*.png.
"""

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks import pictures
from renoise import metrics, models
from renoise.figures import sheet
from renoise.images import to_pil
from renoise.pipelines.adapter import Adapter

RESULTS = Path(__file__).parent / "results"
SHEETS = Path(__file__).parents[1] / "docs/pictures"
BATCH = 32
GENERATORS = {
    "emoji": ("emoji", None, 50, 4.0),
    "emoji-turbo": ("emoji-turbo", None, 4, 1.0),
    "emoji-turbo, LCM": ("emoji-turbo", "LCMScheduler", 4, 1.0),
}


@torch.no_grad()
def generate(name: str, captions: list[str], dtype: str, label: str) -> Tensor:
    """Pictures (N, 3, 64, 64) by the stock pipeline call; picture i is drawn from seed i."""
    model, scheduler, steps, guidance = GENERATORS[name]
    pipe = models.load(model, dtype=dtype, scheduler=scheduler)
    pipe.set_progress_bar_config(disable=True)
    codec, drawn = Adapter(pipe).codec, []
    for start in tqdm(range(0, len(captions), BATCH), desc=f"{name}: {label}"):
        part = captions[start : start + BATCH]
        generators = [torch.Generator().manual_seed(start + i) for i in range(len(part))]
        latents = pipe(
            part, num_inference_steps=steps, guidance_scale=guidance, generator=generators, output_type="latent"
        ).images
        drawn.append(codec.decode(latents.float(), (64, 64)))
    return torch.cat(drawn)


def round_trip(split: str) -> dict[str, float]:
    codec = Adapter(models.load("emoji")).codec
    parts = torch.split(pictures.load(split).pixels, 64)
    scores = metrics.psnr(torch.cat([codec.decode(codec.encode(part), (64, 64)) for part in parts]), torch.cat(parts))
    return {
        "mean": round(float(scores.mean()), 2),
        "p5": round(float(scores.quantile(0.05)), 2),
        "worst": round(float(scores.min()), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", default="test", choices=["test", "validation"])
    parser.add_argument(
        "--dtype", default="float32", help="of the networks; bfloat16 is faster where the processor has it"
    )
    parser.add_argument("--prompts", type=int, default=512)
    args = parser.parse_args()
    judge = models.judge()
    report: dict[str, dict[str, float]] = {}
    for split in (args.split, "artist"):
        report[f"auto-encoder, dB, {split}"] = round_trip(split)
    held_out, artist = pictures.load(args.split), pictures.load("artist")
    report[f"judge, real pictures, {args.split}"] = judge.accuracy(held_out.pixels, held_out.concepts, held_out.styles)
    report["judge, real pictures, artist"] = judge.accuracy(artist.pixels, artist.concepts, artist.styles)
    trained = json.loads((pictures.FOLDER / "training-prompts.json").read_text())[: args.prompts]
    pairs = {"training prompts": [(row["concept"], row["style"]) for row in trained]}
    pairs["held-out pairs"] = list(zip(held_out.concepts, held_out.styles, strict=True))
    SHEETS.mkdir(parents=True, exist_ok=True)
    for name in GENERATORS:
        for kind, prompts in pairs.items():
            captions = [f"{concept}, {style} style" for concept, style in prompts]
            drawn = generate(name, captions, args.dtype, kind)
            report[f"{name}, {kind}"] = judge.accuracy(drawn, [c for c, _ in prompts], [s for _, s in prompts])
            if kind == "held-out pairs" and name in models.NAMES:  # one contact sheet a model
                picture = sheet(to_pil(drawn[:40]), captions[:40], columns=10, side=128)
                picture.save(SHEETS / f"samples-{name}.png", optimize=True)
    for name, scores in report.items():
        print(f"{name:42s}", "  ".join(f"{key} {value:.4g}" for key, value in scores.items()))
    RESULTS.mkdir(exist_ok=True)
    record = {
        "split": args.split,
        "dtype": args.dtype,
        "prompts": args.prompts,
        "torch": torch.__version__,
        "scores": report,
    }
    (RESULTS / "models.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
