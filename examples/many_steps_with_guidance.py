"""The many-step model: DDIM, part of the schedule inverted, guidance only while editing."""

import renoise

pipe = renoise.models.load("emoji", dtype="bfloat16")
inv = renoise.invert(pipe, renoise.models.EXAMPLE, prompt="red apple, blob style", num_inference_steps=20, strength=0.7)
inv.edit("pear, blob style", guidance_scale=3.0).save("pear.png")
print(f"{inv.passes} passes for {len(inv.table)} of 20 steps")
