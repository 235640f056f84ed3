"""The models that ship with the package (text to emoji) as ComfyUI's MODEL, CLIP and VAE.

They let anybody try the nodes without a download, and `comfyui.proof` compares ComfyUI with the package on them.  The
UNet runs as ComfyUI's own, its weights renamed by ComfyUI's own table, so guidance, patches and samplers treat it like
a checkpoint of Stable Diffusion.  Text encoder and auto-encoder stay those of the package, because the sizes of
ComfyUI's are fixed.  So prompts take no weights like (word:1.2).
"""

from __future__ import annotations

from typing import Any

import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models_base
import comfy.utils
import torch
from comfy.latent_formats import LatentFormat
from torch import Tensor, nn

from renoise import models
from renoise.shipped import SHIPPED

__all__ = ["NAMES", "load"]

NAMES = tuple(name for name in models.NAMES if not SHIPPED[name].lora)  # ComfyUI's own UNet knows no adapters of peft


class _Config(comfy.supported_models_base.BASE):  # type: ignore[misc]
    """How ComfyUI runs the UNet; sampling is that of Stable Diffusion, which is ComfyUI's default."""

    unet_extra_config = {"num_heads": 4, "num_head_channels": -1}  # noqa: RUF012 - what ComfyUI's classes have

    def __init__(self, unet_config: dict[str, Any]) -> None:
        super().__init__(unet_config)
        # latents that ComfyUI takes as they are: the auto-encoder's scale is 1
        self.latent_format = LatentFormat()
        self.latent_format.scale_factor, self.latent_format.latent_channels = 1.0, unet_config["in_channels"]


class EmojiModel(comfy.model_base.BaseModel):  # type: ignore[misc]
    """ComfyUI's model class for it: what the UNet adds to its time embedding comes with the conditioning."""

    def encode_adm(self, **kwargs: Any) -> Tensor:
        """The pooled text, as `_Text` computed it."""
        pooled: Tensor = kwargs["pooled_output"]
        return pooled


class _Text:
    """What CLIP Text Encode asks of a CLIP."""

    def __init__(self, pipe: Any) -> None:
        self._tokenizer, self._encoder, self._pooling = pipe.tokenizer, pipe.text_encoder, pipe.unet.add_embedding

    def tokenize(self, text: str, **_: Any) -> Tensor:
        """Token ids [1, 24]."""
        length = self._tokenizer.model_max_length
        tokens = self._tokenizer(text, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        ids: Tensor = tokens.input_ids
        return ids

    @torch.no_grad()
    def encode_from_tokens_scheduled(self, tokens: Tensor, *_: Any, **__: Any) -> list[list[Any]]:
        """A CONDITIONING of ComfyUI."""
        hidden = self._encoder(tokens)[0].float()
        return [[hidden, {"pooled_output": self._pooling(hidden)}]]


class _AutoEncoder(nn.Module):
    """The auto-encoder with the two methods that ComfyUI's VAE calls."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def encode(self, pixels: Tensor) -> Tensor:
        """Latents [batch, channels, h, w] of pixels [batch, 3, H, W] in [-1, 1]: the mode, without noise."""
        latents: Tensor = self.vae.encode(pixels).latent_dist.mode()
        return latents

    def decode(self, latents: Tensor, **_: Any) -> Tensor:
        """Pixels of latents."""
        pixels: Tensor = self.vae.decode(latents, return_dict=False)[0]
        return pixels


def load(name: str) -> tuple[Any, Any, Any]:
    """MODEL, CLIP and VAE of one of the models in `NAMES`."""
    pipe = models.load(name)
    return _model(pipe.unet), _Text(pipe), _vae(pipe.vae, pipe.vae_scale_factor)


def _model(unet: Any) -> Any:
    channels, depth = unet.config.block_out_channels, [0, 1, 1]
    config = {
        "image_size": 32,
        "in_channels": unet.config.in_channels,
        "out_channels": unet.config.out_channels,
        "model_channels": channels[0],
        "channel_mult": [width // channels[0] for width in channels],
        "num_res_blocks": [unet.config.layers_per_block] * len(channels),
        "transformer_depth": depth,
        "transformer_depth_output": [level for level in depth for _ in range(2)],
        "transformer_depth_middle": 1,
        "use_spatial_transformer": True,
        "use_linear_in_transformer": False,
        "legacy": False,
        "context_dim": unet.config.cross_attention_dim,
        "num_classes": "sequential",
        "adm_in_channels": 4 * channels[0],
    }
    weights = unet.state_dict()
    names = comfy.utils.unet_to_diffusers(config)
    renamed = {names[key]: value for key, value in weights.items() if key in names}
    left = [key for key in weights if key not in names and not key.startswith("add_embedding.")]
    if left:
        raise RuntimeError(f"this ComfyUI has no names for {left[:3]}: use another version, see docs/comfyui.md")
    wanted = _Config(config)
    wanted.set_inference_dtype(torch.float32, None)
    model = EmojiModel(wanted)
    model.diffusion_model.label_emb = nn.Identity()  # `_Text` computed the embedding whole
    model.load_model_weights(renamed)
    management = comfy.model_management
    return comfy.model_patcher.ModelPatcher(
        model.eval(), load_device=management.get_torch_device(), offload_device=management.unet_offload_device()
    )


def _vae(vae: Any, factor: int) -> Any:
    """ComfyUI's VAE around the auto-encoder.  The one that it is made with is the smallest there is, and is dropped.

    Args:
        vae: the auto-encoder.
        factor: side of a picture over that of its latents.
    """
    channels = vae.config.latent_channels
    sizes = {"double_z": True, "z_channels": channels, "resolution": 32, "in_channels": 3, "out_ch": 3, "ch": 32}
    small = {**sizes, "ch_mult": [1], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0}
    made = comfy.sd.VAE(sd={}, config={"params": {"ddconfig": small, "embed_dim": channels}}, dtype=torch.float32)
    made.downscale_ratio = made.upscale_ratio = factor
    made.latent_channels = channels
    made.first_stage_model = _AutoEncoder(vae).eval()
    made.patcher = comfy.model_patcher.ModelPatcher(
        made.first_stage_model, load_device=made.device, offload_device=comfy.model_management.vae_offload_device()
    )
    return made
