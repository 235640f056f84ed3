"""Writes tiny checkpoints with random weights in ComfyUI's format, by ComfyUI's own model classes.

Run by `launch.py` with ComfyUI on the path: `python launch.py checkpoints.py FOLDER`.  The architectures are about the
smallest that ComfyUI's model detection takes for a Stable Diffusion 1.5, whose width it fixes, and for a Stable
Diffusion 3, which is 128 wide here.
"""

import sys
from pathlib import Path
from typing import Any

sys.argv, folder = [sys.argv[0], "--cpu"], Path(sys.argv[1])

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.cldm.cldm  # noqa: E402
import comfy.ops  # noqa: E402
import torch  # noqa: E402
from comfy.ldm.modules.diffusionmodules.mmdit import MMDiT  # noqa: E402
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

UNET: dict[str, Any] = {
    "image_size": 32,
    "in_channels": 4,
    "model_channels": 320,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 1],
    "transformer_depth": [0, 1],
    "transformer_depth_middle": 1,
    "use_spatial_transformer": True,
    "context_dim": 768,
    "num_heads": 8,
    "num_head_channels": -1,
    "legacy": False,
    "operations": comfy.ops.disable_weight_init,
    "device": "cpu",
    "dtype": torch.float32,
}
OUT = {"out_channels": 4, "transformer_depth_output": [0, 0, 1, 1]}
MMDIT: dict[str, Any] = {
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 2,
    "depth": 2,
    "input_size": None,
    "adm_in_channels": 64,
    "num_patches": 32 * 32,
    "pos_embed_max_size": 32,
    "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": 64, "out_features": 128}},
    "operations": comfy.ops.disable_weight_init,
    "device": "cpu",
    "dtype": torch.float32,
}


def filled(model: torch.nn.Module, seed: int, scale: float = 1.0) -> dict[str, torch.Tensor]:
    """Random weights that keep the size of what goes through, but for a weak last layer: networks vary gently."""
    draw = torch.Generator().manual_seed(seed)
    weights = {}
    for name, value in model.state_dict().items():
        drawn = torch.randn(value.shape, generator=draw)
        if value.ndim > 1:
            last = 0.2 if name in ("out.2.weight", "final_layer.linear.weight") else 1.0
            weights[name] = last * scale * drawn / value[0].numel() ** 0.5
        else:
            weights[name] = 1 + 0.1 * drawn if name.endswith("weight") else 0.1 * drawn
    return weights


def low_rank(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A LoRA for every self-attention query of the UNet, in the names of kohya."""
    draw = torch.Generator().manual_seed(3)
    found = {}
    for name, value in weights.items():
        if name.endswith("attn1.to_q.weight"):
            key = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
            found[f"{key}.lora_up.weight"] = torch.randn(len(value), 4, generator=draw) * 0.3
            found[f"{key}.lora_down.weight"] = torch.randn(4, value.shape[1], generator=draw) * 0.3
            found[f"{key}.alpha"] = torch.tensor(4.0)
    return found


def main() -> None:
    for name in ("checkpoints", "loras", "controlnet"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    prefix = "model.diffusion_model."
    unet = filled(UNetModel(**UNET, **OUT), 1)
    save_file({prefix + name: value for name, value in unet.items()}, folder / "checkpoints/tiny-sd.safetensors")
    save_file(low_rank(unet), folder / "loras/tiny.safetensors")
    mmdit = filled(MMDiT(**MMDIT), 2)
    save_file({prefix + name: value for name, value in mmdit.items()}, folder / "checkpoints/tiny-sd3.safetensors")
    control = filled(comfy.cldm.cldm.ControlNet(**UNET, hint_channels=3), 4, 0.7)
    save_file(
        {"control_model." + name: value for name, value in control.items()}, folder / "controlnet/tiny.safetensors"
    )


main()
