"""The command line: parse, call the API, save, print."""

import sys


def main() -> None:
    """Console script.  Says what is missing where the packages of the extra `cli` are not installed."""
    try:
        from renoise.apps.cli.app import app

        app()
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        sys.exit(f'the command line needs two more packages: pip install "renoise[cli]" ({error})')
    except KeyboardInterrupt:  # while modules are imported; afterwards typer does the same
        sys.exit(130)
