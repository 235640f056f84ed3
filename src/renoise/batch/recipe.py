"""What is done with every picture of a batch: plain data, the same for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from renoise.core.checks import whole

__all__ = ["Latents", "Recipe"]

Latents = Literal["float32", "float16"]


@dataclass(frozen=True)
class Recipe:
    """What is done with every picture.

    Attributes:
        invert: keywords of `renoise.invert` beside pipeline, pictures, prompts and seeds, such as preset or passes; as
            JSON has them, since they are kept with the results.
        edit: keywords of `Inversion.edit` beside the prompt, likewise.
        reconstruct: whether the reconstruction is kept, as a PNG.
        measure: whether the reconstruction is compared with the picture, which takes one pass a step more.
        latents: precision in which latents and noises are kept.  "float16" takes half the room.
        batch_size: pictures that are worked on at once.  Results differ in the last bits from those of another size.
    """

    invert: Mapping[str, Any] = field(default_factory=dict)
    edit: Mapping[str, Any] = field(default_factory=dict)
    reconstruct: bool = False
    measure: bool = True
    latents: Latents = "float32"
    batch_size: int = 16

    def __post_init__(self) -> None:
        whole("batch_size", self.batch_size, " is not a whole number of 1 or more", least=1)
        if self.latents not in ("float32", "float16"):
            raise ValueError(f"latents={self.latents!r} is neither float32 nor float16")

    def plain(self) -> dict[str, Any]:
        """As JSON knows it."""
        return asdict(self)
