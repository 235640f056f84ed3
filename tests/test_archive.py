"""An inversion in a file: what comes back, what is refused, and what happens to the file when writing fails."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import renoise
from renoise import archive, models
from renoise.archive import ArchiveError
from renoise.core.settings import EditLosses, Region, Settings, window
from renoise.pipelines.loading import network_dtype
from tests.helpers import tiny

SETTINGS = Settings(
    regions=(Region(0.4, 1, window(1, 2, 1)), Region()),
    edit_losses=EditLosses(lambda_pair=1, lambda_kl=0.05, steps=1, rolls=1),
    correction=float("inf"),
    num_inference_steps=2,
    guidance_scale=2.0,
)
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 32, 3), dtype=np.uint8))


def inverted(pipe: Any, **options: Any) -> renoise.Inversion:
    return renoise.invert(pipe, PICTURE, "a cat", preset=SETTINGS, **options)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made with tiny.sd and ancestral Euler."""
    path = tmp_path_factory.mktemp("saved") / "cat.safetensors"
    inverted(tiny.sd(tiny.euler_ancestral())).save(path)
    return path


@pytest.fixture(scope="module")
def saved_embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pipe = models.load("emoji-turbo", scheduler="LCMScheduler")
    pipe.set_progress_bar_config(disable=True)
    path = tmp_path_factory.mktemp("saved") / "embedded.safetensors"
    inverted(pipe).save(path)
    return path


def rewritten(source: Path, target: Path, change: Callable[[dict[str, Any], dict[str, Tensor]], object]) -> Path:
    """A copy whose header and tensors were changed."""
    with safe_open(source, "pt") as file:
        header = json.loads(file.metadata()["renoise"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(header, tensors)
    save_file(tensors, target, {"renoise": json.dumps(header)})
    return target


@pytest.mark.parametrize("make", [tiny.sd, tiny.sdxl, tiny.lcm], ids=["sd", "sdxl", "lcm"])
def test_everything_comes_back(make: Callable[[], Any], tmp_path: Path) -> None:
    negatives: dict[str, Any] = {} if make is tiny.lcm else {"negative_prompt": "ugly"}
    before = renoise.invert(make(), [PICTURE, PICTURE], ["a cat", "a dog"], preset=SETTINGS, **negatives)
    before.save(tmp_path / "new folder" / "both.safetensors")
    after = renoise.load(tmp_path / "new folder" / "both.safetensors", make())
    one, two = before.reconstruct(), after.reconstruct()
    assert [picture.tobytes() for picture in one] == [picture.tobytes() for picture in two]
    assert before.edit("a dog")[0].tobytes() == after.edit("a dog")[0].tobytes()
    assert asdict(after.settings) == asdict(SETTINGS)
    assert after.scene == before.scene or asdict(after.scene) == asdict(before.scene)
    for name in ("scheduler", "driver", "boxes", "seconds", "batched", "identity"):
        assert getattr(after.record, name) == getattr(before.record, name)
    for name in ("latents", "z_0", "pixels"):
        assert torch.equal(getattr(after, name), getattr(before, name))
    for was, is_ in zip(before.trajectory.steps, after.trajectory.steps, strict=True):
        assert (was.step, was.timestep, was.level, was.passes) == (is_.step, is_.timestep, is_.level, is_.passes)
        for name in ("residuals", "noise_travel", "noise_std", "noise_correlation"):
            old, new = getattr(was, name), getattr(is_, name)
            assert (old is new is None) or torch.equal(old, new)


def test_part_of_a_schedule_comes_back(tmp_path: Path) -> None:
    before = inverted(tiny.sd(), strength=0.5)
    before.save(tmp_path / "half.safetensors")
    after = renoise.load(tmp_path / "half.safetensors", tiny.sd())
    assert len(after.table) == 1
    assert after.reconstruct().tobytes() == before.reconstruct().tobytes()


def test_an_embedded_model_is_found_again_with_its_scheduler(saved_embedded: Path) -> None:
    after = renoise.load(saved_embedded)
    assert models.name_of(after.pipe) == "emoji-turbo"
    assert after.record.scheduler == type(after.pipe.scheduler).__name__ == "LCMScheduler"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_precision_of_the_pipeline_may_differ(dtype: str, saved: Path, saved_embedded: Path) -> None:
    pipe = models.load("emoji-turbo", dtype=dtype, scheduler="LCMScheduler")
    assert renoise.load(saved_embedded, pipe).pipe is pipe
    other = tiny.sd(tiny.euler_ancestral()).to(network_dtype(dtype))
    assert renoise.load(saved, other).latents.dtype == torch.float32


def test_the_scheduler_is_that_of_the_inversion_not_of_the_pipeline_when_saving(tmp_path: Path) -> None:
    pipe = tiny.sd()
    inv = inverted(pipe)
    pipe.scheduler = tiny.lcm_scheduler()
    inv.save(tmp_path / "cat.safetensors")
    assert renoise.load(tmp_path / "cat.safetensors", tiny.sd()).record.scheduler == "DDIMScheduler"


# --- pipelines that it was not made with ---


def _fine_tuned(name: str) -> Any:
    pipe = tiny.sd(tiny.euler_ancestral())
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in getattr(pipe, name).parameters():
            weight += 0.03 * weight.std(correction=0) * torch.randn(weight.shape, generator=draw)
    return pipe


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tiny.sdxl(), "made with a StableDiffusionPipeline, not a StableDiffusionXLPipeline"),
        (lambda: "emoji", "made with a StableDiffusionPipeline, not a str"),
        (lambda: tiny.sd(), r"made with EulerAncestralDiscreteScheduler, .* has DDIMScheduler; use pipe.scheduler ="),
        (lambda: tiny.sd(tiny.euler_ancestral(timestep_spacing="leading")), "whose steps differ"),
        (lambda: tiny.sd(tiny.euler_ancestral(beta_end=0.013)), "whose steps differ"),
        (lambda: tiny.sd(tiny.euler_ancestral(), unet=tiny.unet(norm_num_groups=2)), "denoiser of another architect"),
        (lambda: tiny.sd(tiny.euler_ancestral(), unet=tiny.unet(seed=5)), "other weights in unet"),
        (lambda: _fine_tuned("unet"), "other weights in unet; pass the checkpoint"),
        (lambda: _fine_tuned("text_encoder"), "other weights in text_encoder"),
    ],
)
def test_another_pipeline_is_refused(make: Callable[[], Any], message: str, saved: Path) -> None:
    with pytest.raises(ArchiveError, match=message):
        renoise.load(saved, make())


def test_a_pipeline_of_ones_own_must_be_passed(saved: Path) -> None:
    with pytest.raises(
        ArchiveError, match=r"made with a StableDiffusionPipeline of yours .*renoise\.load\(path, pipe\)"
    ):
        renoise.load(saved)


# --- files that are no inversions ---


def _newer(header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    header["version"] = archive.VERSION + 1
    del header["settings"]  # whatever else may have changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_newer, "has format 3, this renoise reads up to 2; update renoise"),
        (lambda header, tensors: header.update(version="two"), "damaged header"),
        (lambda header, tensors: header.pop("version"), "damaged header"),
        (lambda header, tensors: header.pop("prompts"), "is damaged .*prompts"),
        (lambda header, tensors: header.pop("pipeline"), "is damaged .*pipeline"),
        (lambda header, tensors: header.update(prompts=["a", "b"]), "not as many pictures as prompts"),
        (lambda header, tensors: header["settings"].update(num_inference_steps=0), "num_inference_steps=0"),
        (lambda header, tensors: header["settings"].update(colour="red"), "colour"),
        (lambda header, tensors: header.update(boxes=[[1, 2]]), "is damaged"),
        (lambda header, tensors: tensors.pop("z_T"), "is damaged .*z_T"),
        (lambda header, tensors: tensors.pop("noises"), "noises are missing"),
        (lambda header, tensors: tensors.pop("steps.0.residuals"), "is damaged .*residuals"),
        (lambda header, tensors: tensors.update(noises=tensors["noises"][:1].clone()), "is damaged .*noises"),
        (lambda header, tensors: tensors.update(z_T=torch.zeros(1, 4, 2, 2)), "is damaged"),
        (lambda header, tensors: tensors.update({"table.a": torch.zeros(2)}), "is damaged .*float64"),
    ],
)
def test_damaged_and_newer_files_are_refused(
    change: Callable[[dict[str, Any], dict[str, Tensor]], object], message: str, saved: Path, tmp_path: Path
) -> None:
    path = rewritten(saved, tmp_path / "changed.safetensors", change)
    with pytest.raises(ArchiveError, match=message) as caught:
        renoise.load(path, tiny.sd(tiny.euler_ancestral()))
    assert str(path) in str(caught.value)


def test_what_is_no_inversion(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"nowhere\.safetensors does not exist"):
        renoise.load(tmp_path / "nowhere.safetensors")
    with pytest.raises(ArchiveError, match="is a folder"):
        renoise.load(tmp_path)
    with pytest.raises(TypeError, match="PathLike"):
        renoise.load(None)  # type: ignore[arg-type]
    save_file({"weight": torch.zeros(2)}, tmp_path / "weights.safetensors")
    with pytest.raises(ArchiveError, match="holds tensors but no inversion"):
        renoise.load(tmp_path / "weights.safetensors")
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors", {"renoise": "{"})
    with pytest.raises(ArchiveError, match="damaged header"):
        renoise.load(tmp_path / "other.safetensors")
    PICTURE.save(tmp_path / "picture.png")
    (tmp_path / "empty").touch()
    whole = saved.read_bytes()
    for cut in (4, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / f"cut {cut}").write_bytes(whole[:cut])
    for path in (tmp_path / "picture.png", tmp_path / "empty", *tmp_path.glob("cut *")):
        with pytest.raises(ArchiveError, match="is not a complete safetensors file"):
            renoise.load(path)


# --- writing ---


def test_a_failure_leaves_the_earlier_file_and_no_other(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cat.safetensors"
    path.write_bytes(b"earlier")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        renoise.load(saved, tiny.sd(tiny.euler_ancestral())).save(path)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("cat.safetensors", b"earlier")]


def test_places_that_cannot_be_written(saved: Path, tmp_path: Path) -> None:
    inv = renoise.load(saved, tiny.sd(tiny.euler_ancestral()))
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "cat.safetensors", tmp_path / "folder"):
        with pytest.raises(OSError, match=path.name if path.is_dir() else "file"):
            inv.save(path)
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["file", "folder"]
