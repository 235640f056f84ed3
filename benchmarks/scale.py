"""What `renoise batch` costs beside the network, what a second worker brings, and what memory the driver takes.

    python -m benchmarks.scale overhead   # share of the time outside the networks, batch 16
    python -m benchmarks.scale workers    # pictures a second with one and two actors of Ray Data, of one thread each
    python -m benchmarks.scale memory     # the driver's memory with 1,000 and with 10,000 rows that are made up
    python -m benchmarks.scale rounding   # how far results depend on the batch, and on float16 latents

All but `memory` work on held-out pictures (validation) with emoji-turbo in float32 and the default preset.  Set
OMP_NUM_THREADS=1.  `overhead` counts processor time of its one thread as well as wall time, because other programs on
the machine change only the latter.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import pictures
from renoise import archive, images, metrics, models
from renoise.apps import machines
from renoise.batch.entries import Entry
from renoise.batch.folder import Batch, Work, fill_all, make
from renoise.batch.recipe import Recipe
from renoise.batch.rows import Row
from renoise.batch.shards import read
from renoise.batch.sources import Defaults
from renoise.batch.worker import ready
from renoise.inverted import Inversion

BATCH = 16
BYTES = 115_920  # of an inversion by emoji-turbo, four steps, float32


def source(folder: Path, count: int) -> Path:
    """Held-out pictures with their captions in a folder."""
    chosen = pictures.load("validation").first(count)
    folder.mkdir()
    lines = []
    for number, (picture, caption) in enumerate(zip(images.to_pil(chosen.pixels), chosen.captions, strict=True)):
        picture.save(folder / f"{number:03d}.png")
        lines.append(json.dumps({"file_name": f"{number:03d}.png", "text": caption}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def pipeline() -> Any:
    pipe = models.load("emoji-turbo")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def started(batch: Batch) -> Work:
    """The work of an actor."""
    return ready(batch, pipeline())


class Clock:
    """Time inside networks, by hooks."""

    def __init__(self, pipe: Any, now: Callable[[], float]) -> None:
        self.inside, self._entered, self._now = 0.0, 0.0, now
        for network in (pipe.unet, pipe.text_encoder, pipe.vae.encoder, pipe.vae.decoder):
            network.register_forward_pre_hook(self._enter)
            network.register_forward_hook(self._leave)

    def _enter(self, *_: object) -> None:
        self._entered = self._now()

    def _leave(self, *_: object) -> None:
        self.inside += self._now() - self._entered


def overhead(folder: Path, runs: int) -> None:
    """From the first byte of a picture to the renamed shard, with reconstruction and one edit."""
    pipe, place = pipeline(), source(folder / "pictures", BATCH)
    processor, wall = Clock(pipe, time.process_time), Clock(pipe, time.perf_counter)
    for run in range(runs + 1):
        recipe = Recipe(reconstruct=True, batch_size=BATCH)
        batch = make(folder / f"{run}", place, Defaults(edits=("a pear",)), recipe)
        work = ready(batch, pipe)
        before, started_at = (processor.inside, wall.inside), (time.process_time(), time.perf_counter())
        fill_all(batch, work)
        spent = (time.process_time() - started_at[0], time.perf_counter() - started_at[1])
        share = [
            1 - (clock.inside - earlier) / total
            for clock, earlier, total in zip((processor, wall), before, spent, strict=True)
        ]
        if run:  # the first one warms up
            print(
                f"{BATCH} pictures in {spent[0]:.2f} s of the processor, {share[0]:.1%} of them outside the networks; "
                f"{spent[1]:.2f} s by the clock, {share[1]:.1%} outside"
            )


def workers(folder: Path, runs: int) -> None:
    """Shards of one batch; from when each actor has filled its first shard to the end."""
    count = 8 * BATCH
    place = source(folder / "pictures", count)
    for run in range(runs):
        rates = []
        for actors in (1, 2):
            batch = make(folder / f"{run}-{actors}", place, Defaults(), Recipe(batch_size=BATCH), shard_size=BATCH)
            times: list[float] = []
            machines.fill_all(
                batch,
                started,
                machines.Machines("local", actors),
                lambda done, failed, times=times: times.append(time.perf_counter()),  # type: ignore[misc]
            )
            rates.append((len(times) - actors) * BATCH / (times[-1] - times[actors - 1]))
        print(
            f"one actor {rates[0]:.2f} pictures a second, two {rates[1]:.2f}: {rates[1] / rates[0]:.2f} times as many"
        )


def made_up(entries: Sequence[Entry]) -> list[Row]:
    """Rows of the size that real ones have."""
    return [
        Row(
            one.id,
            one.path,
            one.prompt,
            one.seed,
            [],
            None,
            30.0,
            33.0,
            16,
            0.5,
            [0.1] * 4,
            np.random.default_rng(one.seed).bytes(BYTES),
        )
        for one in entries
    ]


def made_up_work(batch: Batch) -> Work:
    """The work of an actor that makes rows up."""
    return made_up


def resident() -> float:
    """MiB of memory that this process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def memory(folder: Path, count: int) -> None:
    """One driver with so many rows: planning, Ray, manifest and summary."""
    table = folder / "table.jsonl"
    with table.open("w") as file:
        for number in range(count):
            row = {"picture": "none.png", "id": f"pictures/{number:09d}.png", "prompt": f"red apple number {number}"}
            file.write(json.dumps(row) + "\n")
    begun = resident()
    batch = make(folder / "out", table, Defaults(), Recipe(batch_size=BATCH))
    planned, seen = resident(), []
    machines.fill_all(
        batch, made_up_work, machines.Machines("local"), lambda done, failed: seen.append((done, resident()))
    )
    summary = batch.finish()
    size = sum(path.stat().st_size for path in batch.shards()) / 2**20
    filled = [f"{mebibytes:.0f}" for _, mebibytes in seen[:: max(1, len(seen) // 5)]]
    print(
        f"{summary.pictures:,} rows ({size:.0f} MiB of shards): MiB at the start {begun:.0f}, planned {planned:.0f}, "
        f"while shards are filled {', '.join(filled)}, at the end {resident():.0f}"
    )


def rounding(folder: Path) -> None:
    """The same pictures in batches of 16, alone, and with float16 latents: dB to the round trip, and their distance."""
    pipe, place = pipeline(), source(folder / "pictures", BATCH)
    found: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    base = Recipe(batch_size=BATCH)
    for name, recipe in {
        f"batch of {BATCH}": base,
        "alone": replace(base, batch_size=1),
        "float16 latents": replace(base, latents="float16"),
    }.items():
        batch = make(folder / name, place, Defaults(), recipe)
        fill_all(batch, ready(batch, pipe))
        inversions = [Inversion(archive.loads(row.inversion or b""), pipe) for row in read(batch.shards()[0])]
        again = torch.cat([one.regenerate(one.scene) for one in inversions])
        trip = torch.cat([one.round_trip() for one in inversions])
        found[name] = (metrics.psnr(again, trip), torch.cat([one.latents for one in inversions]))
    decibels, latents = found[f"batch of {BATCH}"]
    for name, (other, z_T) in found.items():  # noqa: N806
        print(
            f"{name}: {other.mean():.3f} dB to the round trip (5th percentile {metrics.Summary.of(other).p5:.2f}); "
            f"largest difference to the first {float((other - decibels).abs().max()):.4f} dB, "
            f"{float((z_T - latents).abs().max()):.1e} in z_T"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("overhead", "workers", "memory", "rounding"))
    parser.add_argument("--runs", type=int, default=3, help="of overhead and workers")
    parser.add_argument("--rows", type=int, help="of memory: one count, in this process")
    args = parser.parse_args()
    print(f"{torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if args.part == "memory" and args.rows is None:
            for count in (1_000, 10_000):  # each in a process of its own
                subprocess.run([sys.executable, "-m", "benchmarks.scale", "memory", "--rows", f"{count}"], check=True)
            return
        parts = {
            "overhead": partial(overhead, folder, args.runs),
            "workers": partial(workers, folder, args.runs),
            "memory": partial(memory, folder, args.rows or 0),
            "rounding": partial(rounding, folder),
        }
        parts[args.part]()


if __name__ == "__main__":
    main()
