"""What is chosen on the page, checked, and as the keywords of `renoise.invert` and of an edit.

A value that is left alone stays None, so that neither a call nor a snippet names what is the default anyway.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

__all__ = ["EditChoices", "InvertChoices", "Refused", "grid", "number", "prompts", "seeds", "whole"]

MOST = 12
"""How many edits may be asked for at once."""

MaskKind = Literal["everywhere", "automatic", "painted"]


class Refused(ValueError):  # noqa: N818 - nothing went wrong
    """Something that cannot work; the text is shown on the page and says what to do instead."""


@dataclass(frozen=True)
class InvertChoices:
    """How to invert; None for what the preset says.

    Attributes:
        caption: what the picture shows.
        preset: a name of `renoise.presets.PRESETS`, "paper", or None for what suits model and scheduler.
        passes: network passes in all.
        tol: share of a latent that may be missed, at which a step ends early.
        num_inference_steps: steps of the whole schedule.
        strength: share of the schedule that is walked, in (0, 1].
        inversion_guidance_scale: guidance of the inversion, 1 for none.
        seed: of the noise.
    """

    caption: str
    preset: str | None = None
    passes: int | None = None
    tol: float | None = None
    num_inference_steps: int | None = None
    strength: float | None = None
    inversion_guidance_scale: float | None = None
    seed: int | None = None

    def keywords(self) -> dict[str, Any]:
        """Those keywords of `renoise.invert` that differ from its defaults, beside picture and prompt."""
        given = {name: getattr(self, name) for name in _INVERT}
        return {name: value for name, value in given.items() if value is not None}


_INVERT = ("preset", "passes", "tol", "num_inference_steps", "strength", "inversion_guidance_scale", "seed")


@dataclass(frozen=True)
class EditChoices:
    """One edit.

    Attributes:
        prompt: what the picture shall show instead.
        preserve: from 0, creative, to 1, faithful; None for the plain exchange of the prompt.
        strength: where on the stored trajectory the edit starts, in (0, 1]; None for its beginning.
        guidance_scale: guidance of the edit, 1 for none; None for the preset's.
        source_guidance: how far the edit is pushed away from what the picture showed, 0 for not at all; None for what
            goes well with `preserve`.
        randomness: share of fresh noise in [0, 1].
        seed: of the fresh noise.
        mask: where to edit: everywhere, where the prompts disagree (automatic), or where it was painted.
        mask_grow: pixels by which the mask is widened.
        mask_feather: pixels over which its edge is softened; None for the default.
        painted: the painted mask as the bytes of a PNG, white where to edit; None where there is none.
    """

    prompt: str
    preserve: float | None = None
    strength: float | None = None
    guidance_scale: float | None = None
    source_guidance: float | None = None
    randomness: float = 0.0
    seed: int = 0
    mask: MaskKind = "everywhere"
    mask_grow: int = 0
    mask_feather: int | None = None
    painted: bytes | None = None

    def keywords(self) -> dict[str, Any]:
        """Those keywords of an edit that differ from its defaults, beside prompt and mask."""
        given: dict[str, Any] = {
            "preserve": self.preserve,
            "strength": self.strength,
            "guidance_scale": self.guidance_scale,
            "source_guidance": self.source_guidance,
            "randomness": self.randomness or None,
            "seed": self.seed if self.randomness and self.seed else None,
        }
        if self.mask != "everywhere":
            given |= {"mask_grow": self.mask_grow or None, "mask_feather": self.mask_feather}
        return {name: value for name, value in given.items() if value is not None}

    def described(self) -> str:
        """The settings in a few words, without the prompt."""
        names = {
            "preserve": "faithfulness",
            "guidance_scale": "guidance",
            "source_guidance": "push away",
            "randomness": "fresh noise",
            "mask_grow": "grown by",
            "mask_feather": "softened over",
        }
        told = [f"{names.get(name, name)} {value:g}" for name, value in self.keywords().items()]
        return ", ".join([*told, *({"automatic": ["automatic mask"], "painted": ["painted mask"]}.get(self.mask, []))])


def prompts(text: str) -> list[str]:
    """One prompt a line; empty lines do not count.

    Raises:
        Refused: there is none.
    """
    found = [line.strip() for line in (text or "").splitlines() if line.strip()]
    if not found:
        raise Refused("Write what the picture shall show, for example “cat face, fluent flat style”.")
    return list(dict.fromkeys(found))


def seeds(text: str) -> list[int]:
    """Whole numbers of 0 or more, apart by commas or spaces; none is 0.

    Raises:
        Refused: something else.
    """
    words = str(text or "").replace(",", " ").split()
    for word in words:
        if not word.isdecimal() or int(word) >= 2**63:
            raise Refused(f"“{word[:40]}” is no seed: write whole numbers of 0 or more, such as 0, 1, 2.")
    return list(dict.fromkeys(int(word) for word in words)) or [0]


def number(name: str, text: object) -> float | None:
    """A number as it was typed, or None where the field was left empty.

    Raises:
        Refused: no finite number.
    """
    typed = str(text if text is not None else "").strip().replace(",", ".")
    if not typed:
        return None
    try:
        value = float(typed)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise Refused(f"{name}: “{typed[:40]}” is no number. Leave the field empty for what is usual.")
    return value


def whole(name: str, text: object) -> int | None:
    """A whole number as it was typed, or None where the field was left empty.

    Raises:
        Refused: no whole number.
    """
    value = number(name, text)
    if value is not None and value != int(value):
        raise Refused(f"{name}: {value:g} is no whole number.")
    return None if value is None else int(value)


def grid(text: str, seed_text: str, given: Mapping[str, Any]) -> list[EditChoices]:
    """Every prompt with every seed.

    Args:
        text: prompts, one a line.
        seed_text: seeds; they count only where there is fresh noise.
        given: the other fields of `EditChoices`.

    Raises:
        Refused: no prompt, no seed, an empty mask, or more than twelve edits at once.
    """
    first = EditChoices("", **given)
    if first.mask == "painted" and first.painted is None:
        raise Refused("The mask is empty: paint over what shall change, or choose “everywhere”.")
    numbers = seeds(seed_text) if first.randomness else [0]
    asked = [replace(first, prompt=prompt, seed=seed) for prompt in prompts(text) for seed in numbers]
    if len(asked) > MOST:
        raise Refused(f"That would be {len(asked)} edits; ask for at most {MOST} at once.")
    return asked
