"""Texts as users hand them over: one for all pictures, or one each."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["one_each"]


def one_each(value: str | Sequence[str], count: int, name: str) -> tuple[str, ...]:
    """One text per picture.

    Args:
        value: a text for all pictures, or one for each.
        count: pictures.
        name: of the argument, for errors.

    Raises:
        TypeError: no text.
        ValueError: not as many texts as pictures.
    """
    texts = (value,) * count if isinstance(value, str) else value
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
        raise TypeError(f"{name}={value!r} is not text; pass a str, or a list of {count}")
    if len(texts) != count:
        raise ValueError(f"{len(texts)} texts in {name} for {count} pictures; pass one for all, or one each")
    return tuple(texts)
