"""FLUX.1 schnell: 4 steps of flow matching, offloaded to fit a consumer GPU.

python examples/models/flux_schnell.py cat.jpg "a cat on a sofa" "a tiger on a sofa" tiger.png
"""

import sys

import torch
from diffusers import FluxPipeline

import renoise

picture, prompt, target, output = sys.argv[1:]
pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-schnell", dtype=torch.bfloat16)
if torch.cuda.is_available():
    pipe.enable_model_cpu_offload()
inv = renoise.invert(pipe, picture, prompt, strength=0.75)  # preset "few-step", 4 steps
print(f"{inv.passes} passes, {inv.fidelity().item():.1f} dB of {inv.ceiling().item():.1f} dB")
inv.edit(target).save(output)
