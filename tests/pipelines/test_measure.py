"""Rows measured on live schedulers: right by their own steps, by formulas written down here, and back again."""

from __future__ import annotations

import copy
import inspect
import itertools
import math
import re
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from renoise.core.table import StepTable
from renoise.pipelines.measure import NotInvertible, measure

GRIDS = (1, 2, 3, 4, 7, 13, 30, 50)
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SAFE = {"clip_sample": False, "set_alpha_to_one": False, "thresholding": False}


def make(kind: str, steps: int | None = None, **config: Any) -> Any:
    """A scheduler with the betas of Stable Diffusion; `config` may hold keys that its class does not know."""
    cls = getattr(diffusers, kind)
    known = inspect.signature(cls.__init__).parameters
    scheduler = cls(**{key: value for key, value in {**BETAS, **SAFE, **config}.items() if key in known})
    if steps:
        scheduler.set_timesteps(steps)
    return scheduler


def flow(steps: int | None = None, **config: Any) -> Any:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, **config})
    if steps:
        scheduler.set_timesteps(steps)
    return scheduler


SAMPLERS: dict[str, Callable[[int], Any]] = {
    "ddim": lambda n: make("DDIMScheduler", n, steps_offset=1),
    "ddim-trailing": lambda n: make("DDIMScheduler", n, timestep_spacing="trailing"),
    "ddim-linspace": lambda n: make("DDIMScheduler", n, timestep_spacing="linspace"),
    "ddim-v": lambda n: make("DDIMScheduler", n, prediction_type="v_prediction", rescale_betas_zero_snr=True),
    "euler": lambda n: make("EulerDiscreteScheduler", n, timestep_spacing="leading", steps_offset=1),
    "euler-v": lambda n: make("EulerDiscreteScheduler", n, prediction_type="v_prediction"),
    "euler-ancestral": lambda n: make("EulerAncestralDiscreteScheduler", n, timestep_spacing="trailing"),
    "ddpm": lambda n: make("DDPMScheduler", n),
    "lcm": lambda n: make("LCMScheduler", n),
    "tcd": lambda n: make("TCDScheduler", n),
    "dpm-order-1": lambda n: make("DPMSolverMultistepScheduler", n, solver_order=1, timestep_spacing="leading"),
    "flow": flow,
    "flow-stochastic": lambda n: flow(n, stochastic_sampling=True),
}
ETA = {"ddim": 1.0, "tcd": 0.3}  # elsewhere 0


def white(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def error(ours: Tensor, theirs: Tensor) -> float:
    """Relative error in L2."""
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("steps", GRIDS)
@pytest.mark.parametrize("name", SAMPLERS)
def test_rows_are_the_scheduler_s_own_steps_and_go_back(name: str, steps: int) -> None:
    scheduler, eta = SAMPLERS[name](steps), ETA.get(name, 0.0)
    table = measure(scheduler, eta=eta)
    assert len(table) == len(scheduler.timesteps)
    accepted = inspect.signature(scheduler.step).parameters
    noise_dtype = torch.float32 if name == "flow-stochastic" else torch.float64
    for step, timestep in enumerate(scheduler.timesteps):
        z, m = white(1000 + step, 2, 4, 3, 5), white(2000 + step, 2, 4, 3, 5)
        noise = white(step, 2, 4, 3, 5, dtype=noise_dtype).double()
        options: dict[str, Any] = {"eta": eta} if eta else {}
        if "generator" in accepted:
            options["generator"] = torch.Generator().manual_seed(step)
        if hasattr(scheduler, "scale_model_input"):
            scaled = scheduler.scale_model_input(z, timestep)
            assert error(table.input_scale[step] * z, scaled) < 1e-6
        theirs = scheduler.step(m, timestep, z, return_dict=False, **options)[0]
        given = noise if table.n[step] != 0 else None
        ours = table.forward(step, z, m, given)
        assert error(ours, theirs) < 1e-6
        assert error(table.backward(step, ours, m, given), z) < 1e-12


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", GRIDS)
def test_ddim_is_its_formula(steps: int, eta: float) -> None:
    table = measure(SAMPLERS["ddim"](steps), eta=eta)
    bar = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0)
    for step, timestep in enumerate(table.timesteps.long().tolist()):
        assert timestep == (steps - 1 - step) * (1000 // steps) + 1
        now, previous = bar[timestep], bar[max(timestep - 1000 // steps, 0)]
        n = eta * ((1 - previous) / (1 - now) * (1 - now / previous)).sqrt()
        b = (1 - previous - n**2).sqrt() - (previous * (1 - now) / now).sqrt()
        row = torch.stack([table.a[step], table.b[step], table.n[step], table.alpha[step], table.sigma[step]])
        formula = torch.stack([(previous / now).sqrt(), b, n, now.sqrt(), (1 - now).sqrt()])
        torch.testing.assert_close(row, formula, rtol=2e-5, atol=2e-6)
    assert table.stochastic == (eta > 0)


@pytest.mark.parametrize("steps", [2, 4, 5])
def test_ancestral_euler_is_its_formula(steps: int) -> None:
    table = measure(SAMPLERS["euler-ancestral"](steps))
    bar = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0)
    sigmas = [math.sqrt((1 - bar[t]) / bar[t]) for t in table.timesteps.long().tolist()] + [0.0]
    for step, (now, after) in enumerate(itertools.pairwise(sigmas)):
        n = math.sqrt(after**2 * (now**2 - after**2) / now**2)
        row = [table.a[step], table.b[step], table.n[step], table.input_scale[step], table.alpha[step]]
        formula = [1, math.sqrt(after**2 - n**2) - now, n, 1 / math.hypot(1, now), 1]
        assert [float(x) for x in row] == pytest.approx(formula, rel=2e-5)
        assert float(table.sigma[step]) == pytest.approx(now, rel=2e-5)
    assert table.n[-1] == 0, "it draws noise at its last step too, and multiplies it by 0"


@pytest.mark.parametrize("steps", [1, 4, 8])
def test_lcm_is_its_formula(steps: int) -> None:
    table = measure(SAMPLERS["lcm"](steps))
    bar = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0)
    timesteps = table.timesteps.long().tolist()
    for step, timestep in enumerate(timesteps):
        now = float(bar[timestep])
        previous = float(bar[timesteps[step + 1]]) if step + 1 < steps else 1.0
        skip, out = 0.25 / ((10 * timestep) ** 2 + 0.25), 10 * timestep / math.sqrt((10 * timestep) ** 2 + 0.25)
        a = math.sqrt(previous) * (out / math.sqrt(now) + skip)
        b = -math.sqrt(previous) * out * math.sqrt((1 - now) / now)
        assert float(table.a[step]) == pytest.approx(a, rel=2e-5)
        assert float(table.b[step]) == pytest.approx(b, rel=2e-5)
        assert float(table.n[step]) == pytest.approx(math.sqrt(1 - previous), rel=2e-5)


def test_flow_matching_is_its_formula() -> None:
    scheduler = flow(7)
    table = measure(scheduler)
    sigmas = scheduler.sigmas.double()
    torch.testing.assert_close(table.b, sigmas[1:] - sigmas[:-1], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(table.sigma, sigmas[:-1])
    torch.testing.assert_close(table.alpha, 1 - sigmas[:-1])
    assert (table.a == 1).all()
    assert (table.input_scale == 1).all()
    assert not table.stochastic
    assert [table.level(step) for step in range(7)] == pytest.approx((table.timesteps / 1000).tolist())


REFUSED = {
    "pndm": lambda: make("PNDMScheduler", 10, skip_prk_steps=True, steps_offset=1),
    "dpm++": lambda: make("DPMSolverMultistepScheduler", 10),
    "dpm++ singlestep": lambda: make("DPMSolverSinglestepScheduler", 10),
    "deis": lambda: make("DEISMultistepScheduler", 10),
    "unipc": lambda: make("UniPCMultistepScheduler", 10),
    "lms": lambda: make("LMSDiscreteScheduler", 10),
    "heun": lambda: make("HeunDiscreteScheduler", 10),
    "flow heun": lambda: _set(diffusers.FlowMatchHeunDiscreteScheduler(), 10),
    "clip": lambda: make("DDIMScheduler", 10, clip_sample=True),
    "clip far out": lambda: make("DDIMScheduler", 10, clip_sample=True, clip_sample_range=20.0),
    "ddpm clip": lambda: make("DDPMScheduler", 10, clip_sample=True),
    "threshold": lambda: make("DDIMScheduler", 10, thresholding=True),
    "clip and threshold": lambda: make("LCMScheduler", 4, clip_sample=True, thresholding=True),
    "learned variance": lambda: make("DDPMScheduler", 10, variance_type="learned_range"),
    "drops the latent": lambda: make("EulerDiscreteScheduler", 10, prediction_type="sample"),
    "zero snr": lambda: make(
        "DDIMScheduler", 10, prediction_type="epsilon", rescale_betas_zero_snr=True, timestep_spacing="trailing"
    ),
}


def _set(scheduler: Any, steps: int) -> Any:
    scheduler.set_timesteps(steps)
    return scheduler


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_inverted_is_refused_with_advice_that_works(name: str) -> None:
    scheduler = REFUSED[name]()
    with pytest.raises(NotInvertible, match=rf"{type(scheduler).__name__} cannot be inverted at step") as refusal:
        measure(scheduler)
    advice = re.search(r"pipe\.scheduler = (\w+Scheduler\.from_config\(.*\))$", str(refusal.value))
    assert advice, str(refusal.value)
    remedy = eval(advice[1], {**vars(diffusers), **_named(advice[1]), "pipe": SimpleNamespace(scheduler=scheduler)})
    assert measure(_set(remedy, len(scheduler.timesteps)))


def _named(call: str) -> dict[str, Any]:
    """The class that a call names: diffusers imports lazily."""
    name = call.split(".")[0]
    return {name: getattr(diffusers, name)}


def test_pndm_the_default_of_stable_diffusion_is_sent_to_ddim() -> None:
    config = {**BETAS, "skip_prk_steps": True, "steps_offset": 1, "clip_sample": False, "set_alpha_to_one": False}
    scheduler = _set(diffusers.PNDMScheduler.from_config(config), 50)
    with pytest.raises(NotInvertible, match=r"= DDIMScheduler\.from_config\(pipe\.scheduler\.config\)$"):
        measure(scheduler)


def test_a_scheduler_without_steps_is_sent_to_set_timesteps() -> None:
    with pytest.raises(NotInvertible, match=r"set_timesteps\(50\)"):
        measure(make("DDIMScheduler"))


def test_eta_for_a_sampler_that_takes_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"eta=0\.5: EulerDiscreteScheduler\.step takes no eta"):
        measure(SAMPLERS["euler"](4), eta=0.5)


@pytest.mark.parametrize("name", SAMPLERS)
def test_scheduler_and_global_random_state_stay_as_they_are(name: str) -> None:
    scheduler = SAMPLERS[name](4)
    before, state = copy.deepcopy(vars(scheduler)), torch.get_rng_state()
    measure(scheduler, eta=ETA.get(name, 0.0))
    assert torch.get_rng_state().equal(state)
    assert before.keys() == vars(scheduler).keys()
    for key, value in before.items():
        now = getattr(scheduler, key)
        assert now.equal(value) if isinstance(value, Tensor) else now is value or now == value


@pytest.mark.parametrize("name", ["euler", "euler-ancestral", "lcm", "flow"])
def test_a_scheduler_that_has_just_run_is_measured_from_its_first_step(name: str) -> None:
    fresh, used = SAMPLERS[name](4), SAMPLERS[name](4)
    z = white(0, 1, 4, 4, 4)
    for timestep in used.timesteps[:3]:
        if hasattr(used, "scale_model_input"):
            used.scale_model_input(z, timestep)
        used.step(z, timestep, z)
    for ours, theirs in zip(_columns(measure(used)), _columns(measure(fresh)), strict=True):
        assert ours.equal(theirs)


def _columns(table: StepTable) -> list[Tensor]:
    return [table.timesteps, table.a, table.b, table.n, table.input_scale, table.alpha, table.sigma]


def test_tail_is_the_steps_nearest_the_image() -> None:
    table = measure(SAMPLERS["euler-ancestral"](4))
    tail = table.tail(3)
    assert len(tail) == 3
    assert tail.num_train_timesteps == 1000
    for short, whole in zip(_columns(tail), _columns(table), strict=True):
        assert short.equal(whole[1:])
    for steps in (0, 5):
        with pytest.raises(ValueError, match="pass 1 to 4"):
            table.tail(steps)


def test_residual_noise_makes_the_step_exact() -> None:
    table = measure(SAMPLERS["euler-ancestral"](4))
    z_s, z_t, m = white(0, 2, 4, 6, 5), white(1, 2, 4, 6, 5), white(2, 2, 4, 6, 5)
    noise = table.residual_noise(1, z_s, z_t, m)
    assert error(table.forward(1, z_t, m, noise), z_s) < 1e-12
    with pytest.raises(ValueError, match="step 3 draws no noise"):
        table.residual_noise(3, z_s, z_t, m)


def test_noise_is_needed_where_it_is_drawn() -> None:
    table = measure(SAMPLERS["lcm"](4))
    z = white(0, 1, 4, 4, 4)
    for way in (table.forward, table.backward):
        with pytest.raises(ValueError, match="step 0 draws noise"):
            way(0, z, z, None)
        way(3, z, z, None)


def test_noisy_is_the_forward_process() -> None:
    scheduler = SAMPLERS["euler"](4)
    table = measure(scheduler)
    z_0, noise = white(0, 1, 4, 4, 4), white(1, 1, 4, 4, 4)
    for step, timestep in enumerate(scheduler.timesteps):
        assert error(table.noisy(step, z_0, noise), scheduler.add_noise(z_0, noise, timestep[None])) < 1e-12


def test_a_scheduler_without_forward_process_is_measured_all_the_same() -> None:
    table = measure(_set(diffusers.LTXEulerAncestralRFScheduler(), 4))
    with pytest.raises(ValueError, match=r"no forward process .*: switch the edit losses off"):
        table.noisy(0, white(0, 1, 4, 4, 4), white(1, 1, 4, 4, 4))


def test_latents_keep_their_dtype() -> None:
    table = measure(SAMPLERS["lcm"](4))
    z = white(0, 1, 4, 4, 4, dtype=torch.float32)
    for result in (table.forward(0, z, z, z), table.backward(0, z, z, z), table.noisy(0, z, z)):
        assert result.dtype == torch.float32


def test_rows_check_themselves() -> None:
    table = measure(SAMPLERS["ddim"](4))
    with pytest.raises(ValueError, match=r"a .* comes too close to 0"):
        replace(table, a=torch.tensor([1.0, 1.0, 0.0, 1.0], dtype=torch.float64))
    with pytest.raises(ValueError, match="a step is made of finite numbers"):
        replace(table, b=torch.full((4,), math.nan, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"n is torch.float32 \[4\].*holds float64 \[4\]"):
        replace(table, n=torch.zeros(4))
    with pytest.raises(ValueError, match=r"sigma is torch.float64 \[3\]"):
        replace(table, sigma=torch.zeros(3, dtype=torch.float64))


def test_a_schedule_that_begins_beyond_the_noise_levels_takes_fewer_steps() -> None:
    """As Stable Diffusion's DDIM with as many steps as it has levels, because of steps_offset=1."""
    scheduler = diffusers.DDIMScheduler(steps_offset=1)
    scheduler.set_timesteps(1000)
    with pytest.raises(NotInvertible, match="first timestep is 1000, and the model has noise levels below 1000"):
        measure(scheduler)
