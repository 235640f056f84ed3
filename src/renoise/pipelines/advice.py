"""Which diffusers scheduler to use in place of one whose step cannot be undone.

`advice(scheduler)` is the only source of this.  `renoise.pipelines.measure` prints it when it refuses a scheduler, and
`renoise.pipelines.invertible` applies it.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

__all__ = ["Advice", "advice"]

# Schedulers that keep a history or call the network twice for a step, and for each a similar scheduler that does
# neither, on the same noise levels if there is one.  Settings that both have are kept.
_RELATIVES: dict[str, tuple[str, dict[str, Any]]] = {
    "CogVideoXDPMScheduler": ("CogVideoXDDIMScheduler", {}),
    "DDIMInverseScheduler": ("DDIMScheduler", {}),
    "DPMSolverMultistepInverseScheduler": ("DPMSolverMultistepScheduler", {}),
    "DPMSolverSDEScheduler": ("EulerAncestralDiscreteScheduler", {}),
    "FlowMatchHeunDiscreteScheduler": ("FlowMatchEulerDiscreteScheduler", {}),
    "HeunDiscreteScheduler": ("EulerDiscreteScheduler", {}),
    "IPNDMScheduler": ("DDIMScheduler", {}),
    "KDPM2AncestralDiscreteScheduler": ("EulerAncestralDiscreteScheduler", {}),
    "KDPM2DiscreteScheduler": ("EulerDiscreteScheduler", {}),
    "LMSDiscreteScheduler": ("EulerDiscreteScheduler", {}),
    "PNDMScheduler": ("DDIMScheduler", {}),
    "RePaintScheduler": ("DDIMScheduler", {}),
    "SASolverScheduler": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
}
# If the network predicts z_0, the last step of these drops the latent, whatever their settings
_FORGETFUL = (
    "DDPMParallelScheduler",
    "DDPMScheduler",
    "EulerAncestralDiscreteScheduler",
    "LCMScheduler",
    "UnCLIPScheduler",
)


@dataclass(frozen=True)
class Advice:
    """A scheduler, made by `diffusers.<scheduler>.from_config(pipe.scheduler.config, **changes)`.

    Attributes:
        scheduler: name of the diffusers class.
        changes: settings that differ from those of the refused scheduler.
    """

    scheduler: str
    changes: dict[str, Any]

    def __str__(self) -> str:
        """The line of Python that a user can type."""
        arguments = ["pipe.scheduler.config", *(f"{key}={typed(value)}" for key, value in self.changes.items())]
        return f"pipe.scheduler = {self.scheduler}.from_config({', '.join(arguments)})"

    def build(self, config: Any) -> Any:
        """The advised scheduler, made from the configuration of the refused one."""
        import diffusers

        return getattr(diffusers, self.scheduler).from_config(config, **self.changes)


def advice(scheduler: Any) -> Advice | None:
    """The most similar invertible scheduler in place of one that was refused, or None if diffusers has none."""
    import diffusers

    config, name = scheduler.config, type(scheduler).__name__
    flow = hasattr(scheduler, "scale_noise") or config.get("prediction_type") == "flow_prediction"
    diffusion = "beta_schedule" in config
    relative, forced = _RELATIVES.get(name, (name, {}))
    if config.get("prediction_type") == "sample" and relative in _FORGETFUL:
        relative = "DDIMScheduler"
    changes = {**(_changes(relative, scheduler) if hasattr(diffusers, relative) else {}), **forced}
    if relative == name and not changes:
        relative = "FlowMatchEulerDiscreteScheduler" if flow else "DDIMScheduler"
        changes = _changes(relative, scheduler)
    helps = relative != name or bool(changes)
    return Advice(relative, changes) if helps and (flow or diffusion or relative == name) else None


def typed(value: Any) -> str:
    """The value of a setting as a user would type it."""
    counts = isinstance(value, list) and len(value) > 9 and value == list(range(len(value)))
    return f"list(range({len(value)}))" if counts else repr(value)


def _changes(name: str, scheduler: Any) -> dict[str, Any]:
    """Keywords of `from_config` with which diffusers' class `name`, made from a scheduler's config, can be undone.

    `from_config` drops every setting that the old class had by default.  So those for which the new class has another
    default are among the keywords.
    """
    import diffusers

    old = scheduler.config
    unset = old.get("_use_default_values", ()) if name != type(scheduler).__name__ else ()
    settable = inspect.signature(getattr(diffusers, name).__init__).parameters
    defaults = {key: parameter.default for key, parameter in settable.items()}
    new = {key: defaults[key] if key in unset else old.get(key, defaults[key]) for key in defaults}
    kept = {key: old[key] for key in sorted(unset) if key in defaults and old[key] != defaults[key]}
    new |= kept

    all_steps = list(range(old.get("num_train_timesteps", 1000)))
    predicts = new.get("prediction_type")
    broken = scheduler.timesteps is not None and not scheduler.timesteps.isfinite().all()
    wanted = {
        "clip_sample": (new.get("clip_sample"), False),
        "thresholding": (new.get("thresholding"), False),
        "rescale_betas_zero_snr": (new.get("rescale_betas_zero_snr") and predicts == "epsilon", False),
        "variance_type": (str(new.get("variance_type")).startswith("learned"), "fixed_small"),
        "solver_order": (new.get("solver_order", 1) > 1, 1),
        "disable_corrector": (not {*all_steps} <= {*new.get("disable_corrector", ())}, all_steps),
        # if the network predicts z_0, a last step to sigma = 0 drops the latent
        "set_alpha_to_one": (new.get("set_alpha_to_one") and predicts == "sample", False),
        "final_sigmas_type": (new.get("final_sigmas_type") == "zero" and predicts == "sample", "sigma_min"),
        "scale_factors": (new.get("scale_factors"), None),
        "shift_terminal": (new.get("shift_terminal") and broken, None),  # with a single step it gives NaN
    }
    return kept | {key: value for key, (needed, value) in wanted.items() if needed and key in settable}
