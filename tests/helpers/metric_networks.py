"""Tiny networks of the real classes with seeded random weights, for the metrics of data sets."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel, ViTConfig, ViTModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from renoise.evaluation.clip import Clip
from renoise.evaluation.lpips import Lpips
from renoise.evaluation.structure import Structure
from tests.helpers.tiny import TOKENS, seeded, text_config, tokenizer

SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def clip() -> Clip:
    """CLIP for pictures of 32 pixels."""
    vision = {**SMALL, "image_size": 32, "patch_size": 8, "initializer_range": 1.0}
    with seeded(3):
        network = CLIPModel(CLIPConfig(text_config=text_config().to_dict(), vision_config=vision, projection_dim=8))
        network.requires_grad_(False)
    sides = {"height": 32, "width": 32}
    return Clip(network.eval(), tokenizer(), CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=sides))


def dino() -> ViTModel:
    """A vision transformer with patches of 32 pixels."""
    with seeded(4):
        config = ViTConfig(**SMALL, image_size=224, patch_size=32, initializer_range=0.5)
        return ViTModel(config, add_pooling_layer=False).eval()


def structure() -> Structure:
    return Structure(dino())


def squeezenet(path: Path) -> Path:
    """Random weights of SqueezeNet 1.1 in a file like torchvision's, which has a classifier too."""
    with seeded(5):
        features = Lpips().net.state_dict()
        stored = {name: value.clone() for name, value in features.items()}
        stored["classifier.1.weight"] = torch.zeros(1000, 512, 1, 1)
    torch.save(stored, path)
    return path


def save_clip(folder: Path) -> Path:
    """The tiny CLIP as a folder that transformers reads."""
    made = clip()
    for part in (made.network, made.tokenizer, made.prepare):
        part.save_pretrained(folder)
    assert made.network.config.text_config.max_position_embeddings == TOKENS
    return folder
