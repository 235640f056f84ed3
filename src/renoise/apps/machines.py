"""Many machines: the shards of a batch are filled by actors of Ray Data, each with a pipeline of its own.

Ray hands out the numbers of shards, starts actors anew when one dies, and gives their shards to others.  What goes out
is one small row a shard; the results are written by the actors, as the local loop writes them.  So every machine must
see the folder of the batch, and the pictures, under the same paths.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renoise.batch.folder import Batch, Work, opened

__all__ = ["Machines", "fill_all"]

_OBJECT_STORE = 200 * 2**20  # bytes; only numbers go through it
_INIT_DEATHS = 3  # of actors one after the other, before the batch ends
_SPARE = 1  # processors that Ray needs beside the actors, or nothing starts


@dataclass(frozen=True)
class Machines:
    """Where the work is done.

    Attributes:
        address: of a Ray cluster that is there, "auto" for the one that this machine belongs to, or "local" to start
            one on this machine for the time of the batch.
        actors: how many work at once, each with a pipeline.
        cpus: processors of each, which are also its threads.
        gpus: GPUs of each; below 1 several share one.
    """

    address: str
    actors: int = 1
    cpus: float = 1
    gpus: float = 0


class Filler:
    """An actor: loads a pipeline once, and fills one shard after the other."""

    def __init__(self, folder: str, start: Callable[[Batch], Work]) -> None:
        self._batch = opened(Path(folder))
        self._work = start(self._batch)

    def __call__(self, block: dict[str, Any]) -> dict[str, Any]:
        """Fills the shards of these numbers, and says how many pictures were done and failed."""
        failed = [self._fill(number) for number in block["item"].tolist()]
        return {"pictures": [len(rows) for rows in failed], "failed": [sum(rows) for rows in failed]}

    def _fill(self, number: int) -> list[bool]:
        """Whether each picture of a shard failed."""
        failed: list[bool] = []
        self._batch.fill(number, self._work, lambda rows: failed.extend(row.error is not None for row in rows))
        return failed


def fill_all(
    batch: Batch, start: Callable[[Batch], Work], machines: Machines, told: Callable[[int, int], object]
) -> None:
    """Fills the shards that are missing.

    Args:
        batch: the folder, which all machines see.
        start: makes the work of an actor; called once in each, so it is sent there (it must be a function of a module
            that they can import, or one that needs nothing else).
        machines: where.
        told: is told how many pictures were done, and how many of them failed, shard by shard.

    Raises:
        ImportError: Ray is not installed.
        RuntimeError: an actor could not start or go on, with what it said.
        ConnectionError: there is no cluster at the address.
    """
    missing = batch.missing()
    if not missing:
        return
    ray = _ray()
    with _session(ray, machines):
        settings = ray.data.DataContext.get_current()
        settings.enable_progress_bars, settings.print_on_execution_start = False, False
        settings.execution_no_progress_timeout_s = -1  # a shard of a large model takes its time
        settings.max_consecutive_actor_init_deaths = _INIT_DEATHS
        filled = ray.data.from_items(missing, override_num_blocks=len(missing)).map_batches(
            Filler,
            fn_constructor_args=(str(batch.folder.absolute()), start),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(machines.actors, len(missing))),
            num_cpus=machines.cpus,
            num_gpus=machines.gpus or None,
            udf_modifying_row_count=False,
        )
        try:
            for row in filled.iter_rows():
                told(int(row["pictures"]), int(row["failed"]))
        except ray.exceptions.RayError as error:
            raise RuntimeError(f"a worker failed: {_reason(error)}; the same command goes on") from error


def _ray() -> Any:
    """The module ray with ray.data.  Raises ImportError, which says what to install."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what goes wrong is raised here
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # its future behaviour, or it warns
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise ImportError(f'several machines need Ray: pip install "renoise[scale]" ({error})') from error
    return ray


@contextmanager
def _session(ray: Any, machines: Machines) -> Iterator[None]:
    """A connection to the cluster, or a cluster on this machine that ends with the block."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    here: dict[str, Any] = {"address": machines.address}
    if machines.address == "local":
        os.environ.setdefault("RAY_worker_niceness", "0")  # 15 by default: beside anything else they would starve
        here |= {
            # more than this machine may have, since Ray counts them and nothing else
            "num_cpus": math.ceil(machines.actors * machines.cpus) + _SPARE,
            "object_store_memory": _OBJECT_STORE,
            "include_dashboard": False,
        }
    ray.init(**here, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def _reason(error: BaseException) -> str:
    """What an error of Ray is about: the error that was raised in the worker, where that is known."""
    said, inner = str(error), error
    while (cause := getattr(inner, "cause", None) or inner.__cause__) is not None and cause is not inner:
        said, inner = str(cause).strip() or said, cause  # the innermost that says anything
    return said.strip().splitlines()[-1]
