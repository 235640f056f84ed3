"""The commands of `renoise`, and how they say what went wrong."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

import renoise
from renoise.apps.cli import batch, bench, demo, editing, inversions, listing, studio
from renoise.apps.cli.output import console

__all__ = ["app"]


# How the library's errors name what to change, and the options that do so here.
_OPTIONS = {
    r"Use instead: pipe\.scheduler = (\w+)\.from_config\(pipe\.scheduler\.config.*\)": "Use --make-invertible, which "
    r"takes \1",
    r"use pipe\.scheduler = (\w+)\.from_config\(pipe\.scheduler\.config\)": r"use --scheduler \1",
    r"do pipe\.vae\.to\(torch\.float32\)|load the pipeline with dtype=torch\.float32": "use --dtype float32",
    r"\bnum_inference_steps=": "--steps ",
    r"\b(inversion_)?guidance_scale=": "--guidance ",
    r"\bmask_(grow|feather)=": r"--mask-\1 ",
    r"\bsource_guidance=": "--source-guidance ",
    r"\b(passes|strength|size|tol|seed|preset|scheduler|dtype|preserve|randomness|prompt|latents|shards)=": r"--\1 ",
    r"\b(batch|shard)_size=": r"--\1-size ",
    r"\bedits=": "--to ",
    r"\bnegative_prompt=": "--negative ",
}


def as_options(message: str) -> str:
    """An error of the library, with options in place of the Python that it says to type."""
    for python, option in _OPTIONS.items():
        message = re.sub(rf"(?<![\w/.-]){python}", option, message)
    return message


class Commands(TyperGroup):
    """Says in one line what went wrong: exit code 1 when something cannot work (2 is a command line misread)."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort):  # they are RuntimeErrors
            raise
        except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
            message = f"[red]error:[/red] {escape(as_options(str(error)))}"
            Console(stderr=True).print(message, highlight=False, soft_wrap=True)
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.command()(editing.edit)
app.command()(inversions.invert)
app.command()(inversions.reconstruct)
app.command()(batch.batch)
app.command()(demo.demo)
app.command()(studio.studio)
app.command("models")(listing.models)
app.add_typer(bench.bench, name="bench")


def _print_version(wanted: bool) -> None:
    if wanted:
        console.print(f"renoise {renoise.__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Invert a picture into a text-to-image model and edit it with words.

    Exit codes: 0 done, 1 something cannot work, 2 the command line cannot be read, 130 interrupted.
    """
