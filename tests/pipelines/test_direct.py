"""The direct driver of transformer pipelines: what a rehearsal costs and leaves behind, and what the network is asked.

That its answers are those of the pipeline's own loop is tested in `test_stand_in`.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import renoise
from renoise.core.query import Query
from renoise.pipelines import direct
from renoise.pipelines.adapter import Adapter
from renoise.pipelines.direct import DirectDenoiser, Rehearsal, rehearse
from renoise.pipelines.families import Loop
from renoise.pipelines.keywords import Call
from renoise.pipelines.stand_in import placed, stand_in
from renoise.record import Scene
from tests.helpers import tiny_flow
from tests.helpers.kinds import FLOW, KINDS, embeddings, inverted, settings, size_of

TWICE = ("flux2", "qwen")  # ask a second time under guidance


def rehearsed(pipe: Any, guidance: float) -> tuple[Rehearsal, Loop]:
    adapter = Adapter(pipe)
    call = adapter.call(Scene(None, None, guidance, embeddings(pipe, guidance)), 3, size_of(pipe))
    assert adapter.family.direct is not None
    return adapter.rehearsals([call])[0], adapter.family.direct


def latents_of(found: Rehearsal, loop: Loop, seed: int = 0) -> Tensor:
    """Noise for the two pictures of a rehearsal."""
    shown = found.calls[0][loop.latents]
    shape = shown[0].squeeze(1).shape if isinstance(shown, list) else shown[0].shape
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("guidance", [1.0, 2.5])
@pytest.mark.parametrize("name", FLOW)
def test_direct_calls_save_the_evaluation_that_a_loop_throws_away(name: str, guidance: float) -> None:
    pipe, calls = FLOW[name](), {}
    for driver in ("direct", "pipeline"):
        evaluated: list[int] = []
        hook = pipe.transformer.register_forward_hook(lambda *_, seen=evaluated: seen.append(1))
        assert inverted(pipe, settings(2, 1, guidance), driver=driver).passes == 4
        hook.remove()
        calls[driver] = len(evaluated)
    each = 2 if guidance > 1 and name in TWICE else 1
    assert calls == {"direct": 4 * each + each - 1, "pipeline": 4 * each + each}


def test_a_distilled_network_is_asked_once_under_guidance() -> None:
    """FLUX.2 klein ignores guidance where it was distilled, and its pipeline then asks once only."""
    pipe = tiny_flow.flux2(is_distilled=True)
    found = [inverted(pipe, settings(2, 1, 2.5), driver=driver) for driver in ("direct", "pipeline")]
    assert torch.equal(found[0].latents, found[1].latents)


@pytest.mark.parametrize("name", FLOW)
def test_a_rehearsal_leaves_nothing_behind(name: str) -> None:
    pipe = FLOW[name]()
    scheduler, before = pipe.scheduler, {key: repr(value) for key, value in vars(pipe.scheduler).items()}
    config, random_state, hooks = dict(pipe.config), torch.get_rng_state(), len(pipe.transformer._forward_pre_hooks)
    rehearsed(pipe, 1.0)
    assert pipe.scheduler is scheduler
    assert {key: repr(value) for key, value in vars(scheduler).items()} == before
    assert dict(pipe.config) == config
    assert torch.equal(torch.get_rng_state(), random_state)
    assert len(pipe.transformer._forward_pre_hooks) == hooks


def test_a_failing_rehearsal_is_put_back_too() -> None:
    pipe = tiny_flow.sd3()
    scheduler, hooks = pipe.scheduler, len(pipe.transformer._forward_pre_hooks)
    with pytest.raises(ValueError, match="has to be of type"):
        rehearse(pipe, Call({"prompt": 7}, 1.0, 1), Loop())
    assert pipe.scheduler is scheduler
    assert len(pipe.transformer._forward_pre_hooks) == hooks


@pytest.mark.parametrize("guidance", [1.0, 2.5])
@pytest.mark.parametrize("name", FLOW)
def test_copies_are_answered_one_after_the_other(name: str, guidance: float) -> None:
    pipe = FLOW[name]()
    found, loop = rehearsed(pipe, guidance)
    denoise = DirectDenoiser([found], loop, found.measure())
    z = torch.cat([latents_of(found, loop, seed) for seed in range(2)])
    both = denoise(Query(z, 1, scenes=(0, 0)))
    assert both.shape == z.shape
    for block in range(2):
        rows = slice(2 * block, 2 * block + 2)
        # on some processors, products of more rows are rounded otherwise
        torch.testing.assert_close(both[rows], denoise(Query(z[rows], 1)), rtol=1e-5, atol=1e-5)
    assert not torch.equal(denoise(Query(z[:2], 0)), denoise(Query(z[:2], 1)))  # time counts


@pytest.mark.parametrize("guidance", [1.0, 2.5])
@pytest.mark.parametrize("name", FLOW)
def test_the_network_does_not_see_images_that_nobody_waits_for(name: str, guidance: float) -> None:
    pipe = FLOW[name]()
    found, loop = rehearsed(pipe, guidance)
    denoise = DirectDenoiser([found], loop, found.measure())
    z = latents_of(found, loop)
    whole = denoise(Query(z, 1))
    seen: list[int] = []
    hook = pipe.transformer.register_forward_pre_hook(
        lambda _, positional, named: seen.append(len(named[loop.latents])), with_kwargs=True
    )
    m = denoise(Query(z, 1, waiting=torch.tensor([False, True])))
    hook.remove()
    assert seen == [len(cue[loop.latents]) // 2 for cue in found.calls]
    torch.testing.assert_close(m[1], whole[1], rtol=1e-5, atol=1e-5)
    assert m[0].isnan().all()


def test_positions_of_as_many_tokens_as_pictures_are_not_taken_for_rows() -> None:
    """FLUX hands positions over once for all pictures."""
    found, loop = rehearsed(tiny_flow.flux(), 1.0)
    cue = dict(found.calls[0])
    cue |= {"img_ids": cue["img_ids"][:2], "txt_ids": cue["txt_ids"][:2]}
    few = DirectDenoiser([found], loop, found.measure())._rows([cue], (1,))
    assert len(few["img_ids"]) == len(few["txt_ids"]) == 2
    assert len(few["encoder_hidden_states"]) == 1


@pytest.mark.parametrize("name", FLOW)
def test_half_precision_networks_are_asked_in_their_own(name: str) -> None:
    pipe, half = FLOW[name](), torch.bfloat16
    torch.nn.Module.to(pipe.transformer, half)
    cast: dict[str, Any] = {}
    for key, value in embeddings(pipe).items():
        whole = [row.to(half) for row in value] if isinstance(value, list) else value
        cast[key] = whole.to(half) if isinstance(whole, Tensor) and whole.is_floating_point() else whole
    found = [inverted(pipe, settings(3, 2), driver=driver, pipe_kwargs=cast) for driver in ("direct", "pipeline")]
    assert found[0].latents.dtype == torch.float32
    assert torch.equal(found[0].latents, found[1].latents)


def test_a_variance_beside_the_prediction_is_left_out_and_time_scaled() -> None:
    pipe = tiny_flow.sana(transformer=tiny_flow.sana_transformer(out_channels=8, timestep_scale=0.5))
    found = [inverted(pipe, settings(2, 1, 2.5), driver=driver) for driver in ("direct", "pipeline")]
    assert torch.equal(found[0].latents, found[1].latents)


@pytest.mark.parametrize("guidance", [1.0, 2.5])
@pytest.mark.parametrize("name", ["sd", "sdxl", "lcm", "sd3"])
def test_texts_and_their_embeddings_are_the_same(name: str, guidance: float) -> None:
    """Texts where the tiny pipeline can encode them, and the embeddings that it makes of them, by both drivers."""
    pipe, prompts, negatives = KINDS[name](), ["a cat", "dogs in the rain"], ["ugly", "red dog"]
    guided = guidance > 1 and name != "lcm"
    given: dict[str, Any] = {"device": torch.device("cpu"), "do_classifier_free_guidance": guided}
    given |= {"num_images_per_prompt": 1, "negative_prompt": negatives if guided else None}
    if name == "sd3":
        given |= {"prompt_2": None, "prompt_3": None}
    with torch.no_grad():
        encoded = pipe.encode_prompt(prompts, **given)
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    embedded = {key: value for key, value in zip(names, encoded, strict=False) if value is not None}
    texts = {"prompt": prompts, "pipe_kwargs": {}} | ({"negative_prompt": negatives} if guided else {})
    found = [
        inverted(pipe, settings(2, 1, guidance), driver=driver, **scene).latents
        for driver in ("direct", "pipeline")
        for scene in (texts, {"prompt": None, "pipe_kwargs": embedded})
    ]
    for latents in found[1:]:
        assert torch.equal(latents, found[0])


def test_an_edit_by_text_takes_the_place_of_embeddings() -> None:
    pipe = tiny_flow.sd3()
    inversion = inverted(pipe, settings(2, 1))
    by_text = inversion.edit(["a cat", "a dog"])
    plain = Scene(("a cat", "a dog"), None, 1.0, {})
    assert [picture.tobytes() for picture in by_text] == [
        picture.tobytes() for picture in renoise.images.to_pil(inversion.regenerate(plain))
    ]


def test_a_compiled_network_is_rehearsed_too() -> None:
    pipe = tiny_flow.flux()
    plain = inverted(pipe, settings(1, 0)).latents
    pipe.transformer = torch.compile(pipe.transformer, backend="eager")
    torch.testing.assert_close(inverted(pipe, settings(1, 0)).latents, plain, rtol=1e-4, atol=1e-4)


def test_a_busy_pipeline_is_refused() -> None:
    pipe = tiny_flow.flux()
    with (
        placed(pipe, stand_in(pipe.scheduler, lambda measure: pytest.fail("began"))),
        pytest.raises(RuntimeError, match="in the middle of an inversion"),
    ):
        inverted(pipe, settings(2, 0))


def test_a_pipeline_that_never_asks_is_named() -> None:
    pipe = tiny_flow.sd3()

    class Silent(type(pipe)):  # type: ignore[misc]
        def __call__(self, **keywords: Any) -> None:
            """A loop of no rounds."""

    pipe.__class__ = Silent
    with pytest.raises(RuntimeError, match="Silent never asked its network: pass driver='pipeline'"):
        rehearse(pipe, Call({"prompt": ["a cat"]}, 1.0, 1), Loop())


def test_names_are_sorted() -> None:
    assert direct.__all__ == sorted(direct.__all__)
    assert all(hasattr(direct, name) for name in direct.__all__)
