"""Inversions of ComfyUI's latents: what was found, and how it is found."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import comfy.samplers
import torch
from torch import Tensor

from renoise.core.draws import white_noise
from renoise.core.loop import count_passes
from renoise.core.loop import invert as invert_latents
from renoise.core.query import Job
from renoise.core.settings import Settings, plain
from renoise.core.table import StepTable
from renoise.core.trajectory import Trajectory
from renoise.presets import PRESETS

from .answers import answered
from .rows import measure

__all__ = ["PRESET_NAMES", "Inversion", "Model", "chosen", "described", "guider", "invert"]

PRESET_NAMES = ("auto", "few-step", "fast", "fast-latent", "sharp", "many-step", "flow", "plain reversal")
_FEW = 10  # steps up to which "auto" takes the few-step preset

Scene = tuple[Any, Any]
Callback = Callable[[int, Tensor, Tensor, int], object]


@dataclass(frozen=True)
class Model:
    """What tells one kind of model from another, whatever it is patched with.

    Attributes:
        name: of ComfyUI's class, such as "SDXL".
        prediction: "noise", "v", "flow" or "clean".
        channels: of its latents.
        sigma_max: its noisiest level.
    """

    name: str
    prediction: str
    channels: int
    sigma_max: float

    def difference(self, other: Model) -> str | None:
        """In what another model differs, in words; None where latents of one are at home in the other."""
        for name in ("name", "prediction", "channels"):
            mine, others = getattr(self, name), getattr(other, name)
            if mine != others:
                return f"its {name} is {others}, not {mine}"
        if abs(self.sigma_max - other.sigma_max) > 1e-4 * self.sigma_max:
            return f"its noise levels end at {other.sigma_max:g}, not {self.sigma_max:g} (ModelSampling nodes)"
        return None


@dataclass(frozen=True, eq=False)
class Inversion:
    """A picture, or a batch of B pictures, as the noise from which ComfyUI's sampler makes it again.

    Attributes:
        model: the kind of model that it was made with.
        trajectory: rows, z_T, noises, the latents of every step, and reports, in the model's space, float32 on the CPU.
        z_0: latents of the picture [B, C, h, w] in the model's space.
        samples: the same as nodes pass latents on (before `process_latent_in`).
        mask: the noise mask that came with them, or None.
        sigmas: noise levels [T + 1], float32, falling to 0.
        sampler: name of ComfyUI's sampler function, and its options.
        start: (factor of noise, factor of latent) by which a sampler makes its first latent.
        settings: of the method.
        cfg: guidance of the inversion, 1 for none.
        seconds: wall time.
        source: the positive and negative conditioning of the inversion; None after loading, since files hold none.
    """

    model: Model
    trajectory: Trajectory
    z_0: Tensor
    samples: Tensor
    mask: Tensor | None
    sigmas: Tensor
    sampler: tuple[str, Mapping[str, float]]
    start: tuple[float, float]
    settings: Settings
    cfg: float
    seconds: float
    source: Scene | None = None

    @property
    def table(self) -> StepTable:
        """The sampler's rows as they were measured."""
        return self.trajectory.table


def described(model: Any) -> Model:
    """The kind of a MODEL of ComfyUI."""
    sampling = model.get_model_object("model_sampling")
    kinds = {kind.__name__ for kind in type(sampling).__mro__}
    known = (("CONST", "flow"), ("V_PREDICTION", "v"), ("X0", "clean"), ("EPS", "noise"))
    prediction = next((name for kind, name in known if kind in kinds), "other")
    channels = int(model.get_model_object("latent_format").latent_channels)
    return Model(type(model.model).__name__, prediction, channels, float(sampling.sigma_max))


def chosen(preset: str, steps: int, prediction: str, cfg: float, passes: int = 0) -> Settings:
    """The settings of a preset for a number of steps.

    Args:
        preset: one of `PRESET_NAMES`.
        steps: T.
        prediction: of the model, see `Model`.
        cfg: guidance of the inversion, 1 or more.
        passes: network passes in all, 0 for those of the preset.

    Raises:
        ValueError: an unknown preset, fewer passes than steps, or guidance below 1.
    """
    if preset not in PRESET_NAMES:
        raise ValueError(f"preset={preset!r} is none of {', '.join(PRESET_NAMES)}: pick one of them")
    if cfg < 1:
        raise ValueError(f"cfg={cfg} is below 1: 1 inverts without guidance, which suits most models")
    if passes and passes < steps:
        raise ValueError(f"passes={passes} for {steps} steps, which take one each: pass {steps} or more, or 0")
    name = preset
    if preset == "auto":
        name = "few-step" if steps <= _FEW else "flow" if prediction == "flow" else "many-step"
    settings = plain(PRESETS["many-step"].settings) if name == "plain reversal" else PRESETS[name].settings
    settings = replace(settings, num_inference_steps=steps, inversion_guidance_scale=cfg)
    return replace(settings, passes=passes) if passes else settings


def guider(model: Any, scene: Scene, cfg: float) -> Any:
    """ComfyUI's own guider for a positive and a negative conditioning; the negative one may be None at cfg 1."""
    positive, negative = scene
    if negative is None and cfg != 1:
        raise ValueError(
            f"cfg={cfg} needs a negative conditioning: wire one (an empty prompt will do), or set cfg to 1"
        )
    made = comfy.samplers.CFGGuider(model)
    made.set_conds(positive, positive if negative is None else negative)  # cfg 1 does not ask for the negative one
    made.set_cfg(cfg)
    return made


def invert(
    model: Any,
    scene: Scene,
    latent: Mapping[str, Any],
    sampler: Any,
    sigmas: Tensor,
    *,
    preset: str = "auto",
    passes: int = 0,
    cfg: float = 1.0,
    seed: int = 0,
    prepare: Callable[[int], Callback] | None = None,
    disable_pbar: bool = False,
) -> Inversion:
    """Find the noise from which a sampler of ComfyUI makes these latents.

    Args:
        model: MODEL, with its patches.
        scene: positive and negative conditioning that describe the picture.
        latent: LATENT of the picture.
        sampler: SAMPLER whose steps are undone.
        sigmas: SIGMAS, falling to 0.
        preset: one of `PRESET_NAMES`.
        passes: network passes in all, 0 for those of the preset.
        cfg: guidance while inverting, 1 for none.
        seed: of the sampler's noise.
        prepare: makes the callback for previews and progress from the number of passes.
        disable_pbar: whether the terminal shows no progress bar.

    Raises:
        NotInvertible: a sampler whose step is not affine; says what to use instead.
        ValueError: something else that cannot work; says what would.
    """
    started = time.perf_counter()
    samples = _samples(latent, described(model))
    name, options = _sampler(sampler)
    sampling = model.get_model_object("model_sampling")
    table = measure(sampler, sampling, sigmas, name)
    kind = described(model)
    settings = chosen(preset, len(table), kind.prediction, cfg, passes)
    callback = prepare(count_passes(table, settings)) if prepare else None
    seen: list[Tensor] = []

    def begin(z_0: Tensor) -> Job[Trajectory]:
        seen.append(z_0)
        noises = None
        if table.stochastic:
            generators = [torch.Generator().manual_seed(seed) for _ in range(len(z_0))]  # a batch equals its pictures
            noises = white_noise(generators, z_0.shape[1:], steps=len(table), device=z_0.device)
        queries = invert_latents(table, z_0, settings=settings, noises=noises, keep_latents=True)
        return Job(queries, table, count_passes(table, settings))

    trajectory = answered(
        [guider(model, scene, cfg)],
        samples,
        sigmas,
        begin,
        seed=seed,
        mask=latent.get("noise_mask"),
        callback=callback,
        disable_pbar=disable_pbar,
    )
    return Inversion(
        model=kind,
        trajectory=_told(trajectory.mapped(_kept)),
        z_0=_kept(seen[0]),
        samples=_kept(samples),
        mask=latent.get("noise_mask"),
        sigmas=_kept(sigmas),
        sampler=(name, options),
        start=_start(sampling, sigmas),
        settings=settings,
        cfg=cfg,
        seconds=time.perf_counter() - started,
        source=scene,
    )


def _samples(latent: Mapping[str, Any], model: Model) -> Tensor:
    samples: Tensor = latent["samples"]
    if samples.shape[1] != model.channels:
        raise ValueError(
            f"the latent has {samples.shape[1]} channels and the model takes {model.channels}: encode the picture with "
            "the VAE of this model"
        )
    if not samples.count_nonzero():
        raise ValueError("the latent is empty: wire a picture through VAE Encode, not an Empty Latent")
    return samples


def _sampler(sampler: Any) -> tuple[str, dict[str, float]]:
    """Name of the sampler function as `comfy.samplers.ksampler` takes it, and its options that are numbers."""
    function = getattr(sampler, "sampler_function", None)
    name = getattr(function, "__name__", type(sampler).__name__).removeprefix("sample_")
    options = getattr(sampler, "extra_options", {})
    return name, {key: value for key, value in options.items() if isinstance(value, (int, float))}


def _start(sampling: Any, sigmas: Tensor) -> tuple[float, float]:
    """By which factors ComfyUI mixes noise and latent into the first latent of a schedule."""
    wrap = SimpleNamespace(inner_model=SimpleNamespace(model_sampling=sampling))
    full = comfy.samplers.Sampler().max_denoise(wrap, sigmas)
    level = sigmas[0].cpu()
    one, zero = torch.ones(1), torch.zeros(1)
    mixed: Sequence[Tensor] = [sampling.noise_scaling(level, *pair, full) for pair in ((one, zero), (zero, one))]
    return mixed[0].item(), mixed[1].item()


def _kept(latents: Tensor) -> Tensor:
    return latents.detach().to("cpu", torch.float32).contiguous().clone()


def _told(trajectory: Trajectory) -> Trajectory:
    """The numbers of the reports on the CPU too."""
    names = ("residuals", "noise_travel", "noise_std", "noise_correlation")
    steps = []
    for report in trajectory.steps:
        measured = {name: getattr(report, name) for name in names}
        kept: dict[str, Any] = {key: None if value is None else _kept(value) for key, value in measured.items()}
        steps.append(replace(report, **kept))
    return replace(trajectory, steps=tuple(steps))
