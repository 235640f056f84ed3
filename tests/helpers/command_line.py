"""The command line in process, and what it said."""

from __future__ import annotations

import re
from pathlib import Path

from typer.testing import CliRunner, Result

from renoise.apps.cli import app as cli


def run(*arguments: str | Path) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(cli.app, [str(argument) for argument in arguments])


def said(result: Result) -> str:
    """Everything on the screen, without frames and line breaks."""
    return re.sub(r"[\s│╭╮╰╯─]+", " ", result.output)
