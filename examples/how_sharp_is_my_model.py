"""Is a few-step model a sharp one, hard to invert? What the preset `fast` leaves of eight pictures that it drew.

The number is in dB to what the auto-encoder alone gives back. `emoji-turbo`, taught by the ends of its teacher's
trajectories, has 45 here; `emoji-turbo-sharp`, taught by distribution matching as the kin of SDXL Turbo and DMD2
are, has 36. Below 40, take the preset `sharp`.
"""

import torch

import renoise
from renoise import metrics

pipe = renoise.models.load("emoji-turbo")  # or one of your own
words = ("red apple", "dog face", "rainbow", "pizza", "house", "rocket", "sad face", "tulip")
prompts = [f"{word}, noto style" for word in words]

generator = torch.Generator().manual_seed(0)
drawn = pipe(prompts, num_inference_steps=4, guidance_scale=1.0, generator=generator).images
inv = renoise.invert(pipe, drawn, prompts, preset="fast")
left = metrics.psnr(inv.regenerate(inv.scene), inv.round_trip())
print(f"{left.mean():.1f} dB in the mean, {left.min():.1f} dB at least: take the preset", end=" ")
print("sharp" if left.mean() < 40 else "few-step, the default, or fast")
