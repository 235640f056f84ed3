"""Which samplers can be inverted, what is advised for the others, and `make_invertible`, which follows the advice."""

from __future__ import annotations

import copy
import inspect
import re
import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch

from renoise.pipelines.advice import advice
from renoise.pipelines.invertible import make_invertible
from renoise.pipelines.measure import NotInvertible, measure
from tests.helpers import tiny, tiny_flow
from tests.helpers.sampler_table import DPM, FLOW, FLOW_EULER, ZERO_SNR, Case, cases, errors

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),  # diffusers' KDPM2 and numpy 2
    pytest.mark.filterwarnings("ignore:.algorithm_types dpmsolver and sde-dpmsolver:FutureWarning"),
]

# what the table has refused at every number of steps, and at a few
REFUSED = {
    *((kind, "sample") for kind in ("DDPM", "DDPMParallel", "EulerDiscrete", "EulerAncestralDiscrete", "LCM")),
    *((kind, "sample") for kind in ("DPMSolverMultistep", "DPMSolverSinglestep", "UniPCMultistep")),
    *((kind, "zero snr") for kind in ("DDPM", "DDPMParallel", "EulerAncestralDiscrete", "LCM")),
}
REFUSED_AT: dict[tuple[str, str], set[int]] = {
    ("EulerDiscrete", "zero snr"): {1, 2, 3},
    ("DPMSolverMultistep", "zero snr"): {1},
    ("UniPCMultistep", "zero snr"): {1},
    ("EDMEuler", ""): {1, 2},
    ("EDMEuler", "v_prediction"): {1, 2},
    ("EDMEuler", "exponential"): {2},
    ("EDMDPMSolverMultistep", ""): {1, 2},
}


def _key(case: Case) -> tuple[str, str]:
    """A case's name in the lists above."""
    kind = case.kind.removesuffix("Scheduler")
    settings = case.config
    if settings.get("rescale_betas_zero_snr"):
        return kind, "zero snr"
    prediction = str(settings.get("prediction_type", ""))
    return kind, prediction or str(settings.get("sigma_schedule", ""))


@pytest.mark.parametrize("case", list(cases()), ids=lambda case: f"{case.kind}-{case.label[:60]}")
def test_measured_rows_are_the_scheduler_s_own_chain_and_go_back(case: Case) -> None:
    refused = set(case.grids) if _key(case) in REFUSED else REFUSED_AT.get(_key(case), set())
    for steps in case.grids:
        if steps in refused:
            with pytest.raises(NotInvertible):
                errors(case, steps)
        else:
            found = errors(case, steps)
            assert found.step < 2e-7
            assert found.back < 1e-12


# ---------------------------------------------------------------- advice

NO_RELATIVE = (  # samplers of tokens, of other pipelines, or with no step that could be undone
    "BlockRefinementScheduler",
    "CMStochasticIterativeScheduler",
    "DDPMWuerstchenScheduler",
    "DiscreteDDIMScheduler",
    "EntropyBoundScheduler",
    "IPNDMScheduler",  # as it comes; made from another scheduler's config it has one
    "KarrasVeScheduler",
    "MiniMaxH3Scheduler",
    "PiflowScheduler",
    "ScoreSdeVeScheduler",
)

OTHERS = (  # a missing package, arguments without default, other ways to set steps: not what a text-to-image loop uses
    "AmusedScheduler",
    "CosineDPMSolverMultistepScheduler",
    "DPMSolverSDEScheduler",
    "HeliosDMDScheduler",
    "HeliosScheduler",
    "RFD4ProteinaScheduler",
    "SCMScheduler",
    "VQDiffusionScheduler",
)


TRAINED = ("beta_", "flow_", "num_train", "prediction", "shift", "snr", "steps_", "timestep_", "trained", "use_")


def _library() -> Iterator[Any]:
    """Every scheduler of diffusers that can be made without arguments and set to eight steps, each prediction type."""
    for name in dir(diffusers):
        if not name.endswith("Scheduler"):
            continue
        cls = getattr(diffusers, name)
        known = inspect.signature(cls.__init__).parameters
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                cls().set_timesteps(8)
        except (ImportError, KeyError, TypeError, ValueError):
            assert name in OTHERS, name
            continue
        betas = "beta_schedule" in known and "prediction_type" in known
        for prediction in ("epsilon", "v_prediction", "sample") if betas else (None,):
            if (name, prediction) == ("UnCLIPScheduler", "v_prediction"):
                continue  # which it does not know
            yield pytest.param(cls, {"prediction_type": prediction} if prediction else {}, id=f"{name}-{prediction}")
        if "use_flow_sigmas" in known and "Inverse" not in name:
            yield pytest.param(cls, FLOW, id=f"{name}-flow")


def _typed(line: str, scheduler: Any) -> Any:
    """What a line of advice makes of a pipeline's scheduler."""
    pipe = SimpleNamespace(scheduler=scheduler)
    exec(line, {"pipe": pipe, **{name: getattr(diffusers, name) for name in re.findall(r"\w+Scheduler", line)}})
    return pipe.scheduler


@pytest.mark.parametrize(("cls", "config"), list(_library()))
def test_every_scheduler_of_the_library_works_or_is_replaced_as_advised(cls: Any, config: dict[str, Any]) -> None:
    scheduler = cls(**config)
    scheduler.set_timesteps(8)
    refusal = _refusal(scheduler)
    if refusal is None:
        return
    line = re.search(r"Use instead: (pipe\.scheduler = .*)$", refusal)
    assert (line is None) == (cls.__name__ in NO_RELATIVE), refusal
    if line is None:
        return
    new = _typed(line[1], scheduler)
    new.set_timesteps(8)
    assert _refusal(new) is None, line[1]
    remedy = advice(scheduler)
    assert remedy is not None
    for key in new.config.keys() & scheduler.config.keys() - remedy.changes.keys():
        if key.startswith(TRAINED):
            assert new.config[key] == scheduler.config[key], f"{key} is not what the network was trained with"


def _refusal(scheduler: Any) -> str | None:
    try:
        measure(scheduler)
    except NotInvertible as error:
        return str(error)
    return None


LINES = {
    "HeunDiscreteScheduler": r"= EulerDiscreteScheduler\..*config, beta_end=0\.012, beta_start=0\.00085\)",
    "UniPCMultistepScheduler": r"= UniPC.*config, solver_order=1, disable_corrector=list\(range\(1000\)\)\)",
    "SASolverScheduler": r"= DPMSolverMultistepScheduler\..*algorithm_type='dpmsolver\+\+', solver_order=1\)",
    "FlowMatchHeunDiscreteScheduler": r"= FlowMatchEulerDiscreteScheduler\.from_config\(pipe\.scheduler\.config\)",
}


@pytest.mark.parametrize("name", LINES)
def test_the_line_to_type(name: str) -> None:
    assert re.search(LINES[name] + "$", str(advice(getattr(diffusers, name)())))


def test_settings_that_nobody_gave_survive_a_change_of_class() -> None:
    heun = diffusers.HeunDiscreteScheduler()
    assert {"beta_start", "beta_end", "timestep_spacing"} <= set(heun.config["_use_default_values"])
    euler = _typed(str(advice(heun)), heun)
    torch.testing.assert_close(euler.alphas_cumprod, heun.alphas_cumprod, rtol=0, atol=0)


def test_a_single_step_is_not_stretched() -> None:
    qwen = tiny_flow.flow_qwen()
    with pytest.warns(RuntimeWarning, match="invalid value"):
        qwen.set_timesteps(1, mu=0.8)
    with pytest.raises(NotInvertible, match=r"from_config\(pipe\.scheduler\.config, shift_terminal=None\)$"):
        measure(qwen)


def test_inverse_schedulers_are_no_samplers() -> None:
    inverse = diffusers.DDIMInverseScheduler(clip_sample=False)
    inverse.set_timesteps(4)
    with pytest.raises(NotInvertible, match=r"its timesteps rise.* = DDIMScheduler\.from_config"):
        measure(inverse)


# ---------------------------------------------------------------- make_invertible

CHANGED = {
    "PNDMScheduler": "PNDMScheduler replaced by DDIMScheduler: clip_sample=False instead of True",
    "DPMSolverMultistepScheduler": "DPMSolverMultistepScheduler: solver_order=1 instead of 2",
    "UniPCMultistepScheduler": (
        "UniPCMultistepScheduler: solver_order=1 instead of 2, disable_corrector=list(range(1000)) instead of []"
    ),
    "DDIMScheduler": "DDIMScheduler: clip_sample=False instead of True",
    "HeunDiscreteScheduler": "HeunDiscreteScheduler replaced by EulerDiscreteScheduler",
    "LMSDiscreteScheduler": "LMSDiscreteScheduler replaced by EulerDiscreteScheduler",
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_pipeline_gets_an_invertible_sampler_and_still_runs(name: str) -> None:
    pipe = tiny.sd()
    pipe.scheduler = getattr(diffusers, name).from_config(
        {**tiny.TRAINING, "skip_prk_steps": True, "clip_sample": True}
    )
    network = pipe.unet
    call: dict[str, Any] = {"num_inference_steps": 3, "output_type": "np", "height": 16, "width": 24}
    assert make_invertible(pipe) == CHANGED[name]
    assert pipe(["cat", "dog"], guidance_scale=3.0, **call).images.shape == (2, 16, 24, 3)
    assert pipe.unet is network
    measure(pipe.scheduler)  # as the pipeline has set it
    assert make_invertible(pipe) == f"{type(pipe.scheduler).__name__} can be inverted as it is"


@pytest.mark.parametrize("make", [tiny_flow.flow_dynamic, tiny_flow.flow_qwen, tiny_flow.dpm_flow, tiny.lcm_scheduler])
def test_what_can_be_inverted_stays(make: Any) -> None:
    scheduler = make()
    before = copy.deepcopy(vars(scheduler))
    pipe = SimpleNamespace(scheduler=scheduler)
    assert make_invertible(pipe) == f"{type(scheduler).__name__} can be inverted as it is"
    assert pipe.scheduler is scheduler
    assert before.keys() == vars(scheduler).keys()
    assert before["timesteps"].equal(scheduler.timesteps)


def test_flow_samplers_stay_flow_samplers() -> None:
    for scheduler, name in (
        (diffusers.FlowMatchHeunDiscreteScheduler(shift=3.0), FLOW_EULER),
        (tiny_flow.dpm_flow(solver_order=2), DPM),
        (diffusers.SASolverScheduler(**FLOW), DPM),
    ):
        pipe = SimpleNamespace(scheduler=scheduler)
        make_invertible(pipe)
        assert type(pipe.scheduler).__name__ == name
        pipe.scheduler.set_timesteps(4)
        assert pipe.scheduler.sigmas[0] > 0.99
        assert measure(pipe.scheduler).sigma[-1] == pytest.approx(pipe.scheduler.sigmas[-2].item())


@pytest.mark.parametrize(
    "scheduler",
    [
        diffusers.CMStochasticIterativeScheduler(),
        diffusers.IPNDMScheduler(),
        diffusers.SCMScheduler(),
        diffusers.UnCLIPScheduler(prediction_type="v_prediction"),  # it does not know what it is told to predict
    ],
    ids=lambda scheduler: type(scheduler).__name__,
)
def test_where_nothing_helps_the_pipeline_is_left_alone(scheduler: Any) -> None:
    pipe = SimpleNamespace(scheduler=scheduler)
    with pytest.raises(NotInvertible, match=type(scheduler).__name__):
        make_invertible(pipe)
    assert pipe.scheduler is scheduler


def test_what_is_no_pipeline() -> None:
    with pytest.raises(TypeError, match="SimpleNamespace has no scheduler"):
        make_invertible(SimpleNamespace())


def test_zero_terminal_snr_with_noise_prediction_goes_back_to_the_trained_noise() -> None:
    pipe = SimpleNamespace(scheduler=tiny.ddim(**{**ZERO_SNR, "prediction_type": "epsilon"}))
    assert make_invertible(pipe) == "DDIMScheduler: rescale_betas_zero_snr=False instead of True"
