"""An entry of a batch: one picture by the place where it lies, what is asked of it, and its seed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from renoise import images
from renoise.images import ImageError

__all__ = ["Entry", "digest", "seed_of"]


@dataclass(frozen=True)
class Entry:
    """One picture of a batch.

    Attributes:
        id: what tells it from the others, such as its path below the source.
        path: absolute path of the file that it lies in.
        prompt: what it shows.
        edits: prompts of the edits that are wanted.
        seed: of its noise, 0 or more.
        offset: where it begins in a file that holds several, in bytes; None where it is the whole file.
        length: how many bytes it has there.
    """

    id: str
    path: str
    prompt: str
    edits: tuple[str, ...]
    seed: int
    offset: int | None = None
    length: int | None = None

    def open(self) -> Image.Image:
        """The picture as plain RGB, from one read of its bytes.  Raises ImageError where that cannot be."""
        if self.offset is None:
            return images.open_image(Path(self.path))
        name = f"{self.id} in {self.path}"
        try:
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                data = file.read(self.length)
        except OSError as error:
            raise ImageError(f"{name} cannot be read: {error.strerror or error}") from error
        return images.decode(data, name)


def seed_of(identifier: str, base: int) -> int:
    """The seed of a picture: 48 bits of the SHA-256 of `base` and its id, whatever else is in the batch.

    48 bits are exact also where a reader takes all numbers for floats of 64 bits.
    """
    return int.from_bytes(hashlib.sha256(f"{base}\0{identifier}".encode()).digest()[:6])


def digest(entries: Sequence[Entry]) -> str:
    """SHA-256, in hexadecimal digits, of all that is asked; where the files lie does not count."""
    asked = [(entry.id, entry.prompt, entry.edits, entry.seed) for entry in entries]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()
