"""Invert real images into diffusion models and edit them with words: ReNoise (Garibi et al., ECCV 2024).

    import renoise
    pipe = renoise.models.load("emoji-turbo")  # or a diffusers pipeline of your own
    inv = renoise.invert(pipe, "picture.png", prompt="red apple, blob style")
    inv.edit("green apple, blob style").save("edited.png")

Importing this package imports torch. diffusers and transformers are imported when a pipeline is used.
"""

from renoise import models, presets
from renoise.api import invert, load
from renoise.archive import ArchiveError
from renoise.core.progress import Cancelled, Progress
from renoise.core.settings import EditLosses, Region, Settings
from renoise.core.table import StepTable
from renoise.core.trajectory import Trajectory
from renoise.edited import Edited
from renoise.images import ImageError
from renoise.inverted import Inversion
from renoise.pipelines.invertible import make_invertible
from renoise.pipelines.measure import NotInvertible
from renoise.record import Record

__version__ = "0.1.0"

__all__ = [
    "ArchiveError",
    "Cancelled",
    "EditLosses",
    "Edited",
    "ImageError",
    "Inversion",
    "NotInvertible",
    "Progress",
    "Record",
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
