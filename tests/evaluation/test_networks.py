"""Networks of metrics: from folders, files and modules, and what is said where they are not to be had."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from renoise.evaluation.lpips import Lpips
from renoise.evaluation.networks import Networks, load
from tests.helpers import metric_networks


def test_networks_load_from_folders_and_files(tmp_path: Path) -> None:
    folder = metric_networks.save_clip(tmp_path / "clip")
    metric_networks.dino().save_pretrained(tmp_path / "dino")
    file = metric_networks.squeezenet(tmp_path / "squeezenet.pth")
    found = load(str(folder), str(tmp_path / "dino"), str(file))
    assert found.missing == ()
    assert dict(found.names) == {"clip": str(folder), "structure": str(tmp_path / "dino"), "lpips": str(file)}
    assert found.clip is not None
    assert found.structure is not None
    assert found.lpips is not None
    pixels, other = torch.rand(2, 1, 3, 64, 64)
    torch.testing.assert_close(found.clip(pixels, ["cat"]), metric_networks.clip()(pixels, ["cat"]))
    own = metric_networks.structure()(pixels, other, published=True)
    assert torch.equal(found.structure(pixels, other, published=True), own)
    assert found.lpips(pixels, other).item() > 0
    assert isinstance(found.to(torch.device("cpu")), Networks)


def test_the_weights_of_the_layers_are_those_that_torchmetrics_brings(tmp_path: Path) -> None:
    found = Lpips.load(metric_networks.squeezenet(tmp_path / "squeezenet.pth"))
    assert [weight.numel() for weight in found.weights] == [64, 128, 256, 384, 384, 512, 512]
    assert all((weight >= 0).all() for weight in found.weights), "learned to be no less than 0"
    assert not any(parameter.requires_grad for parameter in found.parameters())


def test_networks_may_be_modules() -> None:
    clip, dino, lpips = metric_networks.clip(), metric_networks.dino(), Lpips()
    found = load(clip, dino, lpips)
    assert found.clip is clip
    assert found.lpips is lpips
    assert found.structure is not None
    assert found.structure.network is dino


def test_what_is_missing_is_said_with_a_remedy(offline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    found = load(str(tmp_path / "nothing"), str(tmp_path / "nothing"))
    assert (found.clip, found.structure, found.lpips, found.names) == (None, None, None, ())
    clip, structure, lpips = found.missing
    assert clip.startswith("CLIP similarity is left out")
    assert "openai/clip-vit-large-patch14" in clip
    assert "--clip" in clip
    assert structure.startswith("structure distance is left out")
    assert "--dino" in structure
    assert lpips.startswith("LPIPS is left out")
    assert "squeezenet1_1-b8a52dc0.pth" in lpips


def test_other_weights_are_no_squeezenet(tmp_path: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("no weights")
    for name, reason in (("other.pth", "SqueezeNet 1.1"), ("text.pth", "no file of weights"), ("none.pth", "No such")):
        found = load("none", "none", tmp_path / name)
        assert found.lpips is None
        assert reason in found.missing[0]


def test_none_leaves_a_metric_out_without_a_word() -> None:
    assert load("none", "none", "none") == Networks()
