"""Invert real images into diffusion models and edit them with words: ReNoise (Garibi et al., ECCV 2024).

    import renoise
    pipe = renoise.models.load("emoji-turbo")  # or a diffusers pipeline of your own
    inv = renoise.invert(pipe, "picture.png", prompt="red apple, blob style")
    inv.edit("green apple, blob style").save("edited.png")

Importing this costs torch and nothing else; diffusers and transformers are imported when a pipeline is used.
"""

from renoise import models, presets
from renoise.api import Inversion, invert
from renoise.archive import ArchiveError, load
from renoise.core.loop import Trajectory
from renoise.core.table import NotInvertible, StepTable
from renoise.images import ImageError
from renoise.pipelines.invertible import make_invertible
from renoise.presets import EditLosses, Region, Settings

__version__ = "0.1.0"

__all__ = [
    "ArchiveError",
    "EditLosses",
    "ImageError",
    "Inversion",
    "NotInvertible",
    "Region",
    "Settings",
    "StepTable",
    "Trajectory",
    "invert",
    "load",
    "make_invertible",
    "models",
    "presets",
]
