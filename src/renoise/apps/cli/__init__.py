"""The command line: parse, call the API, save, print."""

import os
import signal
import sys


def main() -> None:
    """Console script.  Says what is missing where the packages of the extra `cli` are not installed."""
    # Modules that are interrupted while they are imported print what they like, so the process ends at once.
    previous = signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    try:
        from renoise.apps.cli.app import app
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        sys.exit(f'the command line needs two more packages: pip install "renoise[cli]" ({error})')
    finally:
        signal.signal(signal.SIGINT, previous)
    try:
        app()
    except KeyboardInterrupt:  # outside of a command; inside, typer does the same
        sys.exit(130)
