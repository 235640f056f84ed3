"""Z-Image Turbo: 9 steps of flow matching without guidance.

python examples/models/z_image_turbo.py cat.jpg "a cat on a sofa" "a tiger on a sofa" tiger.png
"""

import sys

import torch
from diffusers import ZImagePipeline

import renoise

picture, prompt, target, output = sys.argv[1:]
device = "cuda" if torch.cuda.is_available() else "cpu"
pipe = ZImagePipeline.from_pretrained("Tongyi-MAI/Z-Image-Turbo", dtype=torch.bfloat16)
inv = renoise.invert(pipe.to(device), picture, prompt, preset="few-step", num_inference_steps=9, strength=0.7)
print(f"{inv.passes} passes, {inv.fidelity().item():.1f} dB of {inv.ceiling().item():.1f} dB")
inv.edit(target).save(output)
