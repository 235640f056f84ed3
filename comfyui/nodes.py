"""The nodes, in ComfyUI's V3 schema: what they take, what they give, and which function does it."""

from __future__ import annotations

from typing import Any

import comfy.samplers
import comfy.utils
import latent_preview
import numpy as np
import torch
from comfy_api.latest import io, ui
from torch import Tensor

from renoise.edit_controls import PRESERVE, words

from . import edit, emoji, inversion, report, rows

__all__ = ["NODES", "InversionType"]

CATEGORY = "renoise"
InversionType = io.Custom("RENOISE_INVERSION")
_SEEDS = 2**64 - 1


class Invert(io.ComfyNode):  # type: ignore[misc]
    """Finds the noise from which a sampler makes the picture."""

    @classmethod
    def define_schema(cls) -> Any:
        """Inputs and outputs."""
        return io.Schema(
            node_id="RenoiseInvert",
            display_name="ReNoise Invert",
            category=CATEGORY,
            description="Finds the noise from which your model makes this picture. Few-step models: 4 steps, "
            "euler_ancestral or lcm. Others: 20 steps or more, euler.",
            inputs=[
                io.Model.Input("model"),
                io.Conditioning.Input("positive", tooltip="What the picture shows."),
                io.Latent.Input("latent", tooltip="The picture, from VAE Encode."),
                io.Combo.Input("sampler_name", options=list(rows.KNOWN), default="euler"),
                io.Combo.Input("scheduler", options=list(comfy.samplers.SCHEDULER_NAMES), default="simple"),
                io.Int.Input("steps", default=25, min=1, max=1000),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of the schedule that is inverted; lower keeps more of the picture in later edits.",
                ),
                io.Float.Input(
                    "cfg",
                    default=1.0,
                    min=1.0,
                    max=30.0,
                    step=0.1,
                    tooltip="Guidance while inverting; 1 is none, and best for most models.",
                ),
                io.Combo.Input("preset", options=list(inversion.PRESET_NAMES), default="auto"),
                io.Int.Input(
                    "passes", default=0, min=0, max=100000, tooltip="Network passes in all; 0 for those of the preset."
                ),
                _seed("Of the noise that the sampler adds."),
                io.Conditioning.Input("negative", optional=True, tooltip="Counts where cfg is above 1."),
                io.Sampler.Input("sampler", optional=True, tooltip="In place of sampler_name."),
                io.Sigmas.Input("sigmas", optional=True, tooltip="In place of scheduler, steps and denoise."),
            ],
            outputs=[InversionType.Output(display_name="inversion"), io.String.Output(display_name="report")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: Any,
        latent: dict[str, Any],
        sampler_name: str,
        scheduler: str,
        steps: int,
        denoise: float,
        cfg: float,
        preset: str,
        passes: int,
        seed: int,
        negative: Any = None,
        sampler: Any = None,
        sigmas: Tensor | None = None,
    ) -> Any:
        """Runs it."""
        if sigmas is None:
            sampling = model.get_model_object("model_sampling")
            whole = comfy.samplers.calculate_sigmas(sampling, scheduler, max(steps, int(steps / denoise))).cpu()
            sigmas = whole[-(steps + 1) :]
        found = inversion.invert(
            model,
            (positive, negative),
            latent,
            comfy.samplers.sampler_object(sampler_name) if sampler is None else sampler,
            sigmas,
            preset=preset,
            passes=passes,
            cfg=cfg,
            seed=seed,
            **_shown(model),
        )
        return io.NodeOutput(found, report.text(found))


class Edit(io.ComfyNode):  # type: ignore[misc]
    """Makes the picture with another conditioning."""

    @classmethod
    def define_schema(cls) -> Any:
        """Inputs and outputs."""
        return io.Schema(
            node_id="RenoiseEdit",
            display_name="ReNoise Edit",
            category=CATEGORY,
            description="Makes the inverted picture with another prompt. Without a prompt it reconstructs the picture.",
            inputs=[
                io.Model.Input("model"),
                InversionType.Input("inversion"),
                io.Conditioning.Input("positive", optional=True, tooltip="What the picture shall show."),
                io.Float.Input("cfg", default=1.0, min=1.0, max=30.0, step=0.1, tooltip="Guidance; 1 is none."),
                io.Float.Input(
                    "preserve",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How much stays where the prompts agree: "
                    + ", ".join(f"{value:g} {name}" for name, value in PRESERVE.items()),
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of the steps that are edited, counted from the picture.",
                ),
                io.Float.Input(
                    "source_guidance",
                    default=-1.0,
                    min=-1.0,
                    max=10.0,
                    step=0.1,
                    tooltip="How far the edit is pushed away from the prompt of the inversion, which costs passes; "
                    "-1: what suits preserve and cfg.",
                ),
                io.Float.Input(
                    "randomness",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Share of fresh noise, for several versions of an edit. Costs passes.",
                ),
                _seed("Of the fresh noise."),
                io.Boolean.Input("auto_mask", default=False, tooltip="Change only where the prompts disagree."),
                io.Int.Input("mask_grow", default=0, min=-512, max=512, tooltip="Pixels."),
                io.Int.Input("mask_feather", default=0, min=0, max=512, tooltip="Pixels."),
                io.Conditioning.Input("negative", optional=True, tooltip="Counts where cfg is above 1."),
                io.Mask.Input("mask", optional=True, tooltip="White where the picture may change."),
                io.Conditioning.Input(
                    "source", optional=True, tooltip="Prompt of the inversion; needed after loading it from a file."
                ),
                io.Conditioning.Input("source_negative", optional=True),
            ],
            outputs=[io.Latent.Output(display_name="latent"), io.Mask.Output(display_name="used_mask")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        inversion: inversion.Inversion,
        cfg: float,
        preserve: float,
        strength: float,
        source_guidance: float,
        randomness: float,
        seed: int,
        auto_mask: bool,
        mask_grow: int,
        mask_feather: int,
        positive: Any = None,
        negative: Any = None,
        mask: Tensor | None = None,
        source: Any = None,
        source_negative: Any = None,
    ) -> Any:
        """Runs it."""
        asked = words(preserve, strength, None if source_guidance < 0 else source_guidance, randomness, seed)
        of_source = None if source is None else (source, source_negative)
        if positive is None:
            made = edit.reconstruct(model, inversion, of_source, **_shown(model))
        else:
            made = edit.edit(
                model,
                inversion,
                (positive, negative),
                asked,
                edit.MaskWords(mask, auto_mask, mask_grow, mask_feather),
                cfg=cfg,
                source=of_source,
                **_shown(model),
            )
        return io.NodeOutput({"samples": made.samples}, made.mask)


class Report(io.ComfyNode):  # type: ignore[misc]
    """How an inversion went."""

    @classmethod
    def define_schema(cls) -> Any:
        """Inputs and outputs."""
        return io.Schema(
            node_id="RenoiseReport",
            display_name="ReNoise Report",
            category=CATEGORY,
            description="Passes, residuals and whiteness of every step; with a reconstruction (ReNoise Edit without a "
            "prompt) its PSNR, and with a VAE that of its pixels.",
            is_output_node=True,
            inputs=[
                InversionType.Input("inversion"),
                io.Latent.Input("reconstruction", optional=True),
                io.Vae.Input("vae", optional=True),
            ],
            outputs=[io.String.Output(display_name="text"), io.Image.Output(display_name="picture")],
        )

    @classmethod
    def execute(cls, inversion: inversion.Inversion, reconstruction: Any = None, vae: Any = None) -> Any:
        """Runs it."""
        pictures, decoded = [report.picture(inversion)], None
        latents = None if reconstruction is None else reconstruction["samples"]
        if latents is not None and vae is not None:
            both = [vae.decode(samples) for samples in (inversion.samples, latents)]
            compared, decoded = report.panels(*(pixels.reshape(-1, *pixels.shape[-3:]) for pixels in both))
            pictures.append(compared)
        text = report.text(inversion, latents, decoded)
        picture = torch.from_numpy(np.asarray(report.stacked(pictures)).copy())[None].float() / 255
        shown = ui.PreviewImage(picture, cls=cls).as_dict() | ui.PreviewText(text).as_dict()
        return io.NodeOutput(text, picture, ui=shown)


class EmojiModel(io.ComfyNode):  # type: ignore[misc]
    """The models that ship with the package."""

    @classmethod
    def define_schema(cls) -> Any:
        """Inputs and outputs."""
        return io.Schema(
            node_id="RenoiseEmojiModel",
            display_name="ReNoise Emoji Model",
            category=CATEGORY,
            description="A small text-to-emoji model that comes with renoise, to try the nodes with. "
            "emoji-turbo: 4 steps of euler_ancestral or lcm, cfg 1. emoji: 50 steps of euler, cfg 4.",
            inputs=[io.Combo.Input("name", options=list(emoji.NAMES), default="emoji-turbo")],
            outputs=[io.Model.Output(), io.Clip.Output(), io.Vae.Output()],
        )

    @classmethod
    def execute(cls, name: str) -> Any:
        """Runs it."""
        return io.NodeOutput(*emoji.load(name))


def _seed(tooltip: str) -> Any:
    """A seed that stays as it is, since one that the editor draws for every run would invert anew each time."""
    return io.Int.Input("seed", default=0, min=0, max=_SEEDS, control_after_generate=False, tooltip=tooltip)


def _shown(model: Any) -> dict[str, Any]:
    """Previews and progress as ComfyUI's own nodes show them."""
    return {
        "prepare": lambda passes: latent_preview.prepare_callback(model, passes),
        "disable_pbar": not comfy.utils.PROGRESS_BAR_ENABLED,
    }


NODES = (Invert, Edit, Report, EmojiModel)
