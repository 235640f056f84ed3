"""`renoise studio`."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from renoise.apps.cli import pipes
from renoise.apps.cli.options import Dtype, MakeInvertible, Model, Scheduler, SchedulerConfig
from renoise.apps.cli.output import console

__all__ = ["login", "studio"]


def studio(
    model: Model = None,
    scheduler: Scheduler = None,
    scheduler_config: SchedulerConfig = None,
    make_invertible: MakeInvertible = False,
    dtype: Dtype = None,
    captioner: Annotated[
        str | None,
        typer.Option(
            help="A folder or hub name of an image-to-text model that says what a picture shows. The embedded models "
            "have a judge of their own for that."
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 takes any that is free.")] = 7860,
    auth: Annotated[
        str | None,
        typer.Option(
            metavar="VARIABLE|FILE",
            help="Ask for a name and a password: the environment variable, or the file, that holds them as "
            "user:password.",
        ),
    ] = None,
    max_megabytes: Annotated[float, typer.Option(min=0.1, help="The largest upload that is taken.")] = 32,
    max_megapixels: Annotated[float, typer.Option(min=0.01, help="The largest picture that is taken.")] = 25,
    inversions: Annotated[int, typer.Option(min=1, help="Inversions that are kept for each browser tab.")] = 4,
) -> None:
    """Open a page in the browser on which pictures are inverted once and edited with words.

    Everything stays on this machine. Ctrl-C ends it.
    """
    user = login(auth)
    if find_spec("gradio") is None:
        raise ModuleNotFoundError('the studio needs more packages: pip install "renoise[studio]" (there is no gradio)')
    from renoise import models
    from renoise.apps.studio import captions
    from renoise.apps.studio.pictures import Limits
    from renoise.apps.studio.recipes import Model as Named
    from renoise.apps.studio.room import Options
    from renoise.apps.studio.server import Server, listening
    from renoise.pipelines.families import denoiser

    door = listening(host, port)  # before the model is loaded for nothing
    named = captions.by_model(captioner) if captioner is not None else None
    chosen = pipes.Chosen(model, scheduler, dtype, tuple(scheduler_config or ()), make_invertible)
    pipe = pipes.pipeline(chosen)
    pipe.set_progress_bar_config(disable=True)
    name = model or "emoji-turbo"
    if named is None and name in models.NAMES:
        named = captions.by_judge
    told = Named(
        name,
        scheduler,
        str(denoiser(pipe).dtype).removeprefix("torch."),
        tuple(_changed(pipe.scheduler, scheduler_config)),
        make_invertible,
        str(pipe._execution_device),
    )
    if host not in ("127.0.0.1", "localhost", "::1") and user is None:
        console.print(
            "[yellow]Everybody who reaches this machine can use the studio; --auth asks for a password.[/yellow]",
            soft_wrap=True,
        )
    options = Options(told, user, Limits(max_megabytes, max_megapixels, inversions), named)
    Server(pipe, options, door).serve(
        lambda url: console.print(f"renoise studio is at [b]{escape(url)}[/b] (Ctrl-C ends it)", soft_wrap=True)
    )


def login(auth: str | None) -> tuple[str, str] | None:
    """The name and the password that an environment variable or a file holds; a password itself is refused."""
    if auth is None:
        return None
    if auth in os.environ:
        place, text = f"the environment variable {auth}", os.environ[auth]
    elif os.path.isfile(auth):
        place, text = f"the file {auth}", Path(auth).read_text()
    else:
        raise typer.BadParameter(
            "--auth takes the name of an environment variable, or of a file, that holds user:password; a password on "
            "the command line itself could be read by everybody on this machine"
        )
    user, colon, password = text.strip().partition(":")
    if not (user and colon and password) or "\n" in password:
        raise typer.BadParameter(f"{place} does not hold one line user:password")
    return user, password


def _changed(scheduler: Any, settings: list[str] | None) -> list[tuple[str, Any]]:
    """The settings of the scheduler that were changed, with the values that it has now."""
    keys = [setting.partition("=")[0] for setting in settings or ()]
    return [(key, scheduler.config[key]) for key in dict.fromkeys(keys)]
