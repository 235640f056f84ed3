"""Everything that an inversion found, without the pipeline: plain data that may cross to another process.

`renoise.archive` turns a `Record` into bytes and back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor

from renoise.core.settings import Settings
from renoise.core.trajectory import Trajectory
from renoise.images import Box

__all__ = ["Driver", "Identity", "Record", "Scene"]

Driver = Literal["direct", "pipeline"]


@dataclass(frozen=True, eq=False)
class Scene:
    """What a pipeline is to show, one prompt per picture, and how it is asked.

    Attributes:
        prompts: one per picture, or None where `pipe_kwargs` holds embeddings.
        negative_prompts: one per picture, or None for the pipeline's default; they count under guidance only.
        guidance_scale: 1 for none, or more.
        pipe_kwargs: further keywords of the pipeline's own call.
    """

    prompts: tuple[str, ...] | None
    negative_prompts: tuple[str, ...] | None
    guidance_scale: float
    pipe_kwargs: Mapping[str, Any]


@dataclass(frozen=True)
class Identity:
    """What tells one pipeline from another, whatever precision it is in, and where it came from.

    Attributes:
        pipeline: name of its class.
        source: the folder or hub name that it was loaded from, if any.
        architecture: sixteen hexadecimal digits that change with the configuration of its denoiser.
        weights: some numbers of the weights of its denoiser and of each text encoder, by component.
        quantised: the components of which some weights are quantised, so that they are known less exactly.
        sampling: which numbers `weights` holds: 2 for those of every parameter, 1 for the sixteen numbers of eight
            weights that files of format 1 have; see `renoise.pipelines.identity`.
    """

    pipeline: str
    source: str | None
    architecture: str
    weights: Mapping[str, tuple[float, ...]]
    quantised: tuple[str, ...] = ()
    sampling: int = 2


@dataclass(frozen=True, eq=False)
class Record:
    """A picture (or a batch of B pictures) as the noise from which a pipeline regenerates it.

    Attributes:
        identity: the pipeline that it was made with.
        model: which embedded model that is, or None for a pipeline of the user's own.
        scheduler: name of the class of the scheduler that it was made with.
        settings: the settings that were used.
        scene: what it was inverted with: prompts, guidance, further keywords of the pipeline's call.
        driver: "direct" where the networks were called directly, "pipeline" where the pipeline's own loop was used.
        trajectory: the sampler's steps as measured then, latents z_T (B, C, h, w), the sampler's noises, passes, and
            the report of every step.
        z_0: latents of the picture itself (B, C, h, w), float32.
        pixels: the picture as the model saw it, (B, 3, H, W) in [0, 1].
        boxes: where the picture lies inside its padding, per picture.
        seconds: wall time of the inversion.
        batched: whether a list went in, so that a list comes out.
    """

    identity: Identity
    model: str | None
    scheduler: str
    settings: Settings
    scene: Scene
    driver: Driver
    trajectory: Trajectory
    z_0: Tensor
    pixels: Tensor
    boxes: tuple[Box, ...]
    seconds: float
    batched: bool

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels, padding included."""
        height, width = self.pixels.shape[-2:]
        return height, width

    def only(self, rows: Sequence[int]) -> Record:
        """A batch of some of the pictures: those of these rows, in this order.

        The seconds are shared evenly among pictures, and passes count as in the whole batch.

        Raises:
            ValueError: it was made with keywords of the pipeline's own call, which cannot be divided.
        """
        if self.scene.pipe_kwargs:
            raise ValueError(
                f"an inversion with pipe_kwargs ({', '.join(sorted(self.scene.pipe_kwargs))}) cannot be divided: "
                "invert its pictures one by one"
            )
        chosen = list(rows)
        return replace(
            self,
            scene=replace(
                self.scene,
                prompts=_some(self.scene.prompts, chosen),
                negative_prompts=_some(self.scene.negative_prompts, chosen),
            ),
            trajectory=self.trajectory.only(chosen),
            z_0=self.z_0[chosen].contiguous(),
            pixels=self.pixels[chosen].contiguous(),
            boxes=tuple(self.boxes[row] for row in chosen),
            seconds=self.seconds / len(self.boxes) * len(chosen),
            batched=True,
        )

    def singles(self) -> list[Record]:
        """The pictures one by one, each as the record of a single picture.  Raises ValueError as `only` does."""
        return [replace(self.only([row]), batched=False) for row in range(len(self.boxes))]


def _some(texts: tuple[str, ...] | None, rows: Sequence[int]) -> tuple[str, ...] | None:
    return None if texts is None else tuple(texts[row] for row in rows)
