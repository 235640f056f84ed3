"""Stage 8: write the 16-bit weights that the package ships.

    python -m training.export --work WORK

Takes whatever stages are there, so a weaker model can be exported early.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, EulerAncestralDiscreteScheduler, StableDiffusionPipeline, UNet2DConditionModel
from peft import get_peft_model_state_dict
from safetensors.torch import load_file

from training.distil import load_turbo
from training.sharpen import RANK, load_sharp
from training.text_to_emoji import WEIGHTS, autoencoder_folder, build_scheduler, load_emoji


def load_pipeline(work: Path) -> StableDiffusionPipeline:
    """The many-step model as a stock pipeline, from the newest checkpoints."""
    unet, text, tokenizer = load_emoji(work)
    return StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(autoencoder_folder(work)),
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def turbo_scheduler() -> EulerAncestralDiscreteScheduler:
    config = {key: value for key, value in build_scheduler().config.items() if not key.startswith("_")}
    return EulerAncestralDiscreteScheduler.from_config({**config, "timestep_spacing": "trailing"})


def write_lora(unet: UNet2DConditionModel, folder: Path) -> Path:
    """Writes the LoRA of a network in 16 bit, as diffusers' `load_lora_weights` reads it; returns the file."""
    layers = {name: value.half() for name, value in get_peft_model_state_dict(unet).items()}
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers)
    return folder / "pytorch_lora_weights.safetensors"


def sharp_card(file: Path, steps: int) -> str:
    numbers = sum(value.numel() for value in load_file(file).values())
    return f"""# emoji-turbo-sharp

An embedded model of renoise: a LoRA of rank {RANK} on all linear layers and convolutions of the UNet of emoji-turbo,
{numbers / 1e6:.1f} M numbers in 16 bit ({file.stat().st_size / 1e6:.1f} MB), after {steps} steps of training/sharpen.py
(distribution matching against emoji under guidance, from captions alone). `renoise.models.load("emoji-turbo-sharp")`
loads it, as `pipe.load_lora_weights(folder)` does on emoji-turbo; both need peft. How it scores, and what it is for:
docs/models.md of the project; licences and artists: NOTICE.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/training"))
    args = parser.parse_args()
    # before anything is written, since it may not fit the emoji-turbo that there is
    sharp = load_sharp(args.work) if (args.work / "sharp/checkpoint.safetensors").exists() else None
    pipe = load_pipeline(args.work)
    pipe.to(torch.float16).save_pretrained(WEIGHTS / "emoji")
    if (args.work / "tokenizer").exists():  # else it is the shipped one
        for name in ("vocab.json", "merges.txt"):  # what transformers before 5 reads
            shutil.copy(args.work / "tokenizer" / name, WEIGHTS / "emoji/tokenizer" / name)
    if (args.work / "turbo/checkpoint.safetensors").exists():
        load_turbo(args.work).half().save_pretrained(WEIGHTS / "emoji-turbo/unet")
        turbo_scheduler().save_pretrained(WEIGHTS / "emoji-turbo/scheduler")
    if sharp:
        file = write_lora(sharp[0], WEIGHTS / "emoji-turbo-sharp")
        (file.parent / "README.md").write_text(sharp_card(file, sharp[1]))
    if (args.work / "judge/model").exists():
        shutil.copytree(args.work / "judge/model", WEIGHTS / "judge", dirs_exist_ok=True)
    for path in WEIGHTS.rglob("config.json"):  # no paths of this machine in what is shipped
        config = json.loads(path.read_text())
        if config.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(config, indent=2) + "\n")
    size = sum(path.stat().st_size for path in WEIGHTS.rglob("*.safetensors"))
    print(f"{size / 1e6:.1f} MB of weights in {WEIGHTS}")


if __name__ == "__main__":
    main()
