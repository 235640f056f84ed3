"""Answer the queries of the core with ComfyUI's guided model.

ComfyUI hands its guided model to a sampler object, so `answered` runs a job of the core inside `Driven`, a sampler that
does nothing else.  LoRA, ControlNet, IP-Adapter, hooks, areas and wrappers then act as in any other sampling, because
ComfyUI itself loads, patches and calls the model.  A job may ask for several scenes (source and target of an edit).
Every scene is a guider of its own, and they are sampled inside one another, so each has its conditions prepared by
ComfyUI as if it were alone.

The model answers with D, the clean estimate at noise level s, and the core is sent m = (z - D) / s.  Latents of the
core are in the model's space (after `process_latent_in`) and float64, so that this difference keeps its digits where s
is 4,500, as at the rescaled end of a schedule with zero terminal SNR.  The model gets float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import comfy.model_management
import comfy.samplers
import torch
from torch import Tensor
from tqdm.auto import tqdm

from renoise.core.loop import drive
from renoise.core.query import Job, Query

__all__ = ["Driven", "answered"]

_Result = TypeVar("_Result")
Begin = Callable[[Tensor], Job[_Result]]
Ask = Callable[[Tensor, Tensor], Tensor]


def answered(
    guiders: Sequence[Any],
    samples: Tensor,
    sigmas: Tensor,
    begin: Begin[_Result],
    *,
    seed: int = 0,
    mask: Tensor | None = None,
    callback: Callable[[int, Tensor, Tensor, int], object] | None = None,
    disable_pbar: bool = False,
) -> _Result:
    """Run a job of the core with one guider per scene.

    Args:
        guiders: ComfyUI's guiders, scene 0 first; each has its model, conditions and guidance.
        samples: latents of the picture as nodes pass them on (before `process_latent_in`).
        sigmas: noise levels of the schedule [T + 1], which some model patches read.
        begin: makes the job from the latents in the model's space, float64.
        seed: what model patches that draw random numbers get.
        mask: the latents' noise mask, for models that take one as input (inpainting models).
        callback: as `latent_preview.prepare_callback` makes it, told of every pass.
        disable_pbar: whether the terminal shows no progress bar.

    Returns:
        What the job's queries return.

    Raises:
        comfy.model_management.InterruptProcessingException: the user pressed Cancel.
    """
    asks: list[Ask] = []
    result: list[_Result] = []

    def sample(scene: int) -> None:
        last = scene + 1 == len(guiders)

        def nested(ask: Ask, latents: Tensor) -> None:
            asks.append(ask)
            if not last:
                sample(scene + 1)
                return
            job = begin(latents)
            result.append(_run(job, asks, callback, disable_pbar))

        guiders[scene].sample(
            torch.zeros_like(samples),
            samples,
            Driven(nested),
            sigmas,
            denoise_mask=mask,
            callback=None,
            disable_pbar=True,
            seed=seed,
        )

    sample(0)
    return result[0]


class Driven(comfy.samplers.Sampler):  # type: ignore[misc]
    """A sampler object that hands ComfyUI's guided model to a function, and returns the latents that come back."""

    def __init__(self, run: Callable[[Ask, Tensor], Tensor | None]) -> None:
        """`run` gets a function from latents (float64) and a noise level to D, and the picture's latents (float64)."""
        self._run = run

    def sample(
        self,
        model_wrap: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Any,
        noise: Tensor,
        latent_image: Tensor | None = None,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        """What a guider calls.  Neither `noise` nor `denoise_mask` is read: what is needed of them `run` has."""
        assert latent_image is not None, "a guider hands over latents"
        single = latent_image.ndim == 5 and latent_image.shape[2] == 1  # a picture as a film of one frame
        state = latent_image.squeeze(2) if single else latent_image

        def ask(z: Tensor, sigma: Tensor) -> Tensor:
            x = z.to(latent_image.device, torch.float32)
            x = x.unsqueeze(2) if single else x
            clean: Tensor = model_wrap(x, sigma.to(x) * x.new_ones(len(x)), **extra_args)
            return clean.squeeze(2) if single else clean

        found = self._run(ask, state.to(_precision(latent_image.device)))
        if found is None:
            return latent_image
        found = found.to(latent_image.device, torch.float32)
        return found.unsqueeze(2) if single else found


def _run(
    job: Job[_Result],
    asks: Sequence[Ask],
    callback: Callable[[int, Tensor, Tensor, int], object] | None,
    disable_pbar: bool,
) -> _Result:
    """Drive the job's queries; every block of a query is one pass."""
    levels, done = job.table.sigma, 0
    with tqdm(total=job.passes, disable=disable_pbar, desc="renoise") as bar:

        def answer(query: Query) -> Tensor:
            nonlocal done
            sigma = levels[query.step].float()
            blocks = query.z.chunk(len(query.scenes))
            answers = []
            for block, scene in zip(blocks, query.scenes, strict=True):
                comfy.model_management.throw_exception_if_processing_interrupted()
                clean = asks[scene](block, sigma)
                if callback:
                    callback(done, clean, block.float(), job.passes)
                done += 1
                bar.update(1)
                answers.append((block - clean.to(block)) / sigma.to(block))
            return torch.cat(answers)

        return drive(job.queries, answer)


def _precision(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs have no float64
