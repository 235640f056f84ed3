"""Texts as users hand them over: one for all pictures, or one each."""

from __future__ import annotations

from collections.abc import Sequence

from renoise.core.checks import shown

__all__ = ["one_each"]


def one_each(value: str | Sequence[str], count: int, name: str) -> tuple[str, ...]:
    """One text per picture.

    Args:
        value: a text for all pictures, or one for each.
        count: pictures.
        name: of the argument, for errors.

    Raises:
        TypeError: no text.
        ValueError: not as many texts as pictures, or half of a character.
    """
    texts = (value,) * count if isinstance(value, str) else value
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
        raise TypeError(f"{name}={shown(value)} is not text; pass a str, or a list of {count}")
    if len(texts) != count:
        raise ValueError(f"{len(texts)} texts in {name} for {count} pictures; pass one for all, or one each")
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{name}={shown(text)} holds half of a character at position {error.start} (a lone surrogate, U+"
                f"{ord(text[error.start]):04X}), which no tokenizer reads; remove it: "
                "text.encode(errors='ignore').decode()"
            ) from error
    return tuple(str(text) for text in texts)
