"""How hard a few-step model is to invert: by how much a pass of plain renoising multiplies what is left to solve."""

import renoise
from renoise.core.settings import Region, Settings

pipe = renoise.models.load("emoji-turbo")
plain = Settings(regions=(Region(iterations=5),), num_inference_steps=4)  # six passes a step, nothing else
inv = renoise.invert(pipe, renoise.models.EXAMPLE, prompt="red apple, blob style", preset=plain)
for step in inv.trajectory.steps:
    first, last = step.residuals[0], step.residuals[-1]
    factor = (last / first) ** (1 / (len(step.residuals) - 1))
    print(f"t = {step.timestep:4.0f}: times {float(factor[0]):.2f} a pass")
