"""Stands in for ComfyUI in tests: the interfaces that the nodes use, written from its documentation, and no code of it.

Samplers are written from their published formulas, and the guided model is in closed form: clean latents follow a
mixture of two Gaussians per prompt.  `python -m comfyui.proof` runs the nodes in the real program.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor

__all__ = ["Interrupted", "Levels", "Model", "State", "install"]


class Interrupted(Exception):  # noqa: N818 - what it says
    """What ComfyUI raises when a user presses Cancel."""


class State:
    """What tests set and read: passes until Cancel is pressed, and every question to the model."""

    cancel_after: int | None = None
    asked: list[tuple[Any, float, int]] = []  # noqa: RUF012 - reset by each test


class Levels:
    """Noise levels of a model: "flow" with z = (1 - s) x + s eps, otherwise z = x + s eps."""

    def __init__(self, kind: str = "noise", sigma_max: float = 14.6) -> None:
        self.kind = kind
        self.sigma_max = torch.tensor(1.0 if kind == "flow" else sigma_max)
        self.num_timesteps = 1000

    def noise_scaling(self, sigma: Tensor, noise: Tensor, latent: Tensor, max_denoise: bool = False) -> Tensor:
        if self.kind == "flow":
            return sigma * noise + (1 - sigma) * latent
        return noise * (torch.sqrt(1 + sigma**2) if max_denoise else sigma) + latent

    def timestep(self, sigma: Tensor) -> Tensor:
        return (sigma.log() * 100).clamp(0, 999)


class CONST:
    """Marks levels of flow matching, as ComfyUI's class of this name does."""


class EPS:
    """Marks levels of noise prediction."""


class _Flow(Levels, CONST): ...


class _Noise(Levels, EPS): ...


@dataclass
class Model:
    """A MODEL of ComfyUI: levels, latents that are scaled by 0.5, and a denoiser in closed form."""

    kind: str = "noise"
    channels: int = 4
    sigma_max: float = 14.6
    spread: float = 0.6
    model: Any = field(init=False)

    def __post_init__(self) -> None:
        self.levels = (_Flow if self.kind == "flow" else _Noise)(self.kind, self.sigma_max)
        self.model = type("Toy", (), {"process_latent_out": staticmethod(lambda z: z / 0.5)})()

    def get_model_object(self, name: str) -> Any:
        return self.levels if name == "model_sampling" else SimpleNamespace(latent_channels=self.channels)

    def clean(self, x: Tensor, sigma: Tensor, cond: int) -> Tensor:
        """The best clean estimate for prompt number `cond`."""
        s = sigma.view(-1, *[1] * (x.ndim - 1))
        alpha = 1 - s if self.kind == "flow" else torch.ones_like(s)
        draw = torch.Generator().manual_seed(cond)
        means = torch.randn(2, *x.shape[1:], generator=draw).to(x)
        variance = alpha**2 * self.spread**2 + s**2
        offset = x[:, None] - alpha[:, None] * means
        shares = torch.softmax(-offset.flatten(2).square().mean(2) / 2 / variance.flatten(1), 1)
        guesses = means + (alpha * self.spread**2 / variance)[:, None] * offset
        return (shares.view(*shares.shape, *[1] * (x.ndim - 1)) * guesses).sum(1)


class Sampler:
    def max_denoise(self, model_wrap: Any, sigmas: Tensor) -> bool:
        return float(sigmas[0]) >= float(model_wrap.inner_model.model_sampling.sigma_max) * (1 - 1e-5)


class KSAMPLER(Sampler):
    def __init__(self, function: Callable[..., Tensor], extra_options: dict[str, Any] | None = None) -> None:
        self.sampler_function, self.extra_options = function, extra_options or {}

    def sample(
        self, wrap: Any, sigmas: Tensor, extra_args: dict[str, Any], callback: Any, noise: Tensor, latent_image: Tensor
    ) -> Tensor:
        levels = wrap.inner_model.model_sampling
        start = levels.noise_scaling(sigmas[0], noise, latent_image, self.max_denoise(wrap, sigmas))
        model = SimpleNamespace(inner_model=SimpleNamespace(inner_model=wrap.inner_model))

        class Asked:
            inner_model = model.inner_model

            def __call__(self, x: Tensor, sigma: Tensor, **kwargs: Any) -> Tensor:
                found: Tensor = wrap(x, sigma, **kwargs)
                return found

        return self.sampler_function(Asked(), start, sigmas, extra_args=extra_args, disable=True, **self.extra_options)


class CFGGuider:
    """A guider; conditions are [(number of the prompt, {})]."""

    def __init__(self, model: Model) -> None:
        self.model_patcher, self.cfg = model, 1.0

    def set_conds(self, positive: Any, negative: Any) -> None:
        self.conds = positive, negative

    def set_cfg(self, cfg: float) -> None:
        self.cfg = cfg

    def __call__(self, x: Tensor, sigma: Tensor, model_options: Any = None, seed: Any = None) -> Tensor:
        positive, negative = (cond and cond[0][0] for cond in self.conds)
        assert x.dtype == torch.float32
        State.asked.append((positive, float(sigma[0]), len(x)))
        model = self.model_patcher
        good = model.clean(x, sigma, positive)
        return good if self.cfg == 1 else model.clean(x, sigma, negative).lerp(good, self.cfg)

    def sample(self, noise: Tensor, latent: Tensor, sampler: Any, sigmas: Tensor, **words: Any) -> Tensor:
        self.inner_model = SimpleNamespace(model_sampling=self.model_patcher.levels)
        known = {"denoise_mask", "callback", "disable_pbar", "seed"}
        assert words.keys() <= known
        extra: dict[str, Any] = {"model_options": {}, "seed": words.get("seed")}
        found: Tensor = sampler.sample(self, sigmas, extra, None, noise, latent * 0.5)
        return found / 0.5


def _levels_of(model: Any) -> Levels:
    levels: Levels = model.inner_model.inner_model.model_sampling
    return levels


def _each(x: Tensor, sigma: Tensor) -> Tensor:
    return sigma * x.new_ones(len(x))


def sample_euler(model: Any, x: Tensor, sigmas: Tensor, extra_args: Any, callback: Any = None, disable: Any = None):  # type: ignore[no-untyped-def]
    for s, s_next in itertools.pairwise(sigmas):
        clean = model(x, _each(x, s), **extra_args)
        x = clean + s_next / s * (x - clean)
    return x


def sample_euler_ancestral(  # type: ignore[no-untyped-def]
    model: Any, x: Tensor, sigmas: Tensor, extra_args: Any, callback=None, disable=None, noise_sampler=None, eta=1.0
):
    flow = _levels_of(model).kind == "flow"
    for s, s_next in itertools.pairwise(sigmas):
        clean = model(x, _each(x, s), **extra_args)
        if s_next == 0:
            return clean
        down = s_next * (1 + eta * (s_next / s - 1)) if flow else (s_next**4 / s**2) ** 0.5
        keep = (1 - s_next) / (1 - down) if flow else 1.0
        fresh = (s_next**2 - (keep * down) ** 2) ** 0.5
        x = keep * (clean + down / s * (x - clean)) + fresh * noise_sampler(s, s_next)
    return x


def sample_lcm(model: Any, x: Tensor, sigmas: Tensor, extra_args: Any, callback=None, disable=None, noise_sampler=None):  # type: ignore[no-untyped-def]
    for s, s_next in itertools.pairwise(sigmas):
        x = model(x, _each(x, s), **extra_args)
        if s_next > 0:
            x = _levels_of(model).noise_scaling(s_next, noise_sampler(s, s_next), x)
    return x


def ksampler(name: str, options: dict[str, Any] | None = None) -> KSAMPLER:
    return KSAMPLER(getattr(sys.modules[__name__], f"sample_{name}"), options)


def calculate_sigmas(levels: Levels, scheduler: str, steps: int) -> Tensor:
    top = math.log(float(levels.sigma_max) + 1)
    return torch.linspace(top, 0, steps + 1).exp() - 1


def throw_exception_if_processing_interrupted() -> None:
    if State.cancel_after is not None and len(State.asked) >= State.cancel_after:
        raise Interrupted


class _Type:
    """Every type of `comfy_api.latest.io`: inputs and outputs that remember how they were made."""

    def __init__(self, name: str) -> None:
        self._name = name

    def Input(self, id: str, **words: Any) -> Any:  # noqa: N802 - ComfyUI's name
        return SimpleNamespace(type=self._name, id=id, **{"optional": False, **words})

    def Output(self, **words: Any) -> Any:  # noqa: N802
        return SimpleNamespace(type=self._name, **words)


class _Io(ModuleType):
    ComfyNode = object
    Schema = SimpleNamespace

    @staticmethod
    def Custom(name: str) -> _Type:  # noqa: N802
        return _Type(name)

    @staticmethod
    def NodeOutput(*found: Any, ui: Any = None) -> Any:  # noqa: N802
        return SimpleNamespace(args=found, ui=ui)

    def __getattr__(self, name: str) -> _Type:
        return _Type(name)


def install() -> None:
    """Puts the stubs where the nodes import them from."""
    here = sys.modules[__name__]
    samplers = ModuleType("comfy.samplers")
    for name in ("Sampler", "KSAMPLER", "CFGGuider", "ksampler", "calculate_sigmas"):
        setattr(samplers, name, getattr(here, name))
    samplers.sampler_object = ksampler  # type: ignore[attr-defined]
    samplers.SCHEDULER_NAMES = ["simple"]  # type: ignore[attr-defined]
    management, preview = ModuleType("comfy.model_management"), ModuleType("latent_preview")
    management.throw_exception_if_processing_interrupted = throw_exception_if_processing_interrupted  # type: ignore[attr-defined]
    preview.prepare_callback = lambda model, steps: None  # type: ignore[attr-defined]
    utils, latest, formats = (
        ModuleType("comfy.utils"),
        ModuleType("comfy_api.latest"),
        ModuleType("comfy.latent_formats"),
    )
    utils.PROGRESS_BAR_ENABLED = False  # type: ignore[attr-defined]
    latest.io, latest.ui, latest.ComfyExtension = _Io("io"), ModuleType("ui"), object  # type: ignore[attr-defined]
    formats.LatentFormat = object  # type: ignore[attr-defined]
    found = {"comfy.samplers": samplers, "comfy.model_management": management, "latent_preview": preview}
    found |= {"comfy.utils": utils, "comfy_api": ModuleType("comfy_api"), "comfy_api.latest": latest}
    found |= {"comfy": ModuleType("comfy"), "comfy.latent_formats": formats, "folder_paths": ModuleType("folder_paths")}
    for name, bases in (("model_base", "BaseModel"), ("supported_models_base", "BASE")):
        found[f"comfy.{name}"] = ModuleType(f"comfy.{name}")
        setattr(found[f"comfy.{name}"], bases, object)
    found |= {f"comfy.{name}": ModuleType(f"comfy.{name}") for name in ("sd", "model_patcher")}
    for name, module in found.items():
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(found[parent], child, module)
