"""Settings: the published numbers, the choice of a preset, and errors that say what to type."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from renoise.core.settings import EditLosses, Region, Settings, plain, window
from renoise.presets import PRESETS, preset_for, preset_name


def test_window_is_the_mean_of_its_passes_counted_from_1() -> None:
    assert window(1, 2, 1) == (0.5, 0.5)
    assert window(8, 10, 9) == (*[0.0] * 7, *[1 / 3] * 3)
    assert window(1, 1, 0) == (1.0,)


@pytest.mark.parametrize(("first", "last", "iterations"), [(8, 10, 8), (1, 2, 0), (3, 3, 1)])
def test_window_beyond_the_last_pass_is_refused(first: int, last: int, iterations: int) -> None:
    with pytest.raises(ValueError, match=f"beyond the last pass.*raise the iterations to {last - 1}"):
        window(first, last, iterations)


@pytest.mark.parametrize(("first", "last"), [(0, 1), (2, 1), (-1, 1)])
def test_window_counts_from_1(first: int, last: int) -> None:
    with pytest.raises(ValueError, match="count passes from 1"):
        window(first, last, 9)


@pytest.mark.parametrize(
    ("name", "steps", "k", "near_image", "above", "pair", "kl"),
    [
        ("paper-sd", 50, 1, (1, 2), (2, 2), 10, 0.05),
        ("paper-sdxl", 50, 1, (1, 2), (2, 2), 10, 0.055),
        ("paper-sdxl-turbo", 4, 9, (1, 4), (8, 10), 10, 0.055),
        ("paper-lcm", 4, 7, (1, 4), (6, 8), 20, 0.075),
    ],
)
def test_presets_are_table_3_of_the_paper(
    name: str, steps: int, k: int, near_image: tuple[int, int], above: tuple[int, int], pair: float, kl: float
) -> None:
    settings = PRESETS[name].settings
    assert settings.num_inference_steps == steps
    assert settings.edit_losses == EditLosses(pair, kl, steps=4, rolls=5)
    low, high = settings.region(0.2), settings.region(0.9)
    assert low.iterations == high.iterations == k
    assert low.weights == window(*near_image, k)
    assert high.weights == window(*above, k)


@pytest.mark.parametrize(("name", "timestep"), [("paper-sdxl-turbo", 249), ("paper-lcm", 259)])
def test_of_four_steps_the_one_nearest_the_image_has_its_own_region(name: str, timestep: int) -> None:
    settings = PRESETS[name].settings
    assert settings.region(timestep / 1000) is settings.regions[0]
    assert settings.region(499 / 1000) is settings.regions[1]


def test_every_preset_says_what_it_should_reach() -> None:
    assert all("passes" in preset.score and preset.source for preset in PRESETS.values())


def test_plain_is_one_pass_a_step_and_nothing_else() -> None:
    for name in ("paper-sdxl-turbo", "fast"):
        settings = plain(replace(PRESETS[name].settings, guidance_scale=3.0))
        assert settings == Settings((Region(),), num_inference_steps=4, guidance_scale=3.0)


@pytest.mark.parametrize("name", [name for name in PRESETS if "paper" in name or "reference" in name])
def test_the_published_method_takes_nothing_of_ours(name: str) -> None:
    settings, default = PRESETS[name].settings, Settings((Region(),))
    for field in ("solver", "start", "noise", "absorption", "nearest", "passes", "tol"):
        assert getattr(settings, field) == getattr(default, field)


def test_a_level_on_the_bound_belongs_to_the_region_above() -> None:
    low, high = Region(0.25, 1), Region(iterations=2)
    settings = Settings((low, high))
    assert settings.region(0.2499) is low
    assert settings.region(0.25) is high
    assert settings.region(1.5) is high


TRAILING = {"timestep_spacing": "trailing"}


@pytest.mark.parametrize(
    ("pipeline", "scheduler", "config", "few_step", "own", "published"),
    [
        ("StableDiffusionPipeline", "LCMScheduler", {}, False, "few-step", "paper-lcm"),
        ("StableDiffusionXLPipeline", "TCDScheduler", {}, False, "few-step", "paper-lcm"),
        ("StableDiffusionPipeline", "EulerAncestralDiscreteScheduler", TRAILING, False, "few-step", "paper-sdxl-turbo"),
        ("StableDiffusionPipeline", "EulerAncestralDiscreteScheduler", {}, False, "many-step", "paper-sd"),
        ("StableDiffusionXLPipeline", "DDIMScheduler", {}, False, "many-step", "paper-sdxl"),
        ("StableDiffusionPipeline", "DDIMScheduler", {"prediction_type": "epsilon"}, False, "many-step", "paper-sd"),
        ("FluxPipeline", "FlowMatchEulerDiscreteScheduler", {}, False, "flow", "paper-flow"),
        ("FluxPipeline", "FlowMatchEulerDiscreteScheduler", {}, True, "few-step", "paper-flow-few-step"),
    ],
)
def test_the_preset_that_suits_a_pipeline(
    pipeline: str, scheduler: str, config: dict[str, str], few_step: bool, own: str, published: str
) -> None:
    assert preset_for(pipeline, scheduler, config, few_step=few_step) is PRESETS[own].settings
    paper = preset_for(pipeline, scheduler, config, "paper", few_step=few_step)
    assert paper == PRESETS[published].settings


def test_the_presets_chosen_suit_any_number_of_steps() -> None:
    for name in ("few-step", "many-step", "flow", "fast", "fast-latent", "sharp"):
        assert PRESETS[name].settings.passes is None, "a total would be refused for more steps than passes"


def test_edit_losses_are_for_networks_that_predict_noise() -> None:
    config = {"prediction_type": "v_prediction"}
    assert preset_for("StableDiffusionPipeline", "DDIMScheduler", config, "paper").edit_losses is None
    with pytest.raises(ValueError, match=r"v_prediction: pass dataclasses\.replace\(PRESETS\['paper-sd'\]\.settings, "):
        preset_for("StableDiffusionPipeline", "DDIMScheduler", config, "paper-sd")
    with pytest.raises(ValueError, match=r"predicts v_prediction: pass dataclasses\.replace\(settings, "):
        preset_for("StableDiffusionPipeline", "DDIMScheduler", config, PRESETS["paper-sd"].settings)


def test_presets_by_name_and_of_one_s_own() -> None:
    own = Settings((Region(iterations=3),))
    assert preset_for("StableDiffusionPipeline", "DDIMScheduler", {"prediction_type": "v_prediction"}, own) is own
    assert preset_for("StableDiffusionPipeline", "DDIMScheduler", {}, "paper-lcm") is PRESETS["paper-lcm"].settings
    with pytest.raises(ValueError, match=r"no preset is called 'best': there are paper, .*paper-sdxl-turbo"):
        preset_for("StableDiffusionPipeline", "DDIMScheduler", {}, "best")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"below": 0.0}, "below=0.0 leaves no step"),
        ({"below": math.nan}, "below=nan leaves no step"),
        ({"iterations": -1}, "iterations=-1: pass 0"),
        ({"iterations": 1, "weights": (1.0,)}, r"1 weights for 2 passes .*window\("),
        ({"iterations": 1, "weights": (0.0, 0.0)}, "have no mean"),
        ({"iterations": 1, "weights": (2.0, -1.0)}, "have no mean"),
        ({"iterations": 1, "weights": (1.0, math.nan)}, "have no mean"),
    ],
)
def test_regions_that_cannot_be(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Region(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lambda_pair": -1.0}, "lambda_pair=-1.0 is not a weight"),
        ({"lambda_kl": math.inf}, "lambda_kl=inf is not a weight"),
        ({"lambda_pair": 0.0, "lambda_kl": 0.0}, "edit_losses=None"),
        ({"steps": 0}, "steps=0"),
        ({"rolls": 0}, "rolls=0"),
    ],
)
def test_edit_losses_that_cannot_be(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EditLosses(**{"lambda_pair": 10.0, "lambda_kl": 0.05, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"regions": ()}, "every step needs one"),
        ({"regions": (Region(0.5),)}, "last one math.inf"),
        ({"regions": (Region(0.5), Region(0.3), Region())}, "let the bounds rise"),
        ({"edit_losses": EditLosses(10, 0.05)}, "no region has weights"),
        ({"correction": -0.1}, "correction=-0.1 is no distance"),
        ({"correction": math.nan}, "correction=nan is no distance"),
        ({"absorption": -0.1}, "absorption=-0.1 is no distance"),
        ({"absorption": 0.1, "correction": 0.1}, "pass one of them"),
        ({"correction": 0.1, "passes": 8}, "correction=0.1 costs passes that passes=8 does not deal"),
        ({"solver": "newton"}, "solver='newton' is none of renoise, anderson"),
        ({"start": "noised"}, "start='noised' is none of previous, expected"),
        ({"noise": "white"}, "noise='white' is none of independent, matched"),
        ({"nearest": -1}, "nearest=-1: pass a whole number, 0 or more, or None"),
        ({"passes": 0}, "passes=0: pass a whole number, 1 or more"),
        ({"passes": 8.0}, "passes=8.0: pass a whole number"),
        ({"tol": 1.0}, "tol=1.0 is no share of a latent"),
        ({"tol": math.nan}, "tol=nan is no share"),
        ({"regions": (Region(weights=(1.0,)),), "solver": "anderson"}, "solver='anderson' and weights: "),
        ({"regions": (Region(weights=(1.0,)),), "nearest": 3}, "nearest=3 and weights: "),
        ({"regions": (Region(weights=(1.0,)),), "passes": 8}, "passes=8 and weights: "),
        ({"regions": (Region(weights=(1.0,)),), "tol": 0.1}, "tol=0.1 and weights: "),
        ({"num_inference_steps": 0}, "num_inference_steps=0"),
        ({"guidance_scale": 0.0}, "guidance_scale=0.0: pass 1.0 for no guidance"),
        ({"inversion_guidance_scale": math.nan}, "inversion_guidance_scale=nan"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**{"regions": (Region(),), **changes})  # type: ignore[arg-type]


def test_a_preset_is_a_name_or_settings() -> None:
    with pytest.raises(TypeError, match="preset=7 is neither a name nor Settings"):
        preset_for("StableDiffusionPipeline", "DDIMScheduler", {}, 7)  # type: ignore[arg-type]


def test_a_flow_sampler_of_consistency_models_gets_few_steps() -> None:
    assert preset_name("HiDreamImagePipeline", "FlowMatchLCMScheduler", {}) == "few-step"
    assert preset_name("HiDreamImagePipeline", "FlowMatchLCMScheduler", {}, published=True) == "paper-flow-few-step"
    assert preset_name("HiDreamImagePipeline", "FlowMatchEulerDiscreteScheduler", {}) == "flow"
