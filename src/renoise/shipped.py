"""Which models the package ships, as data: what they are, and which files they are made of. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["NAMES", "SHIPPED", "WEIGHTS", "Shipped", "loras", "parts"]

WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class Shipped:
    """An embedded model.

    Attributes:
        about: what it is, in half a line.
        base: the model whose files it takes, as far as it has none of its own; None for a whole pipeline.
        own: the parts of the pipeline that it has files of its own for.
        lora: whether its files are a LoRA on its base, in the format of diffusers.
    """

    about: str
    base: str | None = None
    own: tuple[str, ...] = ()
    lora: bool = False


SHIPPED: Mapping[str, Shipped] = {
    "emoji": Shipped("text to small emoji, many steps with guidance (DDIM 50)"),
    "emoji-turbo": Shipped(
        "the same in four steps without guidance (ancestral Euler or LCM)", base="emoji", own=("unet", "scheduler")
    ),
    "emoji-turbo-sharp": Shipped(
        'emoji-turbo with a LoRA that makes it sharper, and harder to invert; needs peft: pip install "renoise[lora]"',
        base="emoji-turbo",
        lora=True,
    ),
}
"""All embedded models by name."""

NAMES = tuple(SHIPPED)


def parts(name: str) -> tuple[str, dict[str, str]]:
    """The model that is the whole pipeline, and for each part that is not its, the model that the part is of."""
    replaced: dict[str, str] = {}
    while (base := SHIPPED[name].base) is not None:
        replaced = dict.fromkeys(SHIPPED[name].own, name) | replaced
        name = base
    return name, replaced


def loras(name: str) -> tuple[str, ...]:
    """The models whose LoRA is to be loaded, the first to load first."""
    shipped = SHIPPED[name]
    return (*(loras(shipped.base) if shipped.base else ()), *((name,) if shipped.lora else ()))
