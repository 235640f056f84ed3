"""What users touch: reconstruction, editing, batches, and everything that can be handed over wrong.

Random tiny pipelines stand for every family; the embedded model, whatever its quality, for a trained one.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler
from PIL import Image
from torch import Tensor

import renoise
from renoise import images, models
from renoise.core.budget import kept_steps
from renoise.core.settings import EditLosses, Region, Settings, plain, window
from renoise.pipelines.adapter import Adapter
from renoise.presets import PRESETS, chosen_settings
from tests.helpers import tiny

FULL = Settings(
    regions=(Region(0.4, 1, window(1, 2, 1)), Region(iterations=2, weights=window(2, 3, 2))),
    edit_losses=EditLosses(lambda_pair=1, lambda_kl=0.05, steps=1, rolls=1),
    correction=0.14,
    num_inference_steps=3,
)
CONVERGED = Settings(regions=(Region(iterations=12),), num_inference_steps=4)


def picture(seed: int = 0, size: tuple[int, int] = (32, 32)) -> Image.Image:
    """Random blobs, (height, width)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (size[0] // 8, size[1] // 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC)


def bytes_of(result: Image.Image) -> bytes:
    return result.tobytes()


def calm(pipe: Any) -> Any:
    """Weakens a random network until renoising converges."""
    with torch.no_grad():
        pipe.unet.conv_out.weight *= 0.1
    return pipe


PIPES: dict[str, Callable[[], Any]] = {
    "sd-ddim": tiny.sd,
    "sd-euler-a": lambda: tiny.sd(tiny.euler_ancestral()),
    "sd-lcm": lambda: tiny.sd(tiny.lcm_scheduler()),
    "sdxl-euler-a": tiny.sdxl,
    "lcm": tiny.lcm,
}


@pytest.fixture(scope="module")
def turbo() -> Any:
    pipe = models.load("emoji-turbo")
    pipe.set_progress_bar_config(disable=True)
    return pipe


# --- what an inversion is good for ---


@pytest.mark.parametrize("name", PIPES)
def test_exact_correction_reconstructs_what_the_auto_encoder_lets_through(name: str) -> None:
    """Noise absorbs the error of the steps that draw it, however few their passes; the others are iterated."""
    pipe = calm(PIPES[name]())
    settings = Settings(regions=(Region(iterations=40),), num_inference_steps=4)
    if name != "sd-ddim":  # all steps but the last draw noise
        regions = (Region(0.3, iterations=12), Region(iterations=0))
        settings = Settings(regions, correction=float("inf"), num_inference_steps=4)
    inv = renoise.invert(pipe, picture(), "a cat", preset=settings)
    assert torch.allclose(inv.regenerate(inv.scene), inv.round_trip(), atol=1e-3)
    assert inv.fidelity().item() == pytest.approx(inv.ceiling().item(), abs=0.01)


@pytest.mark.parametrize("name", PIPES)
def test_the_same_words_reconstruct_and_others_change_the_picture(name: str) -> None:
    inv = renoise.invert(PIPES[name](), picture(), "a cat", preset=FULL)
    assert bytes_of(inv.edit("a cat", guidance_scale=1)) == bytes_of(inv.reconstruct())
    assert bytes_of(inv.edit("dogs in the rain", guidance_scale=1)) != bytes_of(inv.reconstruct())


def test_the_stock_pipeline_regenerates_the_reconstruction() -> None:
    """Latents in loop space are what the stock call carries after it multiplied by init_noise_sigma (1 for DDIM)."""
    pipe = tiny.sd()
    inv = renoise.invert(pipe, picture(), "a cat", preset=CONVERGED)
    assert pipe.scheduler.init_noise_sigma == 1
    stock = pipe("a cat", latents=inv.latents, num_inference_steps=4, guidance_scale=1.0, output_type="pt").images
    assert torch.allclose(stock, inv.regenerate(inv.scene), atol=1e-3)


def test_the_stock_pipeline_makes_the_edit_with_guidance_and_negative_prompt() -> None:
    pipe = tiny.sdxl(tiny.ddim())
    inv = renoise.invert(pipe, picture(), "a cat", preset=CONVERGED)
    for negative in (None, "ugly dog"):
        stock = pipe(
            "a dog",
            negative_prompt=negative,
            latents=inv.latents,
            num_inference_steps=4,
            guidance_scale=3.0,
            output_type="pil",
        ).images[0]
        ours = inv.edit("a dog", negative_prompt=negative, guidance_scale=3.0)
        difference = np.asarray(ours, dtype=float) - np.asarray(stock, dtype=float)
        assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("name", ["sd-euler-a", "sdxl-euler-a", "lcm"])
def test_a_batch_equals_its_pictures_one_by_one(name: str) -> None:
    """Row test: every picture keeps its own prompt, noise, rolls and target, in the inversion and in the edit."""
    pipe = PIPES[name]()
    pictures, prompts, edits = [picture(0), picture(1)], ["a cat", "dogs in the rain"], ["a dog", "a cat"]
    guided: dict[str, Any] = {"preset": FULL, "guidance_scale": 3.0, "inversion_guidance_scale": 1.5}
    both = renoise.invert(pipe, pictures, prompts, **guided)
    edited = both.edit(edits)
    assert isinstance(edited, list)
    for row in range(2):
        alone = renoise.invert(pipe, pictures[row], prompts[row], **guided)
        assert torch.allclose(both.latents[row], alone.latents[0], atol=1e-4)
        one = np.asarray(alone.edit(edits[row]), dtype=float)
        assert np.abs(one - np.asarray(edited[row], dtype=float)).max() <= 1
    assert not torch.allclose(both.latents[0], both.latents[1], atol=0.1)


def test_a_batch_equals_its_pictures_one_by_one_on_the_embedded_model(turbo: Any) -> None:
    settings = Settings(FULL.regions, FULL.edit_losses, FULL.correction, num_inference_steps=2)
    pictures, prompts = [picture(0), picture(1)], ["red apple, blob style", "cat, noto style"]
    both = renoise.invert(turbo, pictures, prompts, preset=settings)
    for row in range(2):
        alone = renoise.invert(turbo, pictures[row], prompts[row], preset=settings)
        assert torch.allclose(both.latents[row], alone.latents[0], atol=1e-4, rtol=1e-4)
        pixels = alone.regenerate(alone.scene)[0]
        assert torch.allclose(both.regenerate(both.scene)[row], pixels, atol=1e-4)


def test_renoising_beats_plain_reversal_on_the_embedded_model(turbo: Any) -> None:
    source = Path(renoise.__file__).parent / "assets/red-apple-blob.png"
    few = Settings(regions=(Region(iterations=4),), num_inference_steps=4)
    fidelity = [
        renoise.invert(turbo, source, "red apple, blob style", preset=settings).fidelity().item()
        for settings in (plain(few), few)
    ]
    assert fidelity[1] > fidelity[0]


def test_guidance_of_inversion_and_of_generation_are_separate() -> None:
    pipe = calm(tiny.sd())
    unguided = renoise.invert(pipe, picture(), "a cat", preset=CONVERGED, guidance_scale=4.0)
    guided = renoise.invert(pipe, picture(), "a cat", preset=CONVERGED, inversion_guidance_scale=1.5)
    assert unguided.settings.guidance_scale == 4.0
    assert unguided.settings.inversion_guidance_scale == 1.0
    assert not torch.allclose(unguided.latents, guided.latents, atol=1e-3)
    assert unguided.fidelity().item() > unguided.ceiling().item() - 0.01
    assert guided.fidelity().item() > guided.ceiling().item() - 0.01
    own, given = unguided.edit("a dog"), unguided.edit("a dog", guidance_scale=4.0)
    assert bytes_of(own) == bytes_of(given) != bytes_of(unguided.edit("a dog", guidance_scale=1.0))
    assert bytes_of(guided.reconstruct()) == bytes_of(guided.reconstruct(guidance_scale=1.5))
    assert bytes_of(guided.reconstruct()) != bytes_of(guided.reconstruct(guidance_scale=1.0))


@pytest.mark.parametrize(("strength", "kept"), [(1.0, 10), (0.99, 9), (0.5, 5), (0.1, 1)])
def test_strength_keeps_the_least_noisy_steps(strength: float, kept: int) -> None:
    inv = renoise.invert(
        tiny.sd(), picture(), "a cat", preset=plain(CONVERGED), num_inference_steps=10, strength=strength
    )
    assert len(inv.table) == inv.passes == kept
    assert inv.table.timesteps.tolist() == [901.0 - 100 * step for step in range(10)][-kept:]


def test_pictures_of_any_shape_come_back_without_padding() -> None:
    wide, tall = picture(0, (16, 64)), picture(1, (64, 16))
    inv = renoise.invert(tiny.sd(), [wide, tall], "a cat", preset=plain(FULL), size=(40, 32))
    assert inv.latents.shape == (2, 4, 10, 8)
    assert [result.size for result in inv.reconstruct()] == [(32, 8), (10, 40)]


def test_paths_arrays_and_pictures_are_alike(tmp_path: Path) -> None:
    picture().save(tmp_path / "picture.png")
    sources: list[images.Source] = [
        picture(),
        np.asarray(picture()),
        tmp_path / "picture.png",
        str(tmp_path / "picture.png"),
    ]
    inv = renoise.invert(tiny.sd(), sources, "a cat", preset=plain(FULL))
    assert all(torch.equal(latents, inv.latents[0]) for latents in inv.latents)
    assert len(inv.reconstruct()) == 4
    assert isinstance(renoise.invert(tiny.sd(), sources[:1], "a cat", preset=plain(FULL)).reconstruct(), list)


def test_generators_draw_the_noise() -> None:
    def latents(**options: Any) -> Tensor:
        return renoise.invert(tiny.sd(tiny.euler_ancestral()), picture(), "a cat", preset=FULL, **options).latents

    seven = latents(seed=7)
    assert torch.equal(seven, latents(generator=torch.Generator().manual_seed(7)))
    assert torch.equal(seven, latents(generator=[torch.Generator().manual_seed(7)]))
    assert torch.equal(latents(), latents(seed=0))
    assert not torch.equal(latents(), seven)


# --- what must stay as it was ---


@pytest.mark.parametrize("name", PIPES)
def test_the_pipeline_and_the_global_random_state_stay_as_they_were(name: str) -> None:
    pipe = PIPES[name]()
    scheduler, config, bars = pipe.scheduler, dict(pipe.scheduler.config), dict(pipe._progress_bar_config)
    state, numbers = copy.deepcopy(vars(scheduler)), torch.get_rng_state()
    weights = {key: value.clone() for key, value in pipe.unet.state_dict().items()}
    source = picture()
    pixels = source.tobytes()
    inv = renoise.invert(pipe, source, "a cat", preset=FULL)
    latents = inv.latents.clone()
    inv.edit("a dog")
    inv.fidelity()
    assert pipe.scheduler is scheduler
    assert dict(scheduler.config) == config
    assert all(np.array_equal(np.asarray(state[key]), np.asarray(value)) for key, value in vars(scheduler).items())
    assert pipe._progress_bar_config == bars
    assert {network.dtype for network in (pipe.unet, pipe.vae, pipe.text_encoder)} == {torch.float32}
    assert all(torch.equal(weights[key], value) for key, value in pipe.unet.state_dict().items())
    assert torch.equal(numbers, torch.get_rng_state())
    assert source.tobytes() == pixels
    assert torch.equal(inv.latents, latents)


def test_an_inversion_does_not_follow_a_scheduler_that_is_exchanged_later() -> None:
    pipe = tiny.sd()
    inv = renoise.invert(pipe, picture(), "a cat", preset=FULL)
    before = inv.reconstruct()
    pipe.scheduler = tiny.ddim(timestep_spacing="trailing")
    assert bytes_of(inv.reconstruct()) == bytes_of(before)
    assert inv.record.scheduler == "DDIMScheduler"


@pytest.mark.parametrize("driver", ["direct", "pipeline"])
def test_nor_does_it_round_its_times_for_a_scheduler_that_counts_in_integers(driver: Any) -> None:
    pipe = tiny.sd(EulerDiscreteScheduler.from_config(tiny.ddim().config, timestep_spacing="linspace"))
    inv = renoise.invert(pipe, picture(), "a cat", preset=FULL, driver=driver)
    assert not torch.equal(inv.table.timesteps, inv.table.timesteps.round())
    before = inv.reconstruct()
    pipe.scheduler = tiny.ddim()
    assert bytes_of(inv.reconstruct()) == bytes_of(before)
    with pytest.raises(ValueError, match="inversion with EulerDiscreteScheduler, and the pipeline has DDIMScheduler"):
        inv.edit("a dog", num_inference_steps=20)


def test_latents_stay_float32_whatever_the_network_runs_in() -> None:
    inv = renoise.invert(tiny.sd().to(torch.bfloat16), picture(), "a cat", preset=FULL)
    assert inv.latents.dtype == inv.z_0.dtype == inv.pixels.dtype == torch.float32
    assert not torch.equal(inv.latents, inv.latents.bfloat16().float())


# --- settings ---


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        ("sd-ddim", "many-step"),
        ("sd-euler-a", "few-step"),
        ("sd-lcm", "few-step"),
        ("sdxl-euler-a", "few-step"),
        ("lcm", "few-step"),
    ],
)
def test_the_preset_follows_the_pipeline(name: str, preset: str) -> None:
    assert chosen_settings(Adapter(PIPES[name]())) is PRESETS[preset].settings


def test_given_values_take_the_place_of_those_of_the_preset() -> None:
    settings = chosen_settings(
        Adapter(tiny.sd()), "paper-sdxl", num_inference_steps=7, guidance_scale=3.0, inversion_guidance_scale=2.0
    )
    assert settings.regions == PRESETS["paper-sdxl"].settings.regions
    assert (settings.num_inference_steps, settings.guidance_scale, settings.inversion_guidance_scale) == (7, 3.0, 2.0)


def test_passes_and_tolerance_are_kept_whichever_comes_first() -> None:
    pipe = tiny.sd(scheduler=tiny.ddim())
    spent = [
        renoise.invert(pipe, [picture(), picture(1)], "a cat", num_inference_steps=4, **given).passes
        for given in ({}, {"passes": 9}, {"passes": 12, "tol": 0.5})
    ]
    assert spent[:2] == [5, 9]
    assert spent[2] < 12


def test_sizes() -> None:
    pipe = tiny.sd()
    assert Adapter(pipe).size(None) == Adapter(pipe).size(32) == (32, 32)
    assert Adapter(pipe).size((24, 40)) == (24, 40)
    assert Adapter(tiny.sd(unet=tiny.unet(sample_size=(8, 16)))).size(None) == (32, 64)


# --- what can be handed over wrong ---


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"image": []}, ValueError, r"image=\[\] holds no picture"),
    ({"image": ()}, ValueError, r"image=\(\) holds no picture"),
    ({"image": None}, images.ImageError, "cannot read a picture from builtins.NoneType"),
    ({"image": torch.zeros(3, 8, 8)}, images.ImageError, "cannot read a picture from torch.Tensor"),
    ({"image": "nowhere.png"}, images.ImageError, "nowhere.png: no such file"),
    ({"image": np.full((8, 8), np.nan)}, images.ImageError, "floats must lie in"),
    ({"prompt": None}, ValueError, "no prompt: pass prompt=, or its embeddings by pipe_kwargs"),
    ({"prompt": 7}, TypeError, "prompt=7 is not text"),
    ({"prompt": b"a cat"}, TypeError, "is not text"),
    ({"prompt": ["a cat", 7]}, TypeError, "is not text"),
    ({"prompt": []}, ValueError, "0 texts in prompt for 1 pictures"),
    ({"prompt": ["a", "b"]}, ValueError, "2 texts in prompt for 1 pictures; pass one for all, or one each"),
    ({"negative_prompt": 1.5}, TypeError, "negative_prompt=1.5 is not text"),
    ({"negative_prompt": ["a", "b"]}, ValueError, "2 texts in negative_prompt"),
    ({"preset": "best"}, ValueError, "no preset is called 'best': there are paper, paper-sd"),
    ({"preset": 4}, TypeError, "preset=4 is neither a name nor Settings"),
    ({"passes": 0}, ValueError, "passes=0: pass a whole number, 1 or more"),
    ({"passes": 3}, ValueError, "passes=3 for [0-9]+ steps, which take one each"),
    ({"passes": 300, "preset": "paper-sd"}, ValueError, "passes=300 and weights: .* or take a preset without"),
    ({"tol": 1}, ValueError, "tol=1 is no share of a latent"),
    ({"tol": "small"}, ValueError, "tol='small' is no share of a latent"),
    ({"num_inference_steps": 0}, ValueError, "num_inference_steps=0: pass a whole number"),
    ({"num_inference_steps": -4}, ValueError, "num_inference_steps=-4"),
    ({"num_inference_steps": 4.0}, ValueError, "num_inference_steps=4.0"),
    ({"num_inference_steps": "4"}, ValueError, "num_inference_steps='4'"),
    ({"num_inference_steps": 1001}, ValueError, "num_inference_steps=1001 is more than the 1000 noise levels"),
    ({"guidance_scale": 0}, ValueError, "guidance_scale=0: pass 1.0 for no guidance"),
    ({"guidance_scale": "high"}, ValueError, "guidance_scale='high'"),
    ({"inversion_guidance_scale": 0.5}, ValueError, "inversion_guidance_scale=0.5: pass 1.0"),
    ({"inversion_guidance_scale": float("nan")}, ValueError, "inversion_guidance_scale=nan"),
    ({"inversion_guidance_scale": float("inf")}, ValueError, "inversion_guidance_scale=inf"),
    ({"strength": 0}, ValueError, r"strength=0 is not in \(0, 1\]"),
    ({"strength": 1.01}, ValueError, r"strength=1.01 is not in"),
    ({"strength": float("nan")}, ValueError, "strength=nan is not in"),
    ({"strength": "half"}, ValueError, "strength='half' is not in"),
    ({"strength": 0.3, "num_inference_steps": 3}, ValueError, "leaves no step; use at least 0.334"),
    ({"size": 0}, ValueError, r"size=0 does not fit this model: .* multiples of 8, e.g. \(64, 64\)"),
    ({"size": 30}, ValueError, "size=30 does not fit"),
    ({"size": -32}, ValueError, "size=-32 does not fit"),
    ({"size": (32, 32, 3)}, ValueError, "does not fit"),
    ({"size": (32.0, 32)}, ValueError, "does not fit"),
    ({"size": "32"}, ValueError, "size='32' does not fit"),
    ({"generator": 7}, TypeError, "generator=7 is not a torch.Generator; for a number, pass seed="),
    ({"generator": [torch.Generator()] * 2}, ValueError, "2 generators for 1 pictures"),
    ({"generator": []}, ValueError, "0 generators for 1 pictures"),
    ({"seed": -1}, ValueError, "seed=-1 is not a whole number"),
    ({"seed": 2**64}, ValueError, "is not a whole number from 0"),
    ({"seed": 1.5}, ValueError, "seed=1.5 is not a whole number"),
]


@pytest.fixture(scope="module")
def untouchable() -> Any:
    """A pipeline whose networks refuse to work: mistakes are found before."""
    pipe = tiny.sd()
    for network in (pipe.unet, pipe.vae, pipe.text_encoder):
        network.forward = lambda *_, **__: pytest.fail("a network ran before the mistake was found")
    pipe.vae.encode = pipe.unet.forward
    return pipe


@pytest.mark.parametrize(("change", "kind", "message"), WRONG, ids=[repr(change)[:60] for change, _, _ in WRONG])
def test_mistakes_are_named_before_any_work(
    change: dict[str, Any], kind: type[Exception], message: str, untouchable: Any
) -> None:
    with pytest.raises(kind, match=message):
        renoise.invert(untouchable, **{"image": picture(), "prompt": "a cat", **change})


def test_least_strength_named_in_the_message_works() -> None:
    assert kept_steps(3, 0.334) == 1
    assert kept_steps(7, 0.143) == 1


def test_what_is_no_pipeline_or_cannot_be_inverted() -> None:
    for wrong in (None, "emoji", tiny.vae()):
        with pytest.raises(TypeError, match="is not supported; `renoise models` lists what is"):
            renoise.invert(wrong, picture(), "a cat")
    clipping = tiny.sd()
    clipping.scheduler = tiny.ddim(clip_sample=True)
    with pytest.raises(renoise.NotInvertible, match="clip_sample=False"):
        renoise.invert(clipping, picture(), "a cat")
    velocity = tiny.sd(tiny.ddim(prediction_type="v_prediction"))
    with pytest.raises(ValueError, match="need a network that predicts noise"):
        renoise.invert(velocity, picture(), "a cat", preset=FULL)


def test_mistakes_in_an_edit() -> None:
    inv = renoise.invert(tiny.sd(), [picture(0), picture(1)], "a cat", preset=plain(FULL))
    wrong: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"prompt": None}, ValueError, "no prompt: pass prompt=, or its embeddings"),
        ({"prompt": ["a dog"]}, ValueError, "1 texts in prompt for 2 pictures"),
        ({"prompt": "a dog", "negative_prompt": ["x"]}, ValueError, "1 texts in negative_prompt for 2"),
        ({"prompt": "a dog", "guidance_scale": 0.0}, ValueError, "guidance_scale=0.0: pass 1.0 for no guidance"),
        ({"prompt": "a dog", "guidance_scale": float("nan")}, ValueError, "guidance_scale=nan"),
    ]
    for arguments, kind, message in wrong:
        with pytest.raises(kind, match=message):
            inv.edit(**arguments)
    with pytest.raises(ValueError, match=r"guidance_scale=-1: pass 1\.0"):
        inv.reconstruct(guidance_scale=-1)


def test_a_prompt_that_is_too_long_is_said_to_be_cut(caplog: pytest.LogCaptureFixture) -> None:
    from diffusers.utils import logging as chatter

    chatter.enable_propagation()
    try:
        with caplog.at_level(logging.WARNING):
            renoise.invert(tiny.sd(), picture(), "a cat " * 20 + "xyzzy", preset=plain(FULL))
    finally:
        chatter.disable_propagation()
    assert "was truncated" in caplog.text
    assert "xyzzy" in caplog.text


def test_a_network_that_overflows_is_named() -> None:
    pipe = tiny.sd()
    torch.nn.init.constant_(pipe.unet.conv_out.bias, float("nan"))
    with pytest.raises(ValueError, match=r"prediction at step 2 is not finite.*float32"):
        renoise.invert(pipe, picture(), "a cat", preset=FULL)
