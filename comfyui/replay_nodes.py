"""The nodes that hand an inversion to ComfyUI's own SamplerCustomAdvanced."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from . import stock
from .inversion import Inversion
from .nodes import CATEGORY, InversionType

__all__ = ["NODES"]


class ReplaySampler(io.ComfyNode):  # type: ignore[misc]
    """The sampler of an inversion for SamplerCustomAdvanced."""

    @classmethod
    def define_schema(cls) -> Any:
        """Inputs and outputs."""
        return io.Schema(
            node_id="RenoiseReplaySampler",
            display_name="ReNoise Replay Sampler",
            category=CATEGORY,
            description="ComfyUI's own sampler, which adds the noise that the inversion found. For "
            "SamplerCustomAdvanced, together with ReNoise Replay Noise.",
            inputs=[InversionType.Input("inversion")],
            outputs=[io.Sampler.Output(display_name="sampler"), io.Sigmas.Output(display_name="sigmas")],
        )

    @classmethod
    def execute(cls, inversion: Inversion) -> Any:
        """Runs it."""
        return io.NodeOutput(stock.replay_sampler(inversion), inversion.sigmas.clone())


class ReplayNoise(io.ComfyNode):  # type: ignore[misc]
    """The starting noise of an inversion for SamplerCustomAdvanced."""

    @classmethod
    def define_schema(cls) -> Any:
        """Inputs and outputs."""
        return io.Schema(
            node_id="RenoiseReplayNoise",
            display_name="ReNoise Replay Noise",
            category=CATEGORY,
            description="The noise from which ComfyUI's own sampler makes the inverted picture, and its latent.",
            inputs=[InversionType.Input("inversion")],
            outputs=[io.Noise.Output(display_name="noise"), io.Latent.Output(display_name="latent")],
        )

    @classmethod
    def execute(cls, inversion: Inversion) -> Any:
        """Runs it."""
        latent = {"samples": inversion.samples.clone()}
        if inversion.mask is not None:
            latent["noise_mask"] = inversion.mask
        return io.NodeOutput(stock.ReplayNoise(inversion), latent)


NODES = (ReplayNoise, ReplaySampler)
