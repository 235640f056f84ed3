"""SDXL with the LCM-LoRA: 4 steps of the LCM sampler, no guidance.

python examples/models/lcm_lora_sdxl.py cat.jpg "a cat on a sofa" "a tiger on a sofa" tiger.png
"""

import sys

import torch
from diffusers import LCMScheduler, StableDiffusionXLPipeline

import renoise

picture, prompt, target, output = sys.argv[1:]
device = "cuda" if torch.cuda.is_available() else "cpu"
pipe = StableDiffusionXLPipeline.from_pretrained(
    "stabilityai/stable-diffusion-xl-base-1.0", dtype=torch.float16, variant="fp16"
)
pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
pipe.load_lora_weights("latent-consistency/lcm-lora-sdxl")
inv = renoise.invert(pipe.to(device), picture, prompt)  # preset "few-step"
print(f"{inv.passes} passes, {inv.fidelity().item():.1f} dB of {inv.ceiling().item():.1f} dB")
inv.edit(target).save(output)
