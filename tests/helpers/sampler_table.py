"""Samplers and their settings, each measured and held against the scheduler's own steps.

`python -m tests.helpers.sampler_table > docs/samplers.md` writes the documentation's page;
`test_invertible` holds every row to its bounds.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import diffusers
import torch
from torch import Tensor

from renoise.pipelines.advice import typed
from renoise.pipelines.measure import NotInvertible, measure

GRIDS = (1, 2, 3, 4, 7, 20)
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SAFE = {"clip_sample": False, "set_alpha_to_one": False}
ZERO_SNR = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
SHAPE = (2, 4, 3, 5)


@dataclass(frozen=True)
class Case:
    """A scheduler class, what its config says beyond the betas of Stable Diffusion, and how its steps are set."""

    kind: str
    config: dict[str, Any] = field(default_factory=dict)
    schedule: Callable[[int], dict[str, Any]] = lambda n: {"num_inference_steps": n}
    note: str = ""
    eta: float = 0.0
    grids: tuple[int, ...] = GRIDS

    @property
    def label(self) -> str:
        """The settings as they would be typed."""
        settings = [f"{key}={typed(value)}" for key, value in self.config.items()]
        noise = [f"eta={self.eta:g}"] if self.eta else []
        return ", ".join([*settings, *noise, *([self.note] if self.note else [])])

    def scheduler(self, steps: int) -> Any:
        cls = getattr(diffusers, self.kind)
        known = inspect.signature(cls.__init__).parameters
        usual = {key: value for key, value in {**BETAS, **SAFE}.items() if key in known}
        scheduler = cls(**{**usual, **self.config})
        scheduler.set_timesteps(**self.schedule(steps))
        return scheduler


@dataclass(frozen=True)
class Errors:
    """Largest relative errors in L2 over a schedule."""

    step: float  # the row's z_s against the scheduler's own
    back: float  # backward(forward(z)) against z, in float64


def white(seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=dtype).double()


def errors(case: Case, steps: int) -> Errors:
    """Run a scheduler's own chain in float64 on known outputs and noise beside the rows measured on it.

    Raises:
        NotInvertible: the sampler is refused.
    """
    scheduler = case.scheduler(steps)
    table = measure(scheduler, eta=case.eta)
    accepted = inspect.signature(scheduler.step).parameters
    z, step_error, back = white(10**6), 0.0, 0.0
    for step, timestep in enumerate(scheduler.timesteps):
        m = white(1000 + step)
        options: dict[str, Any] = {"eta": case.eta} if "eta" in accepted else {}
        if "generator" in accepted:
            options["generator"] = torch.Generator().manual_seed(step)
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(z, timestep)
        z_s = scheduler.step(m, timestep, z, return_dict=False, **options)[0].double()
        # a scheduler draws in the precision that it likes
        noises = [white(step, dtype) for dtype in (torch.float64, torch.float32)] if table.n[step] != 0 else [None]
        answers = [table.forward(step, z, m, noise) for noise in noises]
        distances = [_relative(answer, z_s) for answer in answers]
        best = distances.index(min(distances))
        step_error = max(step_error, distances[best])
        back = max(back, _relative(table.backward(step, answers[best], m, noises[best]), z))
        z = z_s
    return Errors(step_error, back)


def _relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


def _custom(key: str, fractions: Callable[[int], list[float]], whole: bool = False) -> Callable[[int], dict[str, Any]]:
    def schedule(steps: int) -> dict[str, Any]:
        values = [999 * x if key == "timesteps" else x for x in fractions(steps)]
        return {key: [int(x) for x in values] if whole else values}

    return schedule


def _falling(steps: int) -> list[float]:
    """An uneven grid in (0, 1]."""
    return [1.0 * ((steps - i) / steps) ** 1.5 for i in range(steps)]


def _sigmas(steps: int) -> list[float]:
    """An uneven grid of the noise levels of Stable Diffusion, which ends in 0."""
    return [*(14.0 * x for x in _falling(steps)), 0.0]


def _with_mu(steps: int) -> dict[str, Any]:
    return {"num_inference_steps": steps, "mu": 0.8}


TWO = tuple(n for n in GRIDS if n > 1)
FLOW_EULER = "FlowMatchEulerDiscreteScheduler"
DPM = "DPMSolverMultistepScheduler"
ORDER_1 = {"solver_order": 1}
FIRST_ORDER: dict[str, dict[str, Any]] = {
    DPM: ORDER_1,
    "DPMSolverSinglestepScheduler": ORDER_1,
    "DEISMultistepScheduler": ORDER_1,
    "UniPCMultistepScheduler": {**ORDER_1, "disable_corrector": list(range(20))},
}


def cases() -> Iterator[Case]:
    """Everything that the table lists."""
    one_step = {
        "DDIMScheduler": {},
        "DDIMParallelScheduler": {},
        "CogVideoXDDIMScheduler": {},
        "DDPMScheduler": {},
        "DDPMParallelScheduler": {},
        "EulerDiscreteScheduler": {},
        "EulerAncestralDiscreteScheduler": {},
        "LCMScheduler": {},
        "TCDScheduler": {},
        **FIRST_ORDER,
    }
    for kind, config in one_step.items():
        for prediction in ("epsilon", "v_prediction", "sample"):
            yield Case(kind, {**config, "prediction_type": prediction})
    for kind in ("DDIMScheduler", "EulerDiscreteScheduler", DPM):
        for spacing in ("trailing", "linspace", "leading"):
            yield Case(kind, {**one_step[kind], "timestep_spacing": spacing})
    for kind in ("EulerDiscreteScheduler", *FIRST_ORDER):
        for sigmas in ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"):
            yield Case(kind, {**one_step[kind], sigmas: True})
    for kind, config in one_step.items():
        if "rescale_betas_zero_snr" in inspect.signature(getattr(diffusers, kind).__init__).parameters:
            yield Case(kind, {**config, **ZERO_SNR})
    for kind, config in FIRST_ORDER.items():
        yield Case(kind, {**config, **FLOW})
    for algorithm in ("sde-dpmsolver++", "sde-dpmsolver", "dpmsolver"):
        yield Case(DPM, {**ORDER_1, "algorithm_type": algorithm, "final_sigmas_type": "sigma_min"})
    for kind in ("DDIMScheduler", "TCDScheduler"):
        yield Case(kind, eta=0.4)
    yield Case("DDIMScheduler", eta=1.0)
    yield Case("EDMEulerScheduler")
    yield Case("EDMEulerScheduler", {"prediction_type": "v_prediction"})
    yield Case("EDMEulerScheduler", {"sigma_schedule": "exponential"})
    yield Case("EDMDPMSolverMultistepScheduler", ORDER_1)

    whole = _custom("timesteps", _falling, whole=True)
    for kind in ("DDPMScheduler", "EulerDiscreteScheduler", "LCMScheduler", "TCDScheduler", DPM):
        yield Case(kind, one_step[kind], whole, note="own timesteps")
    yield Case("EulerDiscreteScheduler", {}, _custom("sigmas", _sigmas), note="own sigmas")

    for shift in (1.0, 3.0):
        yield Case(FLOW_EULER, {"shift": shift})
    yield Case(FLOW_EULER, {"use_dynamic_shifting": True}, _with_mu)
    yield Case(FLOW_EULER, {"use_dynamic_shifting": True, "time_shift_type": "linear"}, _with_mu)
    yield Case(FLOW_EULER, {"shift_terminal": 0.02}, grids=TWO)
    for sigmas in ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"):
        yield Case(FLOW_EULER, {"shift": 3.0, sigmas: True})
    yield Case(FLOW_EULER, {"shift": 3.0, "stochastic_sampling": True})
    yield Case(FLOW_EULER, {"shift": 3.0}, _custom("sigmas", _falling), note="own sigmas")
    yield Case("FlowMatchLCMScheduler", {"shift": 3.0})
    yield Case("FlowMapEulerDiscreteScheduler", {"shift": 3.0})
    yield Case("LTXEulerAncestralRFScheduler")


def write() -> None:
    """Print the documentation's page."""
    print(HEAD)
    for case in cases():
        reached, refused = list[Errors](), list[str]()
        for steps in case.grids:
            try:
                reached.append(errors(case, steps))
            except NotInvertible as error:
                refused.append(str(steps))
                advice = str(error).split("Use instead: ")[1:] or ["nothing"]
        if reached:
            worst = [f"{max(getattr(e, name) for e in reached):.0e}" for name in ("step", "back")]
            rest = f"; refused at {', '.join(refused)}" if refused else ""
        else:
            worst, rest = ["refused", "-"], f"; use `{advice[0]}`"
        settings = f"`{case.label}`" if case.label else "as it comes"
        print(f"| {case.kind.removesuffix('Scheduler')} | {settings}{rest} | {' | '.join(worst)} |", flush=True)


HEAD = """# Samplers

Written by `python -m tests.helpers.sampler_table > docs/samplers.md`. `tests/pipelines/test_invertible.py` checks
every line.

A sampler can be inverted if one of its steps is `z_s = a z + b m + n eps`. Here z is the noisier latent, z_s the less
noisy one, m what the network predicts, and eps fresh noise. The numbers a, b and n may depend on the step, but on
nothing else, and a must not be close to 0.

renoise does not look at the sampler's name. It measures the numbers on the scheduler of your pipeline. If the step is
not of this form, it refuses and says which line to type instead. `renoise.make_invertible(pipe)` types that line for
you and says what it changed.

How to read the table. Every number is the worst over all steps of schedules with 1, 2, 3, 4, 7 and 20 steps (fewer
where the settings do not allow all). Everything is computed in float64.

* *Own step*: the relative difference between the measured step and the scheduler's own. It is about 1e-8 where the
  scheduler computes in float32.
* *There and back*: the relative error after one step forward and the same step back.

Neither number says anything about a network. Whether the equation of a step can be solved with your network is
reported by each inversion.

What the table does not show:

* **A small a enlarges errors on the way back.** LCM, FlowMatchLCM, TCD with eta, and the ancestral and stochastic
  samplers replace most of each latent by fresh noise. After many steps little of the noisiest latent is left in the
  picture. So invert them with few steps.
* **Networks that predict the clean picture** (`prediction_type="sample"`) forget the latent in a last step that ends
  at zero noise. Such samplers are refused. For some there is a line that ends a little above zero; then a little
  noise is left in the picture.
* **Zero terminal SNR**: Euler starts at sigma = 4096 and computes in float32, so it is exact to 1e-4 only. DDIM does
  not have this problem.
* **Refused in any case**: orders above 1, two network calls in one step, a history of earlier steps, clipping,
  thresholding, and learned variances. These are PNDM, IPNDM, LMS, Heun, KDPM2, SASolver, FlowMatchHeun, and UniPC
  with its corrector. DPMSolverSDE was not tried.
* **There is no relative to offer** for SCM (SANA-Sprint), CMStochasticIterative, and samplers of tokens or of other
  kinds of pipelines.

| sampler | settings | own step | there and back |
|---|---|---|---|"""

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    write()
