"""Hand the inverted latents to a call of your own, for samplers that draw no noise, such as Euler and DDIM.

A sampler that draws noise (ancestral Euler, LCM) draws another one there, so use `inv.replaying()` for it.
"""

import numpy as np
from diffusers import EulerDiscreteScheduler

import renoise

pipe = renoise.models.load("emoji", scheduler="EulerDiscreteScheduler")
assert isinstance(pipe.scheduler, EulerDiscreteScheduler)
inv = renoise.invert(pipe, renoise.models.EXAMPLE, "red apple, blob style", num_inference_steps=10)

call = {
    "num_inference_steps": 10,
    "guidance_scale": inv.scene.guidance_scale,
    "height": inv.size[0],
    "width": inv.size[1],
}
# The pipeline multiplies the latents that it is given by init_noise_sigma (1 for DDIM, about 13 for Euler), so divide
# them. Euler knows the right one once it has its steps: before, it has that of another schedule.
pipe.scheduler.set_timesteps(10)
latents = inv.latents / pipe.scheduler.init_noise_sigma
own = pipe("red apple, blob style", latents=latents, **call).images[0]
own.save("own-call.png")

# FLUX and Qwen-Image take the latents as they are; FLUX.2 klein packs them itself, so unpack them for it:
#     height, width = (side // pipe.vae_scale_factor // 2 for side in inv.size)
#     latents = inv.latents.transpose(1, 2).unflatten(2, (height, width))
difference = np.abs(np.asarray(own, dtype=int) - np.asarray(inv.reconstruct(), dtype=int)).max()
print(f"at most {difference} of 255 levels from inv.reconstruct()")
assert difference <= 1
