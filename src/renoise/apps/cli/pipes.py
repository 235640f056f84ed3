"""The pipeline and the inversion that a command line names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from PIL import Image
from rich.markup import escape

from renoise.apps.cli.output import console
from renoise.files import missing
from renoise.images import open_image

if TYPE_CHECKING:
    import renoise

__all__ = ["Chosen", "inverted", "keywords", "parsed", "pipeline", "saved", "sides"]


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
    import torch

    from renoise import make_invertible, models
    from renoise.pipelines.loading import quieten

    name = "emoji-turbo" if chosen.model is None else chosen.model
    quieten()
    pipe = models.load(name, dtype=chosen.dtype or _usual_dtype(name), scheduler=chosen.scheduler)
    if chosen.scheduler_config:
        pipe.scheduler = _configured(pipe.scheduler, chosen.scheduler_config)
    if chosen.make_invertible:
        console.print(escape(make_invertible(pipe)), highlight=False, soft_wrap=True)
    if torch.accelerator.is_available():
        pipe.to(torch.accelerator.current_accelerator())
    return _with_bars(pipe)


def _usual_dtype(name: str) -> str:
    """float32 on a CPU and for the embedded models, which are small; half precision for others on a GPU."""
    import torch

    from renoise import models
    from renoise.pipelines.loading import half_precision

    return "float32" if name in models.NAMES or not torch.accelerator.is_available() else half_precision(name)


def _configured(scheduler: Any, settings: tuple[str, ...]) -> Any:
    """The scheduler with some settings changed."""
    changes: dict[str, Any] = {}
    for setting in settings:
        key, _, text = setting.partition("=")
        if key not in scheduler.config or key.startswith("_"):
            known = ", ".join(name for name in scheduler.config if not name.startswith("_"))
            raise ValueError(f"--scheduler-config {setting}: {type(scheduler).__name__} has no {key!r}; it has {known}")
        changes[key] = parsed(text)
    return type(scheduler).from_config(scheduler.config, **changes)


def parsed(text: str) -> Any:
    """A value of the command line as JSON or Python writes it, or the text itself."""
    try:
        return json.loads(text.lower() if text in ("True", "False") else text)
    except ValueError:
        return None if text == "None" else text


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
    to: Sequence[str] = (),
    edit: Mapping[str, Any] | None = None,
    **settings: Any,
) -> renoise.Inversion:
    """The inversion of a picture file; the picture is read before any model is loaded.

    Where no prompt is given, the judge of the embedded models suggests one; other models are asked with none. Edits
    that shall follow, `to` each of some prompts, are checked before the picture is inverted.
    """
    if prompt is not None and not prompt.strip():
        raise typer.BadParameter('say what the picture shows, e.g. --prompt "red apple, blob style", or leave it out')
    source = open_image(picture)
    from renoise import invert

    pipe = pipeline(chosen)
    if edit is not None:
        _check_edits(pipe, settings["preset"], sides(size), to, edit)
    if prompt is None:
        prompt = _suggested(pipe, source)
    return invert(
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
    return {name: value for name, value in {**given, "size": sides(size)}.items() if value is not None}


def sides(size: str | None) -> tuple[int, int] | None:
    """(height, width) of a size, N or HEIGHTxWIDTH."""
    numbers = [int(side) for side in size.split("x")] if size else []
    return (numbers[0], numbers[-1]) if numbers else None


def _suggested(pipe: Any, source: Image.Image) -> str:
    """What an embedded model's picture shows, as the judge sees it; nothing for other models. Says which."""
    from renoise import images, models
    from renoise.judge import SIZE

    if models.name_of(pipe) is None:
        console.print("[dim]without --prompt: inverted with the empty prompt, so edits keep less of the picture[/dim]")
        return ""
    picture, _ = images.fit(source, (SIZE, SIZE))
    (caption,) = models.judge().captions(images.to_tensor([picture]))
    console.print(f"[dim]without --prompt: the judge suggests[/dim] {escape(caption)!r}", highlight=False)
    return caption


def _check_edits(
    pipe: Any, preset: str | None, size: tuple[int, int] | None, prompts: Sequence[str], edit: Mapping[str, Any]
) -> None:
    """Refuses what the pipeline does not take, such as a negative prompt, and more pixels than a side has."""
    from renoise.masks import check_amounts
    from renoise.pipelines.adapter import Adapter
    from renoise.presets import chosen_settings
    from renoise.record import Scene

    adapter = Adapter(pipe)
    height_and_width = adapter.size(size)
    check_amounts(edit["mask_grow"], edit["mask_feather"], height_and_width)
    guidance = chosen_settings(adapter, preset, guidance_scale=edit["guidance_scale"]).guidance_scale
    negatives = None if edit["negative_prompt"] is None else (edit["negative_prompt"],)
    for prompt in prompts:
        adapter.call(Scene((prompt,), negatives, guidance, {}), 1, height_and_width)


def saved(path: Path, chosen: Chosen) -> renoise.Inversion:
    """The inversion in a file, with the pipeline named, or the embedded model that it was made with."""
    if chosen.model is None and chosen != Chosen():
        raise typer.BadParameter(
            "--scheduler and --dtype belong to a --model, as --scheduler-config and --make-invertible do; name the one "
            "to regenerate with"
        )
    what = missing(path)  # before anything is imported
    if what:
        raise ValueError(f"{path} {what}; pass a file that renoise invert wrote")
    from renoise import load
    from renoise.pipelines.loading import quieten

    if chosen.model is not None:
        return load(path, pipeline(chosen))
    quieten()
    inversion = load(path)
    _with_bars(inversion.pipe)
    return inversion
