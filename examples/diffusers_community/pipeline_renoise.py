# Licensed under the Apache License, Version 2.0.
"""Edit a real picture by ReNoise inversion (Garibi et al., ECCV 2024, https://arxiv.org/abs/2403.14602)."""

from dataclasses import dataclass

import PIL.Image
import renoise
import torch

from diffusers import DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.utils import BaseOutput


@dataclass
class ReNoisePipelineOutput(BaseOutput):
    """
    Args:
        images (`list[PIL.Image.Image]`): The edited pictures.
        inversion (`renoise.Inversion`): What they were made from. Hand it over as `inversion=` to edit again.
    """

    images: list[PIL.Image.Image]
    inversion: "renoise.Inversion"


class ReNoisePipeline(DiffusionPipeline):
    """Inverts a picture into Stable Diffusion or SDXL, few-step models included, and edits it with another prompt.

    The components are those of `StableDiffusionPipeline`, or of `StableDiffusionXLPipeline` where there is a second
    text encoder. A scheduler whose step cannot be inverted is refused with the line to type instead.
    """

    _optional_components = ["text_encoder_2", "tokenizer_2"]
    model_cpu_offload_seq = "text_encoder->text_encoder_2->unet->vae"

    def __init__(self, vae, text_encoder, tokenizer, unet, scheduler, text_encoder_2=None, tokenizer_2=None):
        super().__init__()
        self.register_modules(vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler)
        self.register_modules(text_encoder_2=text_encoder_2, tokenizer_2=tokenizer_2)

    def _stock(self):
        parts = {name: part for name, part in self.components.items() if part is not None}
        if self.text_encoder_2 is not None:
            stock = StableDiffusionXLPipeline(**parts, add_watermarker=False)
        else:
            unchecked = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
            stock = StableDiffusionPipeline(**parts, **unchecked)
        stock.set_progress_bar_config(**getattr(self, "_progress_bar_config", {}))
        return stock

    @torch.no_grad()
    def __call__(self, prompt, image=None, source_prompt=None, inversion=None, return_dict=True, **kwargs):
        """
        Args:
            prompt (`str` or `list[str]`): What the edited pictures shall show.
            image (`PIL.Image.Image`, path or array, or a list of them): What is inverted.
            source_prompt (`str` or `list[str]`): What that shows.
            inversion (`renoise.Inversion`): Of an earlier call, in place of `image` and `source_prompt`.
            return_dict (`bool`): Whether to return a [`ReNoisePipelineOutput`], or `(images, inversion)`.
            kwargs: Further keywords of `renoise.invert`, such as `num_inference_steps`, `guidance_scale`, `strength`,
                `preset`, `passes`, `seed`.
        """
        if (inversion is None) == (image is None):
            raise ValueError("Pass either `image` with its `source_prompt`, or `inversion` of an earlier call.")
        if inversion is None:
            inversion = renoise.invert(self._stock(), image, source_prompt, **kwargs)
        edited = inversion.edit(prompt)
        images = edited if isinstance(edited, list) else [edited]
        return ReNoisePipelineOutput(images, inversion) if return_dict else (images, inversion)
