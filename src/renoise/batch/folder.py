"""The folder of a batch: what was asked, which shards are there, filling those that are missing, and the end.

batch.json        what was asked; whoever goes on with the batch must ask the same
plan.parquet      the pictures, a row group a shard
model.json        the pipeline of the first worker, to which all others are held
shards/           a file for some pictures, as renoise.batch.shards says
manifest.parquet  a row a picture without the files, once all shards are there
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from renoise import files
from renoise.batch import plan, shards
from renoise.batch.arrow import arrow, parquet
from renoise.batch.entries import Entry
from renoise.batch.recipe import Recipe
from renoise.batch.rows import Row
from renoise.batch.shards import ENDINGS, Kind
from renoise.batch.sources import Defaults, entries
from renoise.batch.summary import Summary
from renoise.core.checks import whole

__all__ = ["Batch", "fill_all", "make", "opened"]

_FORMAT = 1
Work = Callable[[Sequence[Entry]], list[Row]]
Told = Callable[[Sequence[Row]], object]


@dataclass(frozen=True)
class Batch:
    """A folder of results, complete or not.

    Attributes:
        folder: where it is.
        settings: what batch.json says.
    """

    folder: Path
    settings: dict[str, Any]

    @property
    def recipe(self) -> Recipe:
        """What is done with every picture."""
        return Recipe(**self.settings["recipe"])

    @property
    def pictures(self) -> int:
        """How many pictures the batch has."""
        return int(self.settings["pictures"])

    def shards(self) -> list[Path]:
        """The files that will be there in the end, in the order of the pictures."""
        ending = ENDINGS[self.settings["shards"]]
        return [self.folder / "shards" / f"{name}{ending}" for name in plan.names(self.folder / "plan.parquet")]

    def entries(self, number: int) -> list[Entry]:
        """The entries of one shard."""
        return plan.part(self.folder / "plan.parquet", number)

    def missing(self) -> list[int]:
        """The numbers of the shards that are not there."""
        return [number for number, path in enumerate(self.shards()) if not path.exists()]

    def done(self) -> int:
        """How many pictures are in shards that are there."""
        count, size = self.pictures, int(self.settings["shard_size"])
        return count - sum(min(size, count - number * size) for number in self.missing())

    def fill(self, number: int, work: Work, told: Told = lambda rows: None) -> None:
        """Works on the pictures of one shard, batch after batch, and writes it.

        Two that fill the same shard do not disturb each other: each writes a file of its own, and the last one stays.

        Args:
            number: of the shard.
            work: makes rows of the entries of a batch.
            told: is told of the rows of each batch.
        """
        size, wanted = self.recipe.batch_size, self.entries(number)

        def batches() -> Iterator[list[Row]]:
            for start in range(0, len(wanted), size):
                rows = work(wanted[start : start + size])
                told(rows)
                yield rows

        shards.write(self.shards()[number], batches())

    def finish(self) -> Summary:
        """Writes the manifest, shard after shard, removes what killed workers left half-written, and sums up.

        Raises:
            ValueError: shards are missing.
        """
        if missing := self.missing():
            raise ValueError(f"{self.folder} lacks {len(missing)} shards; go on with the same command")
        for part in (self.folder / "shards").glob(".renoise-*.part"):
            part.unlink(missing_ok=True)
        pa, summary = arrow(), Summary()
        kinds = shards.light_schema().append(pa.field("shard", pa.string())).append(pa.field("row", pa.int32()))
        with (
            files.writing(self.folder / "manifest.parquet") as file,
            parquet().ParquetWriter(file, kinds, compression="zstd") as writer,
        ):
            for path in self.shards():
                table = shards.light(path)
                summary.add(table)
                table = table.append_column("shard", pa.array([path.name] * len(table), pa.string()))
                table = table.append_column("row", pa.array(range(len(table)), pa.int32()))
                writer.write_table(table.cast(kinds))
        return summary


def fill_all(batch: Batch, work: Work, told: Told = lambda rows: None) -> None:
    """The loop of this process: fills the shards that are missing, one after the other."""
    for number in batch.missing():
        batch.fill(number, work, told)


def make(
    folder: Path,
    source: Path,
    defaults: Defaults,
    recipe: Recipe,
    *,
    kind: Kind = "parquet",
    shard_size: int = 128,
    pipeline: dict[str, Any] | None = None,
) -> Batch:
    """Plans a batch in a new folder, or goes on with the one that is there.

    Args:
        folder: where the results go.
        source: where the pictures come from, as for `renoise.batch.sources.entries`.
        defaults: what holds where the source does not say otherwise.
        recipe: what is done with every picture.
        kind: of the shards.
        shard_size: pictures of a shard; as many are lost at most by each worker that is killed.
        pipeline: what the pipeline is made from, such as model and scheduler, as JSON knows it.

    Raises:
        ValueError: a source or settings that cannot work, a folder with something else in it, or one whose batch was
            made with other settings or from a source that has changed since; says which.
    """
    whole("shard_size", shard_size, " is not a whole number of 1 or more", least=1)
    asked: dict[str, Any] = {
        "format": _FORMAT,
        "source": str(source.absolute()),
        **asdict(defaults),
        "pipeline": pipeline or {},
        "recipe": recipe.plain(),
        "shards": kind,
        "shard_size": shard_size,
    }
    asked = json.loads(json.dumps(asked))  # lists for tuples, as in the file
    there = (folder / "batch.json").exists()
    if there:
        _refuse_other(folder, opened(folder).settings, asked)
    elif folder.exists() and (others := [path for path in folder.iterdir() if not _ours(path)]):
        raise ValueError(f"{folder} holds {others[0].name}, and no batch; name a folder that is new or empty")
    told = json.dumps(asked, sort_keys=True)
    count, names = plan.survey(lambda: entries(source, defaults), shard_size, told)
    if not there:
        plan.write(folder / "plan.parquet", entries(source, defaults), shard_size, told)
        files.write(folder / "batch.json", json.dumps({**asked, "pictures": count}, indent=1).encode())
    batch = opened(folder)
    if plan.names(folder / "plan.parquet") != names:
        raise ValueError(
            f"{source} has changed since {folder} was begun: it had {batch.pictures} pictures and has {count}, or "
            "other ids, prompts or seeds; name another folder for the results"
        )
    return batch


def opened(folder: Path) -> Batch:
    """The batch in a folder.  Raises ValueError where there is none, or one of a later version."""
    try:
        settings = json.loads((folder / "batch.json").read_text())
    except OSError as error:
        raise ValueError(f"{folder} holds no batch: {error.strerror or error} (batch.json)") from error
    if settings["format"] > _FORMAT:
        raise ValueError(f"{folder} has format {settings['format']}, this renoise knows {_FORMAT}; update renoise")
    return Batch(folder, settings)


def _ours(path: Path) -> bool:
    return path.name == "plan.parquet" or path.name.startswith(".renoise-")


def _refuse_other(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Names what differs between two settings; "pictures" is known to the earlier ones alone."""
    then, asked = _flat(before), _flat(now)
    differing = [
        f"{name.rpartition('.')[2]}={then.get(name)!r} and not {asked.get(name)!r}"
        for name in sorted((then.keys() | asked.keys()) - {"pictures"})
        if then.get(name) != asked.get(name)
    ]
    if differing:
        raise ValueError(
            f"{folder} holds a batch with {', '.join(differing)}: ask for the same to go on with it, or name another "
            "folder"
        )


def _flat(settings: dict[str, Any], place: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{place}{name}.") if isinstance(value, dict) else {f"{place}{name}": value}
    return flat
