"""Prompts as users hand them over."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import renoise
from renoise.texts import one_each
from tests.helpers import tiny


@pytest.mark.parametrize("text", ["\ud83d", "a \udc00 cat", "\ud800\ud800"])
def test_half_of_a_character_is_refused_before_any_network_runs(text: str) -> None:
    message = (
        r"prompt=.* holds half of a character at position \d \(a lone surrogate, U\+D[0-9A-F]{3}\).*remove it: text"
    )
    with pytest.raises(ValueError, match=message):
        one_each(text, 1, "prompt")
    pipe = tiny.sd()
    for network in (pipe.unet, pipe.vae, pipe.text_encoder):
        network.register_forward_pre_hook(lambda *_: pytest.fail("a network ran"))
    picture = np.zeros((8, 8, 3), np.uint8)
    for prompts in ({"prompt": text}, {"prompt": "a cat", "negative_prompt": [text]}):
        given: dict[str, Any] = prompts
        with pytest.raises(ValueError, match="holds half of a character"):
            renoise.invert(pipe, picture, **given)


def test_whole_characters_pass() -> None:
    for text in ("", "кот", "\U0001f431", "\x00", "a\nb"):
        assert one_each(text, 2, "prompt") == (text, text)
    assert type(one_each(np.str_("cat"), 1, "prompt")[0]) is str


def test_long_values_are_cut_in_messages() -> None:
    with pytest.raises(TypeError, match=r"prompt=\[7, 7.*\.\.\. is not text") as caught:
        one_each([7] * 10_000, 1, "prompt")  # type: ignore[list-item]
    assert len(str(caught.value)) < 300
