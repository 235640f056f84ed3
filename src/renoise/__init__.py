"""Invert real images into diffusion models and edit them with words: ReNoise (Garibi et al., ECCV 2024).

    import renoise
    pipe = renoise.models.load("emoji-turbo")  # or a diffusers pipeline of your own
    inv = renoise.invert(pipe, "picture.png", prompt="red apple, blob style")
    inv.edit("green apple, blob style").save("edited.png")

Importing this package imports nothing else, so that a program can show a mistake of its user at once. torch is imported
when a name of this package is first used, diffusers and transformers when a pipeline is.
"""

TYPE_CHECKING = False  # as in typing, which is not imported here

if TYPE_CHECKING:
    from renoise import models, presets
    from renoise.api import invert, load
    from renoise.archive import ArchiveError
    from renoise.core.progress import Cancelled, Progress
    from renoise.core.settings import EditLosses, Region, Settings
    from renoise.core.table import StepTable
    from renoise.core.trajectory import Trajectory
    from renoise.drawn import edit
    from renoise.edited import Edited
    from renoise.images import ImageError
    from renoise.inverted import Inversion
    from renoise.pipelines.invertible import make_invertible
    from renoise.pipelines.kind import Family, Loop
    from renoise.pipelines.measure import NotInvertible
    from renoise.pipelines.turns import waiting
    from renoise.record import Record
    from renoise.registration import FamilyError, register_family

__version__ = "0.1.0"

__all__ = [
    "ArchiveError",
    "Cancelled",
    "EditLosses",
    "Edited",
    "Family",
    "FamilyError",
    "ImageError",
    "Inversion",
    "Loop",
    "NotInvertible",
    "Progress",
    "Record",
    "Region",
    "Settings",
    "StepTable",
    "Trajectory",
    "edit",
    "invert",
    "load",
    "make_invertible",
    "models",
    "presets",
    "register_family",
    "waiting",
]

# Where each name comes from, by module; the same as above for whoever reads types.
_ORIGINS = {
    "api": ("invert", "load"),
    "archive": ("ArchiveError",),
    "core.progress": ("Cancelled", "Progress"),
    "core.settings": ("EditLosses", "Region", "Settings"),
    "core.table": ("StepTable",),
    "core.trajectory": ("Trajectory",),
    "drawn": ("edit",),
    "edited": ("Edited",),
    "images": ("ImageError",),
    "inverted": ("Inversion",),
    "pipelines.invertible": ("make_invertible",),
    "pipelines.kind": ("Family", "Loop"),
    "pipelines.measure": ("NotInvertible",),
    "pipelines.turns": ("waiting",),
    "record": ("Record",),
    "registration": ("FamilyError", "register_family"),
}

if not TYPE_CHECKING:  # or every name would be right for whoever reads types

    def __getattr__(name: str) -> object:
        """A public name, or a module of this package, when it is first used (PEP 562)."""
        import importlib.util

        for origin, names in _ORIGINS.items():
            if name in names:
                found = getattr(importlib.import_module(f"{__name__}.{origin}"), name)
                break
        else:
            if name.startswith("_") or importlib.util.find_spec(f"{__name__}.{name}") is None:
                raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
            found = importlib.import_module(f"{__name__}.{name}")
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        import pkgutil

        modules = (module.name for module in pkgutil.iter_modules(__path__))
        return sorted({*__all__, "__version__", *(name for name in modules if not name.startswith("_"))})
