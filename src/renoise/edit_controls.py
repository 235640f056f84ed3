"""The words in which users say how an edit is held back or driven on, checked and turned into numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from renoise.core.checks import number, scalar, shown, whole

if TYPE_CHECKING:  # the command line reads the names of the dial, and torch takes seconds to import
    from renoise.core.editing import Controls

__all__ = ["PRESERVE", "EditWords", "words"]

PRESERVE = {"creative": 0.0, "balanced": 0.45, "faithful": 0.6}
"""The named points of the dial `preserve`."""


@dataclass(frozen=True)
class EditWords:
    """What a user asked of an edit, checked.

    Attributes:
        preserve: p of the soft gate, in [0, 1].
        strength: share of the steps that are edited, in (0, 1].
        source_guidance: w, 0 or more; None for what goes with the gate (see `guided`).
        randomness: share of fresh noise in the source latents, 0 to 1.
        seed: of the fresh noise.
    """

    preserve: float = 0.0
    strength: float = 1.0
    source_guidance: float | None = None
    randomness: float = 0.0
    seed: int = 0

    @property
    def plain(self) -> bool:
        """Whether the edit is a replay under another prompt and nothing more."""
        return not (self.preserve or self.source_guidance or self.randomness) and self.strength == 1

    def guided(self, guidance_scale: float) -> EditWords:
        """With the source guidance that goes with the gate, where none was given.

        A gate weakens what it lets through, too. Guidance makes up for that: guidance away from the source where the
        edit takes none, and otherwise its own (docs/editing.md, measured by benchmarks/editing.py).
        """
        if self.source_guidance is not None:
            return self
        return replace(self, source_guidance=1.0 if self.preserve and guidance_scale <= 1 else 0.0)

    def controls(self, steps: int) -> Controls:
        """For a table of so many steps.

        Raises:
            ValueError: a strength that leaves no step.
        """
        from renoise.core.budget import kept_steps
        from renoise.core.editing import Controls

        return Controls(
            preserve=self.preserve,
            first_step=steps - kept_steps(steps, self.strength),
            source_guidance=self.source_guidance or 0.0,
        )


def words(preserve: Any, strength: Any, source_guidance: Any, randomness: Any, seed: Any) -> EditWords:
    """Checks them.

    Raises:
        ValueError: one that cannot work; says which, why, and what would.
    """
    if preserve is None:
        preserve = 0.0
    if isinstance(preserve, str):
        if preserve not in PRESERVE:
            raise ValueError(f"preserve={shown(preserve)} is none of {', '.join(PRESERVE)}, and no number from 0 to 1")
        preserve = PRESERVE[preserve]
    wanted = f" is no number from 0 to 1, and none of {', '.join(PRESERVE)}"
    share = scalar(1.0 if strength is None else strength)
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:
        raise ValueError(
            f"strength={shown(strength)} is not in (0, 1]: 1 edits at every step that was inverted, 0.5 at the half of "
            "them that is nearest to the picture"
        )
    if source_guidance is not None:
        remedy = " is no number from 0 to 100; 1 is strong"
        source_guidance = number("source_guidance", source_guidance, remedy, lambda w: 0 <= w <= 100)
    return EditWords(
        preserve=number("preserve", preserve, wanted, lambda p: 0 <= p <= 1),
        strength=float(share),
        source_guidance=source_guidance,
        randomness=number("randomness", randomness, " is no number from 0 to 1", lambda q: 0 <= q <= 1),
        seed=whole("seed", seed, " is not a whole number from 0 to 2**64 - 1; pass one like 0", most=2**64 - 1),
    )
