"""Prompt embeddings that cannot work are refused before any network runs, by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.helpers import tiny
from tests.helpers.kinds import KINDS, embeddings, inverted, settings


def silent(name: str) -> Any:
    """A pipeline whose networks fail the test when they run."""
    pipe = KINDS[name]()
    for part in (pipe.vae, getattr(pipe, "unet", None), getattr(pipe, "transformer", None), pipe.text_encoder):
        if part is not None:
            part.forward = lambda *_, **__: pytest.fail("a network ran before the mistake was found")
    pipe.vae.encode = pipe.vae.forward
    return pipe


def given_for(name: str, pipe: Any) -> dict[str, Any]:
    if name in ("sd", "lcm"):
        return {"prompt_embeds": torch.randn(2, 16, 16)}
    if name == "sdxl":
        return {"prompt_embeds": torch.randn(2, 16, 32), "pooled_prompt_embeds": torch.randn(2, 16)}
    return embeddings(pipe)


def narrowed(value: Any) -> Any:
    return [row[..., :-1] for row in value] if isinstance(value, list) else value[..., :-1]


@pytest.mark.parametrize("driver", ["direct", "pipeline"])
@pytest.mark.parametrize("name", KINDS)
def test_another_width(name: str, driver: Any) -> None:
    pipe = silent(name)
    given = given_for(name, pipe)
    given["prompt_embeds"] = narrowed(given["prompt_embeds"])
    with pytest.raises(ValueError, match=r"prompt_embeds has the shape .* takes \[pictures, tokens, width\]"):
        inverted(pipe, settings(2, 0), prompt=None, pipe_kwargs=given, driver=driver)


@pytest.mark.parametrize("name", KINDS)
def test_another_number_of_axes_rows_or_type(name: str) -> None:
    pipe = silent(name)
    given = given_for(name, pipe)
    for wrong, kind, message in (
        (torch.randn(2, 16), ValueError, "has the shape"),
        (torch.zeros(2, 16, 16, dtype=torch.long), TypeError, "holds no floating-point tensors"),
        ("a cat", TypeError, "holds no floating-point tensors"),
    ):
        with pytest.raises(kind, match=message):
            inverted(pipe, settings(2, 0), prompt=None, pipe_kwargs={**given, "prompt_embeds": wrong})
    three = {key: torch.cat([v, v[:1]]) if isinstance(v, torch.Tensor) else [*v, v[0]] for key, v in given.items()}
    with pytest.raises(ValueError, match="2 pictures and 3 rows of prompt_embeds: pass one prompt per picture"):
        inverted(pipe, settings(2, 0), prompt=None, pipe_kwargs=three)


@pytest.mark.parametrize("name", ["sdxl", "sd3", "flux"])
def test_without_their_pooled_partner(name: str) -> None:
    pipe = silent(name)
    given = given_for(name, pipe)
    for dropped in ("pooled_prompt_embeds", "prompt_embeds"):
        left = {key: value for key, value in given.items() if key != dropped}
        prompt = ["a", "b"] if dropped == "prompt_embeds" else None
        with pytest.raises(ValueError, match=rf"without {dropped}: .* needs both"):
            inverted(pipe, settings(2, 0), prompt=prompt, pipe_kwargs=left)
    wrong = {**given, "pooled_prompt_embeds": given["pooled_prompt_embeds"][:, :-1]}
    with pytest.raises(ValueError, match=r"pooled_prompt_embeds has the shape .* takes \[pictures, width\], with"):
        inverted(pipe, settings(2, 0), prompt=None, pipe_kwargs=wrong)


def test_without_their_mask() -> None:
    pipe = silent("sana")
    given = {"prompt_embeds": given_for("sana", pipe)["prompt_embeds"]}
    with pytest.raises(ValueError, match="prompt_embeds without prompt_attention_mask: SanaPipeline needs both"):
        inverted(pipe, settings(2, 0), prompt=None, pipe_kwargs=given)


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3"])
def test_unequal_negative_embeddings(name: str) -> None:
    pipe = silent(name)
    given = given_for(name, pipe)
    negative = {f"negative_{key}": value for key, value in given.items()}
    negative["negative_prompt_embeds"] = negative["negative_prompt_embeds"][:, :-1]
    with pytest.raises(ValueError, match=r"negative_prompt_embeds are .* and prompt_embeds .*: they are one batch"):
        inverted(pipe, settings(2, 0, 2.0), prompt=None, pipe_kwargs=given | negative)


def test_a_network_that_projects_its_embeddings_takes_any_width() -> None:
    pipe = tiny.sd(unet=tiny.unet(encoder_hid_dim=24, encoder_hid_dim_type="text_proj"))
    inverted(pipe, settings(1, 0), prompt=None, pipe_kwargs={"prompt_embeds": torch.randn(2, 16, 24)})
