"""Invert one picture and edit it several ways from the same noise."""

import renoise
from renoise.apps.demo import PICTURE

pipe = renoise.models.load("emoji-turbo")
inv = renoise.invert(pipe, PICTURE, prompt="red apple, blob style")
print(f"reconstructed at {float(inv.fidelity()):.1f} dB, the auto-encoder's ceiling is {float(inv.ceiling()):.1f} dB")
for prompt in ("green apple, blob style", "tangerine, blob style", "red apple, openmoji style"):
    inv.edit(prompt).save(f"{prompt.replace(', ', '-').replace(' ', '-')}.png")
