"""Invert, reconstruct and edit the pictures of PIE-Bench by several methods, then score what came out.

Both halves go on where they were interrupted.  `make` writes, for every method and picture, the reconstruction and the
edit as PNG, and a row of ``made.csv``.  `score` compares pictures and writes ``pie.csv``, with the columns of both.
A row is made again if what it depends on has changed: settings, weights, scheduler, prompts, the picture's bytes; or,
for its scores, the networks of the metrics.

The noise of a picture comes from a seed that depends on its id, so a part of the data set gives the same pictures as
the whole.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from renoise import files, images
from renoise.evaluation.methods import Method, describe
from renoise.evaluation.networks import Networks
from renoise.evaluation.pie import Case
from renoise.evaluation.pie_metrics import COLUMNS, judged, scores
from renoise.evaluation.records import Records, Row, digest
from renoise.evaluation.runs import run
from renoise.evaluation.scores import FIDELITY, reconstructed
from renoise.images import ImageError
from renoise.judge import Judge
from renoise.pipelines.families import denoiser
from renoise.pipelines.identity import identity

__all__ = ["KEYS", "Work", "make", "score"]

KEYS = ("method", "id")
Told = Callable[[int], object]


@dataclass(frozen=True)
class Work:
    """What is done with every picture, and where the results go.

    Attributes:
        folder: of the results.
        size: (height, width) at which the pipeline works, or one number; None for its own.
        batch: how many pictures are inverted at once.
        seed: added to the seed of every picture.
        controls: keywords of `Inversion.edit` besides the prompt.
    """

    folder: Path
    size: int | tuple[int, int] | None = None
    batch: int = 1
    seed: int = 0
    controls: Mapping[str, Any] = field(default_factory=dict)

    @property
    def made(self) -> Records:
        """Rows of what was inverted and edited."""
        return Records(self.folder / "made.csv", KEYS)

    @property
    def scored(self) -> Records:
        """The same rows with their scores."""
        return Records(self.folder / "pie.csv", KEYS)

    def picture(self, method: str, case: Case, kind: str) -> Path:
        """Where the "reconstruction" or the "edit" of a case lies."""
        return self.folder / "pictures" / method.replace(" ", "-").replace(",", "") / f"{case.id}-{kind}.png"


def make(pipe: Any, cases: Sequence[Case], methods: Sequence[Method], work: Work, told: Told = lambda _: None) -> None:
    """Invert, reconstruct and edit what is not made yet.

    A picture that cannot be read, or whose result is not finite, gets a row that says so, and the others go on.

    Args:
        pipe: a pipeline, as for `renoise.invert`.
        cases: the pictures and their edits.
        methods: how to invert.
        work: where the results go.
        told: is called with the number of pictures that are done.
    """
    network = denoiser(pipe)
    common = digest(identity(pipe), network.dtype, type(pipe.scheduler).__name__, dict(pipe.scheduler.config))
    for method in methods:
        depends = {
            case.id: digest(common, describe(method), work.size, work.seed, sorted(work.controls.items()), *_own(case))
            for case in cases
        }
        blocks = work.made.blocks()
        waiting = [case for case in cases if blocks.get(f"{method.name}: {case.id}") != depends[case.id]]
        told(len(cases) - len(waiting))
        with work.made.pending() as write:
            for start in range(0, len(waiting), work.batch):
                part = waiting[start : start + work.batch]
                rows = _made(pipe, part, method, work)
                write({f"{method.name}: {case.id}": depends[case.id] for case in part}, rows)
                told(len(part))


def _own(case: Case) -> tuple[object, ...]:
    """What a result depends on of its case."""
    try:
        data = case.stored if isinstance(case.stored, bytes) else case.stored.read_bytes()
    except OSError:
        data = b""
    return case.source_prompt, case.target_prompt, data


def _made(pipe: Any, cases: Sequence[Case], method: Method, work: Work) -> list[Row]:
    """Rows of one batch; where one picture fails, the pictures are run one by one."""
    try:
        rows = list(_edited(pipe, cases, method, work))
    except ValueError as error:
        if not isinstance(error, ImageError) and "not finite" not in str(error):
            raise
        if len(cases) > 1:
            return [row for case in cases for row in _made(pipe, [case], method, work)]
        return [{"method": method.name, "id": cases[0].id, "type": cases[0].type, "error": str(error)}]
    return rows


def _edited(pipe: Any, cases: Sequence[Case], method: Method, work: Work) -> Iterator[Row]:
    prompts = [case.source_prompt for case in cases]
    seeds = [(zlib.crc32(case.id.encode()) + work.seed) % 2**32 for case in cases]
    found = run(pipe, [case.image() for case in cases], prompts, seeds, method, size=work.size)
    again = found.reconstruct()
    fidelity = reconstructed(found, again)
    new = found.inversion.edit([case.target_prompt for case in cases], **work.controls)
    side = any(step.noise_travel is not None for step in found.inversion.trajectory.steps)
    boxes = found.inversion.record.boxes
    for i, case in enumerate(cases):
        _save(work.picture(method.name, case, "reconstruction"), images.unfit(images.to_pil(again)[i], boxes[i]))
        _save(work.picture(method.name, case, "edit"), new[i])
        how_close = {name: round(float(fidelity[name][i]), 5) for name in FIDELITY}
        cost = {"passes": found.inversion.passes, "seconds": round(found.inversion.seconds / len(cases), 4)}
        about = {"method": method.name, "id": case.id, "type": case.type, "seed": seeds[i]}
        yield about | cost | {"side_information": int(side)} | how_close | {"error": ""}


def _save(path: Path, picture: Image.Image) -> None:
    data = io.BytesIO()
    picture.save(data, "PNG")
    files.write(path, data.getvalue())


def score(
    cases: Sequence[Case],
    methods: Sequence[str],
    work: Work,
    networks: Networks,
    judge: Judge | None = None,
    told: Told = lambda _: None,
) -> list[dict[str, str]]:
    """Score what was made and is not scored yet.

    Args:
        cases: the pictures and their edits.
        methods: names of the methods.
        work: where the results are.
        networks: those of the metrics.
        judge: of the embedded models, for emoji.
        told: is called with the number of pictures that are done.

    Returns:
        The rows of these cases and methods, of ``pie.csv``.
    """
    made, done = work.made.blocks(), work.scored.blocks()
    rows = {(row["method"], row["id"]): row for row in work.made.rows()}
    with_networks = digest(networks.names, judge is not None)
    with work.scored.pending() as write:
        for method, case in ((method, case) for method in methods for case in cases):
            name = f"{method}: {case.id}"
            depends = digest(made[name], with_networks, case.runs)
            if done.get(name) != depends:
                write({name: depends}, [_scored(rows[method, case.id], case, work, networks, judge)])
            told(1)
    wanted = {(method, case.id) for method in methods for case in cases}
    return [row for row in work.scored.rows() if (row["method"], row["id"]) in wanted]


def _scored(row: dict[str, str], case: Case, work: Work, networks: Networks, judge: Judge | None) -> Row:
    found: dict[str, float] = {}
    if not row["error"]:
        source = case.image()
        edited = images.open_image(work.picture(row["method"], case, "edit"))
        prompts = case.source_prompt, case.target_prompt
        found = scores(source, edited, case.mask(), *prompts, networks)
        if judge is not None:
            found |= judged(source, edited, *prompts, judge)
    return row | {name: f"{found[name]:.8g}" if name in found else "" for name in COLUMNS}
