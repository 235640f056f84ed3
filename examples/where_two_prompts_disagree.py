"""Ask for two prompts at the same latents in one query, and draw where their predictions differ."""

import torch
from PIL import Image

import renoise
from renoise.core.query import Job, Query
from renoise.pipelines.adapter import Adapter
from renoise.record import Scene

pipe = renoise.models.load("emoji-turbo")
inv = renoise.invert(pipe, renoise.models.EXAMPLE, "red apple, blob style", keep_latents=True)
adapter = Adapter(pipe)
scenes = [Scene((prompt,), None, 1.0, {}) for prompt in ("red apple, blob style", "green apple, blob style")]


def differences():
    """A generator of queries: at every step, both scenes at the latents of the inversion."""
    total = 0
    for step, z in enumerate(inv.trajectory.step_latents):
        source, target = (yield Query(torch.cat([z, z]), step, scenes=(0, 1))).chunk(2)
        total = total + (target - source).abs().mean(1)
    return total


calls = [adapter.call(scene, len(inv.table), inv.size) for scene in scenes]
job = Job(differences(), inv.table, 2 * len(inv.table))
(found,) = adapter.run(lambda measure: job, calls, driver="direct", stage="compare")
picture = Image.fromarray((255 * found / found.max()).byte().numpy()).resize((256, 256), Image.Resampling.NEAREST)
picture.save("where-two-prompts-disagree.png")
