"""The pipeline and the inversion that a command line names."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import typer
from PIL import Image
from rich.markup import escape

import renoise
from renoise import images, models
from renoise.apps.cli.output import console
from renoise.pipelines.loading import check_name, half_precision, quieten

__all__ = ["Chosen", "inverted", "keywords", "pipeline", "saved"]


@dataclass(frozen=True)
class Chosen:
    """The options that say which pipeline to use.

    Attributes:
        model: an embedded model, a folder or a name on the hub; None for the default.
        scheduler: a scheduler class in place of the model's own.
        dtype: precision of the networks.
        scheduler_config: settings of the scheduler, each as key=value.
        make_invertible: whether to exchange a scheduler that cannot be inverted.
    """

    model: str | None = None
    scheduler: str | None = None
    dtype: str | None = None
    scheduler_config: tuple[str, ...] = ()
    make_invertible: bool = False


def pipeline(chosen: Chosen) -> Any:
    """A pipeline by name, on the accelerator where there is one, whose progress bars count passes."""
    name = "emoji-turbo" if chosen.model is None else chosen.model
    quieten()
    pipe = models.load(name, dtype=chosen.dtype or _usual_dtype(name), scheduler=chosen.scheduler)
    if chosen.scheduler_config:
        pipe.scheduler = _configured(pipe.scheduler, chosen.scheduler_config)
    if chosen.make_invertible:
        console.print(escape(renoise.make_invertible(pipe)), highlight=False, soft_wrap=True)
    if torch.accelerator.is_available():
        pipe.to(torch.accelerator.current_accelerator())
    return _with_bars(pipe)


def _usual_dtype(name: str) -> str:
    """float32 on a CPU and for the embedded models, which are small; half precision for others on a GPU."""
    if name in models.NAMES or not torch.accelerator.is_available():
        return "float32"
    check_name(name, models.NAMES)
    return half_precision(name)


def _configured(scheduler: Any, settings: tuple[str, ...]) -> Any:
    """The scheduler with some settings changed."""
    changes: dict[str, Any] = {}
    for setting in settings:
        key, _, text = setting.partition("=")
        if key not in scheduler.config or key.startswith("_"):
            known = ", ".join(name for name in scheduler.config if not name.startswith("_"))
            raise ValueError(f"--scheduler-config {setting}: {type(scheduler).__name__} has no {key!r}; it has {known}")
        try:
            changes[key] = json.loads(text.lower() if text in ("True", "False") else text)
        except ValueError:
            changes[key] = None if text == "None" else text
    return type(scheduler).from_config(scheduler.config, **changes)


def _with_bars(pipe: Any) -> Any:
    """Progress bars that count passes, and make room for the results."""
    pipe.set_progress_bar_config(unit=" passes", leave=False)
    return pipe


def inverted(
    picture: Path,
    prompt: str | None,
    chosen: Chosen,
    *,
    size: str | None,
    strength: float | None,
    seed: int | None,
    **settings: Any,
) -> renoise.Inversion:
    """The inversion of a picture file; the picture is read before any model is loaded.

    Where no prompt is given, the judge of the embedded models suggests one; other models are asked with none.
    """
    if prompt is not None and not prompt.strip():
        raise typer.BadParameter('say what the picture shows, e.g. --prompt "red apple, blob style", or leave it out')
    source = images.open_image(picture)
    pipe = pipeline(chosen)
    if prompt is None:
        prompt = _suggested(pipe, source)
    return renoise.invert(
        pipe,
        source,
        prompt,
        **keywords(size),
        strength=1.0 if strength is None else strength,
        seed=seed or 0,
        **settings,
    )


def keywords(size: str | None, **given: Any) -> dict[str, Any]:
    """Keywords of the API for the options that were given, and the size, N or HEIGHTxWIDTH, as (height, width)."""
    if size:
        numbers = [int(side) for side in size.split("x")]
        given["size"] = (numbers[0], numbers[-1])
    return {name: value for name, value in given.items() if value is not None}


def _suggested(pipe: Any, source: Image.Image) -> str:
    """What an embedded model's picture shows, as the judge sees it; nothing for other models. Says which."""
    if models.name_of(pipe) is None:
        console.print("[dim]without --prompt: inverted with the empty prompt, so edits keep less of the picture[/dim]")
        return ""
    picture, _ = images.fit(source, (64, 64))
    (caption,) = models.judge().captions(images.to_tensor([picture]))
    console.print(f"[dim]without --prompt: the judge suggests[/dim] {escape(caption)!r}", highlight=False)
    return caption


def saved(path: Path, chosen: Chosen) -> renoise.Inversion:
    """The inversion in a file, with the pipeline named, or the embedded model that it was made with."""
    if chosen.model is not None:
        if not path.is_file():  # before the model is loaded
            raise renoise.ArchiveError(f"{path} does not exist; pass a file that renoise invert wrote")
        return renoise.load(path, pipeline(chosen))
    if chosen != Chosen():
        raise typer.BadParameter(
            "--scheduler and --dtype belong to a --model, as --scheduler-config and --make-invertible do; name the one "
            "to regenerate with"
        )
    quieten()
    inversion = renoise.load(path)
    _with_bars(inversion.pipe)
    return inversion
