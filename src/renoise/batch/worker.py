"""A pipeline that is ready to work on a batch: checked before any pass, and the same as that of all other workers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from renoise import files
from renoise.batch.folder import Batch, Work
from renoise.batch.work import check, work
from renoise.pipelines.adapter import Adapter
from renoise.pipelines.identity import difference, identity
from renoise.presets import chosen_settings
from renoise.record import Identity

__all__ = ["ready"]

_CHOSEN = ("preset", "passes", "tol", "num_inference_steps", "guidance_scale", "inversion_guidance_scale")


def ready(batch: Batch, pipe: Any) -> Work:
    """The work of this pipeline for this batch.

    Raises:
        ValueError: another pipeline, scheduler or preset than that of the workers before, in this run or earlier.
        NotInvertible, TypeError, ValueError: whatever `renoise.invert` has against the recipe.
    """
    recipe = batch.recipe
    check(pipe, recipe)
    _hold(batch.folder / "model.json", pipe, recipe.invert)
    return partial(work, pipe, recipe)


def _hold(path: Path, pipe: Any, keywords: Mapping[str, Any]) -> None:
    """Writes down what the results depend on besides the recipe, or compares it with what was written before."""
    settings = chosen_settings(Adapter(pipe), **{name: keywords[name] for name in _CHOSEN if name in keywords})
    scheduler = json.dumps(dict(pipe.scheduler.config), sort_keys=True, default=str)
    now = {"scheduler": type(pipe.scheduler).__name__, "scheduler config": scheduler, "settings": repr(settings)}
    if not path.exists():
        files.write(path, json.dumps({"identity": asdict(identity(pipe)), **now}).encode())
        return
    before = json.loads(path.read_text())
    then = {**before["identity"], "weights": {name: tuple(row) for name, row in before["identity"]["weights"].items()}}
    if other := difference(Identity(**then), pipe):
        raise ValueError(f"{path.parent} was made {other}, or name another folder for the results")
    for name, value in now.items():
        if before[name] != value:
            raise ValueError(
                f"{path.parent} was made with the {name} {before[name]}, and this is {value}; name another folder for "
                "the results"
            )
