"""Make a picture from an inversion: again, or edited with another conditioning (`renoise.core.editing`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from renoise import masks
from renoise.core.draws import white_noise
from renoise.core.editing import (
    MAPS,
    Displaced,
    Layout,
    Source,
    count_passes,
    displace,
    inverted_source,
    renoised,
)
from renoise.core.loop import replay
from renoise.core.query import Job
from renoise.core.trajectory import Trajectory
from renoise.edit_controls import EditWords

from .answers import answered
from .inversion import Callback, Inversion, Scene, described, guider

__all__ = ["Edited", "MaskWords", "edit", "reconstruct"]

_PIXELS = 8  # side of an automatic mask over that of the latents


@dataclass(frozen=True, eq=False)
class MaskWords:
    """A mask as it is asked for.

    Attributes:
        given: MASK of ComfyUI [batch or 1, height, width] in [0, 1], white where the picture may change; None for the
            noise mask of the inversion if it has one, and for an automatic one if `auto` says so.
        auto: whether the edit finds a mask of its own.
        grow: pixels by which it is made larger, or smaller where negative.
        feather: pixels over which it fades beyond its edge.
    """

    given: Tensor | None = None
    auto: bool = False
    grow: int = 0
    feather: int = 0


@dataclass(frozen=True, eq=False)
class Edited:
    """What an edit made.

    Attributes:
        samples: latents as nodes pass them on [batch, ...].
        mask: MASK of ComfyUI [batch, height, width], ones where there was none.
        passes: network passes per picture.
    """

    samples: Tensor
    mask: Tensor
    passes: int


def reconstruct(
    model: Any, inversion: Inversion, scene: Scene | None = None, cfg: float | None = None, **shown: Any
) -> Edited:
    """Replay the sampler from z_T with the noises that were found.

    Args:
        model: MODEL.
        inversion: what is replayed.
        scene: positive and negative conditioning; by default those of the inversion.
        cfg: guidance; by default that of the inversion.
        shown: `prepare` and `disable_pbar` as in `renoise`'s node of inversions.
    """
    _check(model, inversion)
    found = inversion.trajectory
    queries = _Walk(model, inversion, found, **shown)
    made = guider(model, scene or _source(inversion, None), inversion.cfg if cfg is None else cfg)
    state, noises = found.z_T.double(), found.noises
    latents = queries.run([made], lambda z: replay(found.table, state.to(z), noises), len(found.table))
    return Edited(queries.samples(latents), _everywhere(inversion), len(found.table))


def edit(
    model: Any,
    inversion: Inversion,
    scene: Scene,
    words: EditWords,
    mask: MaskWords,
    *,
    cfg: float = 1.0,
    source: Scene | None = None,
    **shown: Any,
) -> Edited:
    """Edit the picture of an inversion.

    Args:
        model: MODEL, which may have other patches than that of the inversion.
        inversion: the picture.
        scene: positive and negative conditioning of the picture that is wanted.
        words: how the edit is held back or driven on.
        mask: where the picture may change.
        cfg: guidance of the edit.
        source: conditioning of the inversion; needed only where a file was loaded and the network has to be asked.
        shown: `prepare` and `disable_pbar`.

    Raises:
        ValueError: another kind of model, a mask that is black everywhere, or a source that is needed and not there.
    """
    words = words.guided(cfg)
    given = mask.given if mask.given is not None or mask.auto else inversion.mask
    if words.plain and given is None and not mask.auto:
        return reconstruct(model, inversion, scene, cfg, **shown)
    _check(model, inversion)
    asks_source = words.randomness > 0 or bool(words.source_guidance)
    guiders = [guider(model, scene, cfg)]
    if asks_source:
        guiders.append(guider(model, _source(inversion, source), inversion.cfg))
    queries = _Walk(model, inversion, inversion.trajectory, **shown)
    pixels = None if given is None else _given(given, inversion)
    first: Displaced | None = None
    if pixels is None and mask.auto:
        first = _displaced(queries, guiders, words, None)
        height, width = inversion.z_0.shape[-2:]
        pixels = masks.from_evidence(first.evidence.cpu().float(), (_PIXELS * height, _PIXELS * width))
    if pixels is not None:
        pixels = masks.feathered(masks.grown(pixels, mask.grow), mask.feather)
    found = _displaced(queries, guiders, words, pixels)
    shown_mask = _everywhere(inversion) if pixels is None else pixels[:, 0].expand(len(inversion.z_0), -1, -1)
    return Edited(queries.samples(found.latents), shown_mask, found.passes + (first.passes if first else 0))


@dataclass
class _Walk:
    """Runs generators of queries on one inversion."""

    model: Any
    inversion: Inversion
    trajectory: Trajectory
    prepare: Callable[[int], Callback] | None = None
    disable_pbar: bool = False

    def run(self, guiders: list[Any], begin: Callable[[Tensor], Any], passes: int) -> Any:
        """What the queries of `begin` (from latents that say device and precision) return."""
        inversion = self.inversion
        return answered(
            guiders,
            inversion.samples,
            inversion.sigmas,
            lambda z: Job(begin(z), self.trajectory.table, passes),
            mask=inversion.mask,
            callback=self.prepare(passes) if self.prepare else None,
            disable_pbar=self.disable_pbar,
        )

    def samples(self, latents: Tensor) -> Tensor:
        """Latents in the model's space as nodes pass them on."""
        whole = latents.float().reshape(self.inversion.samples.shape)
        samples: Tensor = self.model.model.process_latent_out(whole)
        return samples.cpu()


def _displaced(queries: _Walk, guiders: list[Any], words: EditWords, mask: Tensor | None) -> Displaced:
    inversion = queries.inversion
    table, controls = inversion.table, words.controls(len(inversion.table))
    known = words.randomness == 0

    def begin(z: Tensor) -> Any:
        found = inversion.trajectory.mapped(lambda latents: latents.to(z))
        z_0 = inversion.z_0.to(z)
        source = inverted_source(found, z_0) if known else _renoised(inversion, z_0, found, words)
        coarse = None
        if mask is not None:
            height, width = z_0.shape[-2:]
            coarse = masks.on_latents(mask, (height, width)).to(z)
        return displace(table, source, controls, mask=coarse, layout=_layout(z_0))

    found: Displaced = queries.run(guiders, begin, count_passes(table, known, controls))
    return found


def _renoised(inversion: Inversion, z_0: Tensor, found: Trajectory, words: EditWords) -> Source:
    generators = [torch.Generator().manual_seed(words.seed) for _ in range(len(z_0))]
    fresh = white_noise(generators, z_0.shape[1:], steps=len(inversion.table), device=z_0.device).to(z_0)
    return renoised(inversion.table, z_0, fresh, words.randomness, found.step_latents)


def _layout(z_0: Tensor) -> Layout:
    """Films [batch, channel, frame, height, width] as maps with a channel per frame."""
    if z_0.ndim == 4:
        return MAPS
    shape = z_0.shape
    return Layout(lambda z: z.flatten(1, 2), lambda maps: maps.reshape(-1, *shape[1:]))


def _given(mask: Tensor, inversion: Inversion) -> Tensor:
    pixels = mask.detach().cpu().float().reshape(-1, 1, *mask.shape[-2:]).clamp(0, 1)
    count = len(inversion.z_0)
    if len(pixels) not in (1, count):
        raise ValueError(f"{len(pixels)} masks for {count} pictures: wire one for all, or one each")
    if not pixels.any():
        raise ValueError("the mask is black everywhere, so nothing may change: paint white where the edit belongs")
    return pixels


def _everywhere(inversion: Inversion) -> Tensor:
    height, width = inversion.z_0.shape[-2:]
    return torch.ones(len(inversion.z_0), _PIXELS * height, _PIXELS * width)


def _source(inversion: Inversion, given: Scene | None) -> Scene:
    scene = given or inversion.source
    if scene is None:
        raise ValueError(
            "this inversion was loaded from a file, which holds no conditioning: wire source, the conditioning that it "
            "was made with"
        )
    return scene


def _check(model: Any, inversion: Inversion) -> None:
    difference = inversion.model.difference(described(model))
    if difference:
        raise ValueError(f"this model is another one than that of the inversion: {difference}; wire the model of then")
