"""The command line: parse, call the API, save, print."""

import os
import signal
import sys
from types import FrameType


def main() -> None:
    """Console script.  Says what is missing where the packages of the extra `cli` are not installed."""
    signal.signal(signal.SIGINT, _interrupted)
    try:
        from renoise.apps.cli.app import app
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        sys.exit(f'the command line needs two more packages: pip install "renoise[cli]" ({error})')
    try:
        app()
    except KeyboardInterrupt:  # outside of a command; inside, typer does the same
        sys.exit(130)


def _interrupted(_: int, frame: FrameType | None) -> None:
    """Ctrl-C: as usual, but while a module is imported the process ends at once.

    Modules that are interrupted then print what they like, or take the interruption for a missing package and go on.
    """
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            os._exit(130)
        frame = frame.f_back
    raise KeyboardInterrupt
