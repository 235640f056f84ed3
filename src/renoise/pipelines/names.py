"""Names of pipelines and schedulers, checked before a library is imported, which takes seconds."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path

from renoise.core.checks import shown

__all__ = ["check_name", "check_scheduler_name", "unknown_scheduler"]


def check_name(name: str, embedded: Sequence[str]) -> None:
    """Refuses what is neither the folder of a pipeline nor a name on the hub, before any library is imported.

    Args:
        name: of a pipeline that is no embedded model.
        embedded: names of the embedded models, for the error.

    Raises:
        ValueError: such a name.
    """
    if (Path(name) / "model_index.json").is_file():
        return
    if name and Path(name).is_dir():
        raise ValueError(f"the folder {name!r} holds no model_index.json, so it is no diffusers pipeline")
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name):
        raise ValueError(
            f"no embedded model is called {shown(name)}; there are {', '.join(embedded)}; or name the folder of a "
            "diffusers pipeline, or one on the hub as owner/name"
        )


def check_scheduler_name(name: str) -> None:
    """Refuses, by ValueError, a scheduler of which the list of what diffusers has does not speak."""
    if not isinstance(name, str):
        raise unknown_scheduler(name)
    found = importlib.util.find_spec("diffusers")  # imports nothing
    if found and found.origin and f'"{name}"' not in Path(found.origin).read_text():
        raise unknown_scheduler(name)


def unknown_scheduler(name: object) -> ValueError:
    """The error for a name that is no scheduler's."""
    return ValueError(
        f"diffusers has no scheduler {shown(name)}; try EulerAncestralDiscreteScheduler, LCMScheduler or DDIMScheduler"
    )
