"""The universal driver on tiny pipelines of the real classes: the truth is what the stock pipelines compute."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import renoise
from renoise.core.loop import replay
from renoise.core.query import Job
from renoise.core.settings import Region
from renoise.pipelines.families import denoiser
from renoise.pipelines.recorder import recorded
from renoise.pipelines.stand_in import Measure, through
from renoise.presets import PRESETS
from tests.helpers import tiny, tiny_flow
from tests.helpers.kinds import (
    FLOW,
    KINDS,
    UNETS,
    another,
    call_keywords,
    embeddings,
    inverted,
    pictures,
    settings,
    size_of,
)

# ---------------------------------------------------------------- against the stock pipeline


@pytest.mark.parametrize("guidance", [1.0, 2.5])
@pytest.mark.parametrize("name", FLOW)
def test_replay_is_the_stock_pipelines_generation(name: str, guidance: float) -> None:
    pipe = FLOW[name]()
    keywords = call_keywords(pipe, None, guidance, embeddings(pipe, guidance), size_of(pipe))
    with recorded(pipe) as stock:
        pipe(**keywords, generator=torch.Generator().manual_seed(3), output_type="latent")

    def begin(measure: Measure) -> Job[Tensor]:
        table = measure()
        return Job(replay(table, stock.latents[0].float()), table, len(table))

    ours = through(pipe, begin, keywords)
    scale = stock.results[-1].std().item()
    assert (ours - stock.results[-1]).abs().max() < 1e-5 * scale


@pytest.mark.parametrize(
    ("name", "steps", "guidance"),
    [
        (name, steps, guidance)
        for name in KINDS
        for steps, guidance in ((1, 2.5), (2, 1.0), (3, 2.5), (4, 1.0), (7, 2.5), (20, 1.0))
        if (name, steps) != ("qwen", 1)  # whose stretched schedule takes two steps at least
    ],
)
def test_both_drivers_give_the_same_bits(name: str, steps: int, guidance: float) -> None:
    pipe, wanted = KINDS[name](), settings(steps, int(steps < 5), guidance)
    direct = inverted(pipe, wanted)
    through_pipe = inverted(pipe, wanted, driver="pipeline")
    assert (direct.record.driver, through_pipe.record.driver) == ("direct", "pipeline")
    assert direct.passes == through_pipe.passes >= steps
    assert torch.equal(direct.latents, through_pipe.latents)
    other = another(direct.scene)
    assert torch.equal(direct.regenerate(other), through_pipe.regenerate(other))


@pytest.mark.parametrize("scheduler", ["flow", "flow_dynamic", "flow_qwen"])
@pytest.mark.parametrize("name", [name for name in FLOW if name != "sana"])  # which hands no shift over
def test_both_drivers_set_a_flow_up_alike(name: str, scheduler: str) -> None:
    """Shifts by the size of the picture and the number of steps, and steps that draw noise."""
    pipe = FLOW[name](getattr(tiny_flow, scheduler)(stochastic_sampling=True))
    found = [inverted(pipe, settings(3, 1), driver=driver) for driver in ("direct", "pipeline")]
    assert found[0].table.stochastic
    assert torch.equal(found[0].table.a, found[1].table.a)
    assert torch.equal(found[0].latents, found[1].latents)


@pytest.mark.parametrize("name", [name for name in KINDS if name != "lcm"])
def test_a_part_of_a_schedule_is_walked_back_in_other_numbers_of_steps(name: str) -> None:
    """From the level that the inversion went to, the same by both drivers, and the finer the closer to the curve."""
    pipe = KINDS[name](tiny.ddim()) if name in UNETS else KINDS[name]()
    direct, through_pipe = (
        inverted(pipe, settings(8, 2), driver=driver, strength=0.5) for driver in ("direct", "pipeline")
    )
    coarse, fine, finest = (direct.regenerate(direct.scene, steps) for steps in (3, 20, 40))
    assert torch.equal(coarse, through_pipe.regenerate(through_pipe.scene, 3))
    assert (fine - finest).abs().mean() < 0.7 * (coarse - finest).abs().mean()
    evaluated: list[int] = []
    denoiser(pipe).register_forward_hook(lambda *_: evaluated.append(1))
    direct.regenerate(direct.scene, 20)
    assert 7 < len(evaluated) < 14  # a half of them


@pytest.mark.parametrize("name", UNETS)
def test_both_drivers_agree_with_losses_and_correction(name: str) -> None:
    """The edit losses' target is asked for beside an estimate: in one batch directly, one after the other in a loop."""
    once = (Region(iterations=1, weights=(0, 1)),)
    wanted = replace(PRESETS["paper-sdxl-turbo"].settings, num_inference_steps=1, regions=once)
    results = [inverted(UNETS[name](), wanted, driver=driver) for driver in ("direct", "pipeline")]
    assert results[0].passes == results[1].passes
    torch.testing.assert_close(results[0].latents, results[1].latents, rtol=1e-3, atol=1e-3)


# ---------------------------------------------------------------- the job itself


@pytest.mark.parametrize("guidance", [1.0, 1.5])
@pytest.mark.parametrize("name", FLOW)
def test_renoising_reconstructs_through_every_family(name: str, guidance: float) -> None:
    """On short steps, which contract even for random networks."""
    errors = []
    for iterations in (0, 8):
        inversion = inverted(FLOW[name](), settings(20, iterations, guidance), strength=0.2)
        found = inversion.regenerate(inversion.scene)
        assert inversion.passes == 4 * (iterations + 1)
        errors.append((found - inversion.round_trip()).abs().max().item())
    assert errors[1] < 0.1 * errors[0]


@pytest.mark.parametrize("name", FLOW)
def test_a_batch_is_its_pictures_one_by_one(name: str) -> None:
    pipe = FLOW[name]()
    both = inverted(pipe, settings(3, 1))
    rows = embeddings(pipe)
    for row, picture in enumerate(pictures(size_of(pipe))):
        own = {key: value[row : row + 1] if isinstance(value, (Tensor, list)) else value for key, value in rows.items()}
        alone = renoise.invert(pipe, picture, preset=settings(3, 1), size=size_of(pipe), pipe_kwargs=own)
        torch.testing.assert_close(alone.latents[0], both.latents[row], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["flux", "z_image"])
def test_decoding_is_the_stock_pipelines(name: str) -> None:
    """What our reconstruction shows is what the pipeline shows that replays it itself, decoding included."""
    pipe = FLOW[name]()
    inversion = inverted(pipe, settings(3, 2))
    with inversion.replaying() as keywords:
        call = {**keywords, **inversion.scene.pipe_kwargs, "guidance_scale": 0.0 if name == "z_image" else 1.0}
        stock = pipe(**call, output_type="pt").images
    torch.testing.assert_close(stock, inversion.regenerate(inversion.scene), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", UNETS)
def test_the_users_own_call_replays_an_inversion_with_its_noise(name: str) -> None:
    pipe = UNETS[name]()
    inversion = inverted(pipe, settings(3, 2), strength=0.7)
    seen = []

    def look(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append(float(timestep))
        return {}

    for _ in range(2):  # as often as wanted
        with inversion.replaying() as keywords:
            stock = pipe(["a dog", "a cat"], **keywords, output_type="pt", callback_on_step_end=look).images
        ours = inversion.regenerate(replace(inversion.scene, prompts=("a dog", "a cat")))
        torch.testing.assert_close(stock, ours, rtol=0, atol=1e-5)
    first, *rest = seen[: len(seen) // 2]
    assert rest == inversion.table.timesteps.tolist()
    assert first == rest[0]  # the evaluation that is thrown away


# ---------------------------------------------------------------- guests: ControlNet, LoRA


def test_a_controlnets_image_goes_through() -> None:
    pipe = tiny_flow.controlnet(vae=tiny.vae(scaling_factor=4.0))  # latents of order 1
    control = torch.rand(2, 3, *size_of(pipe), generator=torch.Generator().manual_seed(0))
    given = {"prompt": ["a cat", "a dog"], "pipe_kwargs": {"image": control, "controlnet_conditioning_scale": 0.7}}
    with_it = inverted(pipe, settings(20, 6), strength=0.2, **given)
    assert (with_it.regenerate(with_it.scene) - with_it.round_trip()).abs().max() < 0.02
    other = inverted(pipe, settings(20, 6), strength=0.2, **{**given, "pipe_kwargs": {"image": 1 - control}})
    assert not torch.allclose(other.latents, with_it.latents)


# ---------------------------------------------------------------- everything is put back


def state_of(pipe: Any) -> tuple[Any, ...]:
    return (
        id(pipe.scheduler),
        {key: repr(value) for key, value in vars(pipe.scheduler).items()},
        dict(pipe.config),
        dict(getattr(pipe, "_progress_bar_config", {})),
    )


@pytest.mark.parametrize("name", ["sdxl", "flux"])
def test_pipeline_and_global_random_state_stay_as_they_were(name: str) -> None:
    pipe = KINDS[name]()
    before, random_state = state_of(pipe), torch.get_rng_state()
    inversion = inverted(pipe, settings(2, 1), driver="pipeline")
    inversion.reconstruct()
    assert state_of(pipe) == before
    assert torch.equal(torch.get_rng_state(), random_state)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_everything_is_put_back_after_a_failure(error: type[BaseException]) -> None:
    pipe = tiny.sd()
    before = state_of(pipe)

    def fail(*_: Any) -> None:
        raise error("stop")

    hook = pipe.unet.register_forward_pre_hook(fail)
    with pytest.raises(error):
        inverted(pipe, settings(2, 1), driver="pipeline")
    hook.remove()
    assert state_of(pipe) == before
    assert inverted(pipe, settings(2, 1), driver="pipeline").passes == 4


def test_a_second_use_at_the_same_time_is_refused() -> None:
    pipe = tiny.sd()

    def again(*_: Any) -> Iterator[None]:
        inverted(pipe, settings(1, 0), driver="pipeline")
        raise AssertionError("not refused")

    hook = pipe.unet.register_forward_pre_hook(again)
    with pytest.raises(RuntimeError, match="in the middle of an inversion"):
        inverted(pipe, settings(2, 1), driver="pipeline")
    hook.remove()


# ---------------------------------------------------------------- mistakes


def test_mistakes_in_pipe_kwargs_are_named() -> None:
    pipe = tiny.sd()
    for keywords, kind, message in (
        ({"height": 32}, ValueError, r"height in pipe_kwargs: pass size="),
        ({"latents": None}, ValueError, "latents in pipe_kwargs: the inversion makes them"),
        ({"controlnet": 1}, TypeError, "StableDiffusionPipeline takes no 'controlnet'"),
    ):
        with pytest.raises(kind, match=message):
            inverted(pipe, settings(), pipe_kwargs=keywords)
    with pytest.raises(ValueError, match="reads embeddings of prompts in pipe_kwargs, not clip_skip"):
        inverted(pipe, settings(), driver="direct", pipe_kwargs={"clip_skip": 1})
    with pytest.raises(ValueError, match="a prompt, 'a cat', and prompt_embeds in pipe_kwargs"):
        inverted(tiny_flow.sd3(), settings(), prompt="a cat")
    with pytest.raises(ValueError, match="driver='direct' does not know StableDiffusionControlNetPipeline"):
        inverted(tiny_flow.controlnet(), settings(), driver="direct")
    with pytest.raises(ValueError, match="driver='both' is neither"):
        inverted(pipe, settings(), driver="both")
    with pytest.raises(ValueError, match=r"takes no negative prompt here: leave out 'ugly'$"):
        inverted(tiny_flow.flux2(), settings(guidance=2.0), negative_prompt="ugly")
    with pytest.raises(ValueError, match=r"leave out 'ugly', or pass pipe_kwargs=\{'true_cfg_scale': 2.0\}"):
        inverted(tiny_flow.flux(), settings(guidance=2.0), negative_prompt="ugly")
    with pytest.raises(ValueError, match="a negative prompt, 'ugly', and negative_prompt_embeds: pass one of them"):
        inverted(
            pipe,
            settings(guidance=2.0),
            negative_prompt="ugly",
            pipe_kwargs={"negative_prompt_embeds": torch.zeros(2, 8, 16)},
        )


def test_unets_take_sizes_that_do_not_halve_evenly() -> None:
    pipe = renoise.models.load("emoji-turbo")  # latents of these sizes cannot be halved twice
    found = [
        renoise.invert(pipe, pictures((72, 88)), ["a", "b"], preset=settings(2, 1), size=(72, 88), driver=driver)
        for driver in ("direct", "pipeline")
    ]
    factor = pipe.vae_scale_factor
    assert found[0].latents.shape[-2:] == (72 // factor, 88 // factor)
    assert found[0].latents.equal(found[1].latents)
    assert [picture.size for picture in found[0].reconstruct()] == [(88, 72)] * 2


def test_a_negative_prompt_of_an_edit_takes_the_place_of_embeddings_and_the_other_way_round() -> None:
    pipe = tiny.sd()
    with torch.no_grad():
        _, ugly = pipe.encode_prompt(["a"] * 2, torch.device("cpu"), 1, True, ["ugly"] * 2)
    by_text = inverted(pipe, settings(2, 1, 2.0), negative_prompt="ugly")
    embedded = inverted(pipe, settings(2, 1, 2.0), pipe_kwargs={"negative_prompt_embeds": ugly})
    assert torch.equal(by_text.latents, embedded.latents)
    red = [picture.tobytes() for picture in by_text.edit("a dog", negative_prompt="red")]
    assert red == [picture.tobytes() for picture in embedded.edit("a dog", negative_prompt="red")]
    assert red != [picture.tobytes() for picture in embedded.edit("a dog")]
    again = by_text.edit("a dog", pipe_kwargs={"negative_prompt_embeds": ugly})
    assert [picture.tobytes() for picture in again] == [picture.tobytes() for picture in embedded.edit("a dog")]


@pytest.mark.parametrize("driver", ["direct", "pipeline"])
def test_a_wrong_number_of_prompts_is_named(driver: str) -> None:
    pipe = tiny_flow.flux()
    with pytest.raises(ValueError, match="pass one prompt per picture"):
        inverted(pipe, settings(2, 0), driver=driver, pipe_kwargs=tiny_flow.embeds(pipe, 1))


def test_a_loop_that_is_interrupted_is_named() -> None:
    pipe = tiny.sd()

    def interrupt(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        raise_at = step == 1
        pipe._interrupt = raise_at
        return {}

    class Interrupted(type(pipe)):  # type: ignore[misc]
        def __call__(self, **keywords: Any) -> Any:
            return super().__call__(**keywords, callback_on_step_end=interrupt)

    pipe.__class__ = Interrupted
    with pytest.raises(RuntimeError, match="ended its loop before the inversion did"):
        inverted(pipe, settings(), prompt=["a", "b"], driver="pipeline")
