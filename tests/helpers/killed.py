"""A process whose children fill batches and are killed, each at another point, and go on with them.

    python -m tests.helpers.killed FOLDER SOURCE

The network is not run here, so that many points take little time: rows are made of each entry's seed.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet  # noqa: F401 - before any child is made

from renoise.batch.entries import Entry
from renoise.batch.folder import fill_all
from renoise.batch.rows import Row
from renoise.batch.tables import picture_endings
from tests.helpers import batches


def work(entries: Sequence[Entry]) -> list[Row]:
    """Rows that depend on the entry alone."""
    drawn = {entry.id: np.random.default_rng(entry.seed).random(64) for entry in entries}
    return [
        Row(one.id, one.path, one.prompt, one.seed, list(one.edits), None, float(drawn[one.id][0]), 1.0, 3, 0.1)
        for one in entries
    ]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dying(function: Callable[..., object], after: bool, call: int) -> Callable[..., object]:
    """A function that kills the process before or after its call of that number."""
    calls = 0

    def called(*arguments: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == call and not after:
            die()
        result = function(*arguments, **options)
        if calls == call:
            die()
        return result

    return called


def fill(folder: Path, source: Path, by: Callable[..., object] = work) -> None:
    """What a run of `renoise batch` does, but for the network."""
    asked = batches.batch(folder, source)
    fill_all(asked, by)  # type: ignore[arg-type]
    asked.finish()


def dies(folder: Path, source: Path, function: str, after: bool, call: int) -> None:
    """A run that is killed at one point."""
    if function == "replace":
        os.replace = dying(os.replace, after, call)  # type: ignore[assignment]
        fill(folder, source)
    else:
        fill(folder, source, dying(work, after, call))


def child(run: Callable[[], object]) -> bool:
    """Whether a child that runs this was killed."""
    process = os.fork()
    if not process:
        try:
            run()
        finally:
            os._exit(0)
    return os.WTERMSIG(os.waitpid(process, 0)[1]) == signal.SIGKILL


def main() -> None:
    """Two runs for each point, in a folder of its own: one that is killed there, and one that goes on."""
    out, source = Path(sys.argv[1]), Path(sys.argv[2])
    picture_endings()  # so that no child has to import all of PIL
    # os.replace is called for the plan, the settings, three shards and the manifest; work for four batches
    points = [("replace", after, call) for call in range(1, 7) for after in (False, True)]
    points += [("work", False, call) for call in range(1, 5)]
    for number, (function, after, call) in enumerate(points):

        def first(
            function: str = function, after: bool = after, call: int = call, folder: Path = out / f"{number}"
        ) -> None:
            if function == "replace":
                os.replace = dying(os.replace, after, call)  # type: ignore[assignment]
                fill(folder, source)
            else:
                fill(folder, source, dying(work, after, call))

        assert child(first), f"nothing was killed at {points[number]}"
        assert not child(partial(fill, out / f"{number}", source))
    print(len(points))


if __name__ == "__main__":
    main()
