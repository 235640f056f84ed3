"""The metrics of PIE-Bench on cases whose value is known, and against the packages that define them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchmetrics.functional.image import lpips as reference
from torchmetrics.functional.multimodal import clip_score

from renoise import models
from renoise.evaluation.lpips import Lpips, SqueezeNetFeatures
from renoise.evaluation.networks import Networks
from renoise.evaluation.pie_metrics import BACKGROUND, CLIP, STRUCTURE, background, judged, scores
from renoise.evaluation.run_lengths import decode, encode
from renoise.evaluation.structure import Structure
from renoise.images import to_pil
from tests.helpers import metric_networks

NONE = Networks()


def noise(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def picture(seed: int, side: int = 512) -> Image.Image:
    return to_pil(noise(seed, 1, 3, side, side))[0]


def test_equal_pictures_have_no_distance() -> None:
    networks = Networks(structure=metric_networks.structure(), lpips=Lpips())
    found = scores(picture(0), picture(0), decode([0, 99]), "a", "b", networks)
    assert found["psnr_background"] == math.inf
    assert found["mse_background"] == found["lpips_background"] == 0
    assert found["ssim_background"] == pytest.approx(1)
    assert found["structure_published"] == found["structure_corrected"] == 0


def test_a_constant_shift_counts_by_the_share_of_the_background() -> None:
    """The mean goes over the whole frame, so MSE is shift^2 times the share of what is not to be edited."""
    before, region = torch.full((1, 3, 64, 64), 0.25), torch.zeros(64, 64)
    region[:16] = 1
    found = background(before, before + 0.5, region, NONE)
    assert found["mse_background"] == pytest.approx(0.25 * 0.75)
    assert found["psnr_background"] == pytest.approx(-10 * math.log10(0.25 * 0.75), abs=1e-4)


def test_what_changes_inside_the_mask_does_not_count() -> None:
    """A mask of one pixel: only that pixel may change."""
    before = noise(1, 1, 3, 32, 32)
    region = torch.zeros(32, 32)
    region[5, 7] = 1
    after = before.clone()
    after[..., 5, 7] = 1 - after[..., 5, 7]
    assert background(before, after, region, NONE)["mse_background"] == 0
    after[0, :, 5, 8] += 0.5
    assert background(before, after, region, NONE)["mse_background"] == pytest.approx(0.25 / 32**2)


def test_a_mask_of_everything_leaves_nothing_to_compare() -> None:
    found = scores(picture(0, 64), picture(1, 64), decode([0, 512 * 512]), "a", "b", NONE)
    assert not found.keys() & set(BACKGROUND)


def test_pictures_are_compared_at_the_size_of_the_mask() -> None:
    large, small = picture(2, 512), picture(2, 64)
    found = scores(large, small, decode([]), "a", "b", NONE)
    resized = small.resize((512, 512), Image.Resampling.LANCZOS)
    assert found == scores(large, resized, decode([]), "a", "b", NONE)


def test_lpips_is_that_of_torchmetrics() -> None:
    """The same features and layers through torchmetrics' own formula; it only lacks torchvision's features here."""
    distance = Lpips()
    theirs: Any = reference._LPIPS.__new__(reference._LPIPS)
    torch.nn.Module.__init__(theirs)
    theirs.scaling_layer, theirs.resize, theirs.spatial, theirs.L = reference.ScalingLayer(), None, False, 7
    theirs.net = distance.net
    theirs.lins = torch.nn.ModuleList(reference.NetLinLayer(len(weight)) for weight in distance.weights)
    for layer, weight in zip(theirs.lins, distance.weights, strict=True):
        layer.model[-1].weight.data = weight.data[None, :, None, None]
    a, b = (noise(seed, 2, 3, 63, 65) * 2 - 1 for seed in (0, 1))
    torch.testing.assert_close(distance(a, b), theirs(a, b).flatten())
    assert distance(a, b).shape == (2,)


def test_squeezenet_has_the_shapes_of_version_1_1() -> None:
    """1,235,496 parameters less the classifier's 513,000; and sides halved by strides and pools that round up."""
    features = SqueezeNetFeatures()
    assert sum(weight.numel() for weight in features.parameters()) == 1_235_496 - 513_000
    shapes = [tuple(found.shape[1:]) for found in features(noise(0, 1, 3, 224, 224))]
    assert shapes == [
        *((64, 111, 111), (128, 55, 55), (256, 27, 27)),
        *((384, 13, 13), (384, 13, 13), (512, 13, 13), (512, 13, 13)),
    ]


def test_clip_similarity_is_that_of_torchmetrics() -> None:
    clip = metric_networks.clip()

    class Features(torch.nn.Module):
        """What torchmetrics expects: vectors, as transformers handed them over up to version 4."""

        config = clip.network.config

        def get_image_features(self, pixels: Tensor) -> Tensor:
            return clip.network.get_image_features(pixels).pooler_output  # type: ignore[no-any-return]

        def get_text_features(self, ids: Tensor, attention: Tensor) -> Tensor:
            return clip.network.get_text_features(ids, attention).pooler_output  # type: ignore[no-any-return]

    def process(images: object = None, text: object = None, **keywords: object) -> object:
        return clip.prepare(images=images, return_tensors="pt") if text is None else clip.tokenizer(text, **keywords)

    pixels = [(noise(seed, 3, 40, 48) * 255).byte() for seed in range(3)]
    texts = ["cat", "a dog", "dog cat dog"]
    found = clip(torch.stack(pixels).float() / 255, texts)
    assert found.shape == (3,)
    for one, text, score in zip(pixels, texts, found, strict=True):
        theirs = clip_score(one, text, lambda: (Features(), process))  # type: ignore[arg-type, return-value]
        assert float(score) == pytest.approx(theirs.item(), abs=1e-3)


def test_long_texts_are_cut_for_clip() -> None:
    assert metric_networks.clip()(noise(0, 1, 3, 32, 32), ["cat " * 99]).isfinite().all()


def test_clip_sees_source_whole_and_the_edited_region_on_black() -> None:
    shown: list[Tensor] = []
    asked: list[list[str]] = []

    class Listener(torch.nn.Module):
        def forward(self, pixels: Tensor, texts: list[str]) -> Tensor:
            shown.append(pixels)
            asked.append(texts)
            return torch.tensor([1.0, 2.0, 3.0])

    mask = decode(encode(np.eye(512, dtype=bool)))
    found = scores(picture(0), picture(1), mask, "old", "new", Networks(clip=Listener()))  # type: ignore[arg-type]
    assert [found[name] for name in CLIP] == [1, 2, 3]
    assert asked == [["old", "new", "new"]]
    source, whole, part = shown[0]
    assert not torch.equal(source, whole)
    region = torch.from_numpy(mask)
    assert torch.equal(part[:, region], whole[:, region])
    assert (part[:, ~region] == 0).all()


def test_structure_is_the_self_similarity_of_the_last_keys() -> None:
    network = metric_networks.dino()
    pixels = noise(0, 2, 3, 224, 224)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    inputs: list[Tensor] = []
    keys: list[Tensor] = []
    projection = [module for name, module in network.named_modules() if name.split(".")[-1] in ("key", "k_proj")][-1]
    projection.register_forward_hook(lambda module, given, output: keys.append(output))
    network.register_forward_pre_hook(lambda module, given: inputs.append(given[0]))
    found = Structure(network).similarity(pixels, published=False)
    torch.testing.assert_close(inputs[0], (pixels - mean[:, None, None]) / std[:, None, None])
    assert found.shape == (2, 50, 50), "49 patches and the class token"
    expected = F.cosine_similarity(keys[0][:, :, None], keys[0][:, None], dim=-1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    Structure(network).similarity(pixels, published=True)
    torch.testing.assert_close(inputs[1], (255 * pixels - mean[:, None, None]) / std[:, None, None])


def test_structure_distance_is_the_mean_squared_difference_and_the_two_kinds_differ() -> None:
    structure = metric_networks.structure()
    a, b = noise(0, 2, 3, 64, 64), noise(1, 2, 3, 64, 64)
    for published in (True, False):
        difference = structure.similarity(a, published=published) - structure.similarity(b, published=published)
        torch.testing.assert_close(structure(a, b, published=published), difference.square().mean((1, 2)))
    found = scores(to_pil(a)[0], to_pil(b)[0], decode([]), "a", "b", Networks(structure=structure))
    assert found[STRUCTURE[0]] != found[STRUCTURE[1]]


def test_pictures_that_are_not_square_keep_their_proportions() -> None:
    assert metric_networks.structure().similarity(noise(0, 1, 3, 100, 150), published=False).shape == (1, 71, 71)


def test_a_network_without_keys_is_refused() -> None:
    with pytest.raises(TypeError, match="ViTModel"):
        Structure(torch.nn.Linear(1, 1))


def test_the_judge_prefers_what_a_picture_shows() -> None:
    with Image.open(models.EXAMPLE) as image:
        apple = image.convert("RGB")
    found = judged(apple, apple, "red apple, blob style", "airplane, openmoji style", models.judge())
    assert found["judge_hit"] == 0
    assert found["judge_source"] > found["judge_whole"]
    assert judged(apple, apple, "airplane, openmoji style", "red apple, blob style", models.judge())["judge_hit"] == 1
