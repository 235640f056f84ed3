"""Tries inputs of every kind and prints docs/reliability.md.

python -m tests.helpers.reliability > docs/reliability.md
"""

from __future__ import annotations

import sys

from tests.helpers.hostile_calls import KINDS

COUNT = 3000
HEAD = """# What happens to wrong and damaged inputs

Each row counts inputs that a program drew ([hypothesis](https://hypothesis.readthedocs.io), with a fixed seed;
`tests/helpers/hostile.py` and `hostile_calls.py`). An input is *refused* if one of the documented exceptions
(`ImageError`, `ArchiveError`, `NotInvertible`, `ValueError`, `TypeError`) says so in words of this package, before any
network runs. It is *right* if it is accepted, and what comes of it passes the check in the last column. Everything else
is *bad*: another exception, an exception with the words of another library, or a wrong answer.

`python -m tests.helpers.reliability > docs/reliability.md` makes this page. CI tries 300 inputs of each kind, and 5,000
in the slow tests.

| inputs | tried | refused | right | bad | what is right |
|---|---|---|---|---|---|"""
RIGHT = {
    "arrays": "the levels, computed in another way, differ by 1 of 255 at most",
    "files": "a picture in RGB; damage that still decodes is not told from a picture",
    "settings": "they come back from JSON as they were",
    "keywords": "all checks pass, and the first network is asked, where this test stops",
    "edits": "the same; the picture was inverted before",
    "command lines": "it ends with 0, or all checks pass, and a model is loaded, where this test stops",
    "bits": "the record is that of the undamaged file",
    "json": "the record is the same after it was saved and loaded; its digest was computed anew",
}
TAIL = """
What is tried one by one, besides:

* A process that is killed (`kill -9`) while it writes, a full disk, and threads that write one path: the file is the
  earlier one or the new one, whole (`tests/test_files.py`).
* A file that is truncated or overwritten after `renoise.load` changes nothing (`tests/test_archive.py`).
* One bit changed in 300 places of an archive: refused, or without effect (`tests/test_archive.py`).
* Every field of `Settings`, `Region` and `EditLosses` with 22 strange values (`tests/core/test_checks.py`).
* Every parameter of a network scaled by 3 percent, or with one NaN at its end: other weights. The same weights in
  float32, bfloat16 and float16: the same (`tests/pipelines/test_identity.py`).

## Limits

Larger values are refused, since they would take days or all memory. A program that needs more assigns to
`renoise.core.checks.LIMITS`, for instance `LIMITS.iterations = 5000`.

| limit | value | of what |
|---|---|---|
| `picture_pixels` | 100,000,000 | height times width of a picture that is opened |
| `size_pixels` | 4096 x 4096 | height times width of the picture that the model sees |
| `steps` | 10,000 | sampler steps |
| `iterations` | 1,000 | renoising iterations of one step; gradient steps and rolls of the edit losses |
| `passes` | 100,000 | network passes of one inversion |

## Not noticed

* Damage to a picture file that leaves a picture: most formats have no checksum.
* Somebody who changes an archive and computes its digest anew: it protects against damage, not against intent.
* A few elements of a large weight that change, unless they are among the 65,536 that are looked at; slight
  fine-tuning of a quantised network; the scale of LoRA adapters that are not fused."""


def main() -> None:
    bad = 0
    print(HEAD)
    for kind, measure in KINDS.items():
        tally = measure(COUNT)
        bad += len(tally.bad)
        counts = (tally.tried, tally.refused, tally.right, len(tally.bad))
        print(f"| {tally.name} | " + " | ".join(f"{count:,}" for count in counts) + f" | {RIGHT[kind]} |", flush=True)
        for line in tally.bad:
            print(line, file=sys.stderr)
    print(TAIL)
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
