"""SDXL Turbo: 4 steps of ancestral Euler on a trailing grid, no guidance.

python examples/models/sdxl_turbo.py cat.jpg "a cat on a sofa" "a tiger on a sofa" tiger.png
"""

import sys

import torch
from diffusers import AutoPipelineForText2Image

import renoise

picture, prompt, target, output = sys.argv[1:]
device = "cuda" if torch.cuda.is_available() else "cpu"
pipe = AutoPipelineForText2Image.from_pretrained("stabilityai/sdxl-turbo", dtype=torch.float16, variant="fp16")
inv = renoise.invert(pipe.to(device), picture, prompt)  # preset "few-step"
print(f"{inv.passes} passes, {inv.fidelity().item():.1f} dB of {inv.ceiling().item():.1f} dB")
inv.edit(target).save(output)
