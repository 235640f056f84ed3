"""Look inside: how far each pass moved the estimate, step by step, and what correction did to the sampler's noise."""

import renoise

pipe = renoise.models.load("emoji-turbo")
inv = renoise.invert(pipe, renoise.models.EXAMPLE, prompt="red apple, blob style")
for step in inv.trajectory.steps:
    moved = "  ".join(f"{float(change):.3f}" for change in step.residuals[:, 0])
    noise = "" if step.noise_std is None else f"  noise std {float(step.noise_std[0]):.2f}"
    print(f"t = {step.timestep:4.0f}: {moved}{noise}")
