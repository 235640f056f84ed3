"""What an edit keeps of its inversion and what it drops, and calls of the user's own that replay one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

import renoise
from renoise.core.settings import EditLosses, Region, Settings, window
from renoise.editable import edited_scene
from tests.helpers import tiny, tiny_flow
from tests.helpers.kinds import FLOW, KINDS, UNETS, embeddings, inverted, pictures, scene, settings, size_of


def bytes_of(results: Any) -> list[bytes]:
    return [result.tobytes() for result in results]


# ---------------------------------------------------------------- a new prompt takes the place of all that said the old


@pytest.mark.parametrize("name", ["sdxl", "sd3"])
def test_a_new_prompt_drops_the_old_one_for_the_second_text_encoder(name: str) -> None:
    pipe = KINDS[name]()
    prompts = {"prompt": ["a cat", "a dog"]}
    plain = inverted(pipe, settings(2, 1), **prompts, driver="pipeline", pipe_kwargs={})
    other = inverted(pipe, settings(2, 1), **prompts, pipe_kwargs={"prompt_2": "rain"})
    assert not torch.equal(plain.latents, other.latents)
    object.__setattr__(other.record.trajectory, "z_T", plain.latents)  # the edits differ by their keywords alone
    object.__setattr__(other.record.trajectory, "noises", plain.trajectory.noises)
    assert bytes_of(other.edit("snow")) == bytes_of(plain.edit("snow"))
    again = other.edit("snow", pipe_kwargs={"prompt_2": "rain"})
    assert bytes_of(again) != bytes_of(plain.edit("snow"))


def test_a_new_negative_prompt_drops_the_old_one_for_the_second_text_encoder() -> None:
    pipe = tiny.sdxl()
    given = {"negative_prompt": "ugly", "pipe_kwargs": {"negative_prompt_2": ["blurred", "cut"]}}
    inversion = inverted(pipe, settings(2, 1, 2.5), **given)
    edited = edited_scene(inversion._editable, ("a", "b"), "red", None, {})
    assert "negative_prompt_2" not in edited.pipe_kwargs
    assert edited_scene(inversion._editable, ("a", "b"), None, None, {}).pipe_kwargs["negative_prompt_2"] == [
        "blurred",
        "cut",
    ]
    inversion.edit("snow", negative_prompt="red")


def test_every_keyword_that_describes_the_picture_is_dropped() -> None:
    from renoise.pipelines.families import DESCRIPTIONS, NEGATIVES

    inversion = inverted(tiny.sd(), settings(1, 0))
    object.__setattr__(inversion.scene, "pipe_kwargs", dict.fromkeys(DESCRIPTIONS | NEGATIVES | {"clip_skip"}))
    assert edited_scene(inversion._editable, ("a", "b"), "red", None, {}).pipe_kwargs.keys() == {"clip_skip"}
    assert {"prompt_2", "prompt_3", "prompt_embeds", "pooled_prompt_embeds"} <= DESCRIPTIONS
    assert {"prompt_attention_mask", "prompt_embeds_mask"} <= DESCRIPTIONS
    assert {"negative_prompt_2", "negative_prompt_3", "negative_prompt_embeds_mask"} <= NEGATIVES


def test_prompts_of_a_second_text_encoder_are_one_for_each_picture() -> None:
    with pytest.raises(ValueError, match="3 texts in prompt_2 for 2 pictures"):
        inverted(tiny.sdxl(), settings(2, 0), pipe_kwargs={"prompt_2": ["a", "b", "c"]})


# ---------------------------------------------------------------- calls of the user's own


@pytest.mark.parametrize("driver", ["direct", "pipeline"])
@pytest.mark.parametrize("guidance", [1.0, 2.5])
@pytest.mark.parametrize("name", KINDS)
def test_the_users_own_call_makes_the_picture_of_an_edit(name: str, guidance: float, driver: Any) -> None:
    pipe = KINDS[name]()
    inversion = inverted(pipe, settings(3, 1, guidance), driver=driver)
    prompts = scene(pipe, 1.0)
    described = {"prompt": prompts["prompt"], **prompts.get("pipe_kwargs", {})}
    with inversion.replaying() as keywords:
        stock = pipe(**described, **keywords, output_type="pt").images
    edited = inversion.edit(prompts["prompt"], pipe_kwargs=prompts.get("pipe_kwargs"))
    ours = np.stack([np.asarray(picture, dtype=float) for picture in edited]) / 255
    assert np.abs(stock.permute(0, 2, 3, 1).numpy() - ours).max() < 0.01


def test_one_picture_is_replayed_with_one_negative_prompt() -> None:
    pipe = tiny.sdxl()
    options: dict[str, Any] = {"preset": settings(2, 1), "size": 32, "guidance_scale": 3.0}
    inversion = renoise.invert(pipe, pictures((32, 32))[0], "a cat", negative_prompt="ugly", **options)
    with inversion.replaying() as keywords:
        assert (keywords["guidance_scale"], keywords["negative_prompt"]) == (3.0, "ugly")
        stock = pipe("a dog", **keywords).images[0]
    assert np.abs(np.asarray(stock, dtype=float) - np.asarray(inversion.edit("a dog"), dtype=float)).max() <= 1


def test_a_controlnets_image_is_among_the_keywords() -> None:
    pipe = tiny_flow.controlnet()
    control = torch.rand(2, 3, *size_of(pipe), generator=torch.Generator().manual_seed(0))
    inversion = inverted(pipe, settings(2, 1), prompt=["a", "b"], pipe_kwargs={"image": control})
    with inversion.replaying() as keywords:
        assert keywords["image"] is control
        pipe(["a dog", "a cat"], **keywords)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("sd", {"num_inference_steps": 7}),
        ("sd", {"timesteps": [801, 601, 401]}),
        ("sd3", {"num_inference_steps": 7}),
        ("flux", {"num_inference_steps": 7}),
        ("flux", {"sigmas": [1.0, 0.9, 0.8]}),
    ],
)
def test_other_steps_in_ones_own_call_are_refused(name: str, changed: dict[str, Any]) -> None:
    pipe = KINDS[name]()
    inversion = inverted(pipe, settings(3, 1))
    prompts = scene(pipe, 1.0)
    with (
        inversion.replaying() as keywords,
        pytest.raises(ValueError, match="an inversion of 3 steps is replayed"),
    ):
        pipe(**{"prompt": prompts["prompt"], **prompts.get("pipe_kwargs", {}), **keywords, **changed})
    inversion.reconstruct()  # nothing is left behind


def test_a_schedule_of_ones_own_is_replayed_in_ones_own_call() -> None:
    pipe = tiny_flow.flux()
    inversion = inverted(
        pipe, settings(3, 1), pipe_kwargs={**embeddings(pipe), "sigmas": [1.0, 0.7, 0.3]}, driver="pipeline"
    )
    with inversion.replaying() as keywords:
        stock = pipe(**embeddings(pipe), **keywords, output_type="pt").images
    torch.testing.assert_close(stock, inversion.regenerate(inversion.scene), rtol=0, atol=1e-5)


# ---------------------------------------------------------------- keywords that count rounds


COUNTING: list[tuple[Any, dict[str, Any]]] = [
    (tiny_flow.controlnet, {"control_guidance_end": 0.5}),
    (tiny_flow.controlnet, {"control_guidance_start": [0.2]}),
    (tiny_flow.sd3, {"skip_guidance_layers": [0]}),
    (tiny_flow.z_image, {"cfg_truncation": 0.5}),
    (tiny.sd, {"callback_on_step_end": lambda pipe, step, timestep, tensors: {}}),
]


@pytest.mark.parametrize(("make", "counting"), COUNTING, ids=[next(iter(counting)) for _, counting in COUNTING])
def test_keywords_that_count_rounds_are_refused_by_name(make: Any, counting: dict[str, Any]) -> None:
    pipe = make()
    given: dict[str, Any] = {"prompt": ["a", "b"]} if make in (tiny_flow.controlnet, tiny.sd) else scene(pipe, 1.0)
    extra = {**given.pop("pipe_kwargs", {}), **counting}
    (name,) = counting
    with pytest.raises(ValueError, match=f"{name} in pipe_kwargs counts the rounds of the pipeline's loop"):
        inverted(pipe, settings(2, 0), **given, pipe_kwargs=extra)


def test_values_of_them_that_change_nothing_are_taken() -> None:
    pipe = tiny_flow.controlnet()
    extra = {"image": torch.rand(2, 3, *size_of(pipe)), "control_guidance_start": 0.0, "control_guidance_end": [1.0]}
    inverted(pipe, settings(2, 0), prompt=["a", "b"], pipe_kwargs=extra)


# ---------------------------------------------------------------- another scheduler by now

UNET_SCHEDULERS = {
    "pndm": lambda: PNDMScheduler(**tiny.TRAINING),
    "heun": lambda: HeunDiscreteScheduler(**tiny.TRAINING),
    "dpm": lambda: DPMSolverMultistepScheduler(**tiny.TRAINING),
}
FLOW_SIGMAS: dict[str, Any] = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
FLOW_SCHEDULERS = {
    "unipc": lambda: UniPCMultistepScheduler(**FLOW_SIGMAS),
    "dpm": lambda: DPMSolverMultistepScheduler(**FLOW_SIGMAS),
    "heun": lambda: FlowMatchHeunDiscreteScheduler(shift=3.0),
}
SWAPS = [
    (kind, other)
    for kinds, others in ((UNETS, UNET_SCHEDULERS), (FLOW, FLOW_SCHEDULERS))
    for kind in kinds
    for other in others
]


@pytest.mark.parametrize("driver", ["direct", "pipeline"])
@pytest.mark.parametrize(("name", "other"), SWAPS)
def test_a_scheduler_swapped_later_changes_nothing(name: str, other: str, driver: Any) -> None:
    pipe = KINDS[name]()
    inversion = inverted(pipe, settings(3, 1), driver=driver)
    before = inversion.regenerate(inversion.scene)
    pipe.scheduler = (UNET_SCHEDULERS if name in UNETS else FLOW_SCHEDULERS)[other]()
    assert torch.equal(inversion.regenerate(inversion.scene), before)
    prompts = scene(pipe, 1.0)
    with inversion.replaying() as keywords:
        stock = pipe(
            **{"prompt": prompts["prompt"], **prompts.get("pipe_kwargs", {}), **keywords}, output_type="pt"
        ).images
    torch.testing.assert_close(stock, before, rtol=0, atol=1e-5)


# ---------------------------------------------------------------- said, where it would pass unnoticed


@pytest.mark.parametrize("name", ["flux", "flux2"])
def test_guidance_that_has_no_effect_is_said(name: str) -> None:
    pipe = (
        tiny_flow.flux(transformer=tiny_flow.flux_transformer(guidance_embeds=False))
        if name == "flux"
        else tiny_flow.flux2(is_distilled=True)
    )
    with pytest.warns(UserWarning, match="guidance has no effect: the network of this Flux"):
        inversion = inverted(pipe, settings(2, 0), guidance_scale=3.0)
    with pytest.warns(UserWarning, match="guidance has no effect"):
        inversion.edit(pipe_kwargs=embeddings(pipe), guidance_scale=2.0)
    inverted(pipe, settings(2, 0), guidance_scale=1.0)


LOSSES = [("lambda_pair", EditLosses(lambda_pair=1e6, lambda_kl=0.0)), ("lambda_kl", EditLosses(0.0, lambda_kl=1e6))]


@pytest.mark.parametrize("driver", ["direct", "pipeline"])
@pytest.mark.parametrize(("name", "losses"), LOSSES)
def test_edit_losses_that_overflow_are_named(name: str, losses: EditLosses, driver: Any) -> None:
    wanted = Settings((Region(iterations=2, weights=window(1, 3, 2)),), edit_losses=losses, num_inference_steps=3)
    with pytest.raises(ValueError, match=f"the edit losses .*{name}"):
        inverted(tiny.sd(), wanted, driver=driver)


def test_an_edit_on_other_steps_of_a_scheduler_set_up_otherwise_is_refused() -> None:
    """The class alone does not tell: this one predicts something else."""
    pipe = tiny.sd()
    inversion = inverted(pipe, settings())
    pipe.scheduler = tiny.ddim(prediction_type="v_prediction")
    with pytest.raises(ValueError, match=r"whose steps differ from this one's \(in a\)"):
        inversion.edit("a dog", num_inference_steps=9)


def test_replaying_refuses_a_step_cache_and_says_changed_weights() -> None:
    pipe = tiny.sd()
    inversion = inverted(pipe, settings())
    with torch.no_grad():
        for weight in pipe.unet.parameters():
            weight *= 1.3
    with pytest.warns(UserWarning, match="changed since the inversion"), inversion.replaying():
        pass
    pipe.unet.is_cache_enabled = True
    with pytest.raises(ValueError, match="has a step cache"), inversion.replaying():
        pass


def test_guidance_of_qwen_image_is_told_in_one_way() -> None:
    pipe = tiny_flow.qwen()
    extra = {**scene(pipe, 1.0)["pipe_kwargs"], "true_cfg_scale": 4.0}
    with pytest.raises(ValueError, match="true_cfg_scale in pipe_kwargs: pass it as guidance_scale="):
        inverted(pipe, settings(), pipe_kwargs=extra)


# ---------------------------------------------------------------- keywords that would not be heard in ones own call


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        (
            "controlnet",
            {"control_guidance_end": 0.5},
            "control_guidance_end=0.5 while an inversion is replayed",
        ),
        ("controlnet", {"control_guidance_start": [0.25]}, "so it would act a step early; leave it out, or weaken"),
        ("sd3", {"skip_guidance_layers": [0]}, r"skip_guidance_layers=\[0\] .* counts the rounds"),
        ("z_image", {"cfg_truncation": 0.5}, "cfg_truncation=0.5 .* counts the rounds"),
        ("sdxl", {"denoising_end": 0.8}, "denoising_end=0.8 .* the end of the steps of the inversion, so leave it out"),
        ("sd", {"latents": torch.zeros(2, 4, 8, 8)}, "latents=.* it starts from those of the inversion"),
        ("sd", {"num_images_per_prompt": 2}, "num_images_per_prompt=2 .* each picture of the inversion once"),
        ("sd", {"eta": 0.5}, "eta=0.5 while an inversion is replayed of eta=0.0: call the pipeline with the keywords"),
        ("sd3", {"mu": 0.5}, "mu=0.5 while an inversion is replayed of mu=None"),
        ("lcm", {"original_inference_steps": 10}, "original_inference_steps=10 while an inversion is replayed"),
        ("flux", {"height": 48, "width": 32}, "height=48 while an inversion is replayed of height=32"),
    ],
)
def test_keywords_that_would_not_be_heard_in_ones_own_call_are_refused(
    name: str, changed: dict[str, Any], message: str
) -> None:
    pipe = tiny_flow.controlnet() if name == "controlnet" else KINDS[name]()
    given: dict[str, Any] = {}
    if name == "controlnet":
        control = torch.rand(2, 3, *size_of(pipe), generator=torch.Generator().manual_seed(0))
        given = {"prompt": ["a", "b"], "pipe_kwargs": {"image": control}}
    inversion = inverted(pipe, settings(2, 1), **given)
    kind, stock = type(pipe), type(pipe).__call__
    call = {"prompt": ["a", "b"]} if name in ("sd", "sdxl", "lcm", "controlnet") else embeddings(pipe)
    with inversion.replaying() as keywords:
        assert type(pipe) is kind
        with pytest.raises(ValueError, match=message):
            pipe(**call, **{**keywords, **changed})
        pipe(**call, **keywords)
    assert kind.__call__ is stock


def test_keywords_without_an_effect_are_taken_in_ones_own_call() -> None:
    pipe = tiny_flow.controlnet()
    control = torch.rand(2, 3, *size_of(pipe), generator=torch.Generator().manual_seed(0))
    inversion = inverted(pipe, settings(2, 1), prompt=["a", "b"], pipe_kwargs={"image": control, "eta": 0.0})
    harmless: dict[str, Any] = {
        "control_guidance_start": 0.0,
        "control_guidance_end": np.float64(1),
        "num_images_per_prompt": 1,
    }
    harmless |= {"latents": None, "generator": torch.Generator().manual_seed(0)}
    with inversion.replaying() as keywords:
        one = pipe(["a dog", "a cat"], **keywords, output_type="np").images
        other = pipe(["a dog", "a cat"], **keywords, **harmless, output_type="np").images
    assert np.array_equal(one, other)


@pytest.mark.parametrize("name", KINDS)
def test_a_callback_that_changes_latents_is_refused_and_one_that_hands_them_back_is_not(name: str) -> None:
    pipe = KINDS[name]()
    inversion = inverted(pipe, settings(2, 1))
    call = {"prompt": ["a", "b"]} if name in UNETS else embeddings(pipe)
    for change in (0.0, 1e-3):

        def look(_pipe: Any, _step: int, _time: Any, given: dict[str, Any], change: float = change) -> dict[str, Any]:
            return {"latents": given["latents"] + change}

        with inversion.replaying() as keywords:
            if change:
                with pytest.raises(ValueError, match="a callback changed the latents"):
                    pipe(**call, **keywords, callback_on_step_end=look)
            else:
                pipe(**call, **keywords, callback_on_step_end=look)


def test_two_pipelines_of_one_class_are_replayed_at_once_and_a_third_is_not_disturbed() -> None:
    pipes = [tiny.sd() for _ in range(3)]
    first, second = (inverted(pipe, settings(1, 0)) for pipe in pipes[:2])
    stock = type(pipes[0]).__call__
    with first.replaying() as keywords:
        with second.replaying():
            pass
        with pytest.raises(ValueError, match=r"latents=.*it starts from those of the inversion"):
            pipes[0](["a"] * 2, **keywords, latents=torch.zeros(2, 4, 8, 8))
        pipes[2]("a", latents=torch.zeros(1, 4, 8, 8), num_inference_steps=1, height=32, width=32)
    assert type(pipes[0]).__call__ is stock


# ---------------------------------------------------------------- inverted latents in ones own call, without replaying


@pytest.mark.parametrize("name", [*(name for name in KINDS if name != "lcm"), "euler"])
def test_inverted_latents_in_ones_own_call_make_the_reconstruction(name: str) -> None:
    """For samplers without noise, as examples/latents_in_your_own_call.py does it."""
    euler = EulerDiscreteScheduler(**tiny.TRAINING, timestep_spacing="leading")
    pipe = tiny.sd(euler) if name == "euler" else KINDS[name](tiny.ddim()) if name in UNETS else KINDS[name]()
    inversion = inverted(pipe, settings(3, 1))
    if name == "euler":
        pipe.scheduler.set_timesteps(3)
    latents = inversion.latents / getattr(pipe.scheduler, "init_noise_sigma", 1.0)
    assert (name == "euler") == (not torch.equal(latents, inversion.latents))
    if name == "flux2":  # it packs them itself
        height, width = (side // pipe.vae_scale_factor // 2 for side in inversion.size)
        latents = latents.transpose(1, 2).reshape(len(latents), -1, height, width)
    with inversion.replaying() as keywords:
        call = dict(keywords)
    described = {"prompt": inversion.scene.prompts and list(inversion.scene.prompts), **inversion.scene.pipe_kwargs}
    own = pipe(**{**call, **described}, latents=latents, output_type="pt").images
    torch.testing.assert_close(own, inversion.regenerate(inversion.scene), rtol=0, atol=1e-4)
