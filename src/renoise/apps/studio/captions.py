"""What a picture shows, in words: guesses of the embedded judge, or of an image-to-text model of the user's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from renoise import images, models
from renoise.judge import SIZE, Judge

__all__ = ["Captioner", "Guess", "Vocabulary", "by_judge", "by_model", "vocabulary"]

_QUESTION = "Describe this picture in one short line."


@dataclass(frozen=True)
class Guess:
    """A caption, and how sure the judge is of its concept, in [0, 1]; None where nobody said."""

    caption: str
    probability: float | None = None


@dataclass(frozen=True)
class Vocabulary:
    """The concepts and the styles that the embedded models know by name."""

    concepts: tuple[str, ...]
    styles: tuple[str, ...]


Captioner = Callable[[Image.Image], list[Guess]]
"""Guesses what a picture in RGB shows, best first."""


@cache
def _judge() -> Judge:
    return models.judge()


@cache
def vocabulary() -> Vocabulary:
    """What the embedded models know, as far as their judge can tell it apart."""
    judge = _judge()
    return Vocabulary(judge.concepts, judge.styles)


def by_judge(picture: Image.Image, most: int = 3) -> list[Guess]:
    """Captions in the words that the embedded models were trained with: "concept, style style".

    Args:
        picture: RGB, of any size; it is fitted into a square as for the models.
        most: number of guesses.
    """
    judge = _judge()
    fitted, _ = images.fit(picture, (SIZE, SIZE))
    pixels = images.to_tensor([fitted])
    style = judge.styles[int(judge.style_probabilities(pixels)[0].argmax())]
    top = judge.concept_probabilities(pixels)[0].topk(most)
    return [
        Guess(f"{judge.concepts[index]}, {style} style", probability)
        for probability, index in zip(top.values.tolist(), top.indices.tolist(), strict=True)
    ]


def by_model(name: str) -> Captioner:
    """A captioner that asks an image-to-text model of transformers.

    Args:
        name: the folder of the model, or its name on the Hugging Face hub; models that describe a picture without being
            asked (BLIP) and models that answer a question about it (with a chat template) both work.

    Raises:
        ValueError: no such model, or one that takes no pictures.
    """
    from transformers import pipeline

    try:
        asked: Any = pipeline("image-text-to-text", model=name, local_files_only=Path(name).is_dir())
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"--captioner {name}: no image-to-text model can be loaded from there ({first}); name a folder or a model "
            "on the hub of the kind image-text-to-text, such as Salesforce/blip-image-captioning-base"
        ) from error
    chats = bool(getattr(asked.processor, "chat_template", None))
    alone = threading.Lock()  # one question at a time

    def captions(picture: Image.Image) -> list[Guess]:
        with alone:
            if chats:
                content = [{"type": "image", "image": picture}, {"type": "text", "text": _QUESTION}]
                told = asked(text=[{"role": "user", "content": content}], max_new_tokens=40, return_full_text=False)
            else:
                told = asked(picture, text="", max_new_tokens=40)
        return [Guess(caption) for caption in _texts(told) if caption]

    return captions


def _texts(told: Sequence[dict[str, Any]]) -> list[str]:
    """The captions of an answer, each on one line."""
    return [" ".join(str(answer["generated_text"]).split()).strip(' ."') for answer in told]
