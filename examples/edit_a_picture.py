"""Invert one picture and edit it several ways from the same noise."""

import renoise

pipe = renoise.models.load("emoji-turbo")
inv = renoise.invert(pipe, renoise.models.EXAMPLE, prompt="red apple, blob style")
print(f"reconstructed at {float(inv.fidelity()):.1f} dB, the auto-encoder's ceiling is {float(inv.ceiling()):.1f} dB")
for prompt in ("green apple, blob style", "tangerine, blob style", "red apple, openmoji style"):
    inv.edit(prompt).save(f"{prompt.replace(', ', '-').replace(' ', '-')}.png")
