"""Keep the latents of every step, and look at what each of them shows of the picture: a strip from noise to picture."""

import renoise
from renoise.figures import sheet
from renoise.images import to_pil
from renoise.pipelines.adapter import Adapter

pipe = renoise.models.load("emoji-turbo")
inv = renoise.invert(pipe, renoise.models.EXAMPLE, "red apple, blob style", keep_latents=True)
codec = Adapter(pipe).codec
latents = [*inv.trajectory.step_latents, inv.z_0]
timesteps = [f"t = {step.timestep:.0f}" for step in inv.trajectory.steps] + ["picture"]
strip = sheet([to_pil(codec.decode(z, inv.size))[0] for z in latents], timesteps)
strip.save("latents.png")
