"""An inversion in a file: what comes back, what is refused, and what happens to the file when writing fails."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
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
from renoise.core.solvers import SOLVERS
from renoise.pipelines import loading
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
    """A copy whose header and tensors were changed, with a digest that fits."""
    with safe_open(source, "pt") as file:
        header = json.loads(file.metadata()["renoise"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(header, tensors)
    header["sha256"] = archive.digest(header, tensors)
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


# --- bits that change, and names that are not obeyed ---


def test_a_loaded_inversion_does_not_follow_its_file(saved: Path, tmp_path: Path) -> None:
    path, pipe = tmp_path / "cat.safetensors", tiny.sd(tiny.euler_ancestral())
    for later in (b"", b"\xff" * saved.stat().st_size):
        path.write_bytes(saved.read_bytes())
        after = renoise.load(path, pipe)
        before = [tensor.clone() for tensor in (after.latents, after.z_0, after.pixels)]
        with path.open("r+b") as file:  # in place, as another program might
            file.truncate(0)
            file.write(later)
        assert all(map(torch.equal, before, (after.latents, after.z_0, after.pixels)))
        assert after.reconstruct().size == (32, 20)


def test_a_bit_that_changed_anywhere_is_noticed(saved: Path) -> None:
    data = saved.read_bytes()
    right = archive.dumps(archive.loads(data))
    header = 8 + int.from_bytes(data[:8], "little")
    draw = np.random.default_rng(0)
    refused = 0
    for place in (*draw.integers(0, header, 150), *draw.integers(header, len(data), 150)):
        changed = bytearray(data)
        changed[place] ^= 1 << int(draw.integers(8))
        try:
            found = archive.loads(bytes(changed))
        except ArchiveError:
            refused += 1
        else:  # a bit of the padding between the parts
            assert archive.dumps(found) == right
    assert refused >= 290


def test_a_prompt_or_a_box_that_was_changed_by_hand_is_noticed(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "changed.safetensors"
    for old, new in ((b"a cat", b"a dog"), (b"[0, 6, 32, 26]", b"[0, 7, 32, 26]")):
        assert old in saved.read_bytes()
        path.write_bytes(saved.read_bytes().replace(old, new))
        with pytest.raises(ArchiveError, match=r"is damaged: its content is not what was saved \(its SHA-256"):
            renoise.load(path, tiny.sd(tiny.euler_ancestral()))


def test_format_2_without_a_digest_is_refused(saved: Path, tmp_path: Path) -> None:
    with safe_open(saved, "pt") as file:
        header = json.loads(file.metadata()["renoise"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    del header["sha256"]
    save_file(tensors, tmp_path / "bare.safetensors", {"renoise": json.dumps(header)})
    with pytest.raises(ArchiveError, match="its digest is missing"):
        renoise.load(tmp_path / "bare.safetensors", tiny.sd(tiny.euler_ancestral()))


@pytest.mark.parametrize("name", ["somebody/something", ".", "emoji-tur", "../weights/emoji"])
def test_a_model_named_in_a_file_is_loaded_only_if_it_is_embedded(
    name: str, saved_embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "load", lambda *_: pytest.fail("a file decided what is loaded"))
    path = rewritten(saved_embedded, tmp_path / "named.safetensors", lambda header, _: header.update(model=name))
    with pytest.raises(ArchiveError, match="only emoji, emoji-turbo, emoji-turbo-sharp are loaded by a name in a file"):
        renoise.load(path)


def test_a_scheduler_that_diffusers_lacks_is_said(saved_embedded: Path, tmp_path: Path) -> None:
    path = rewritten(saved_embedded, tmp_path / "x.safetensors", lambda header, _: header.update(scheduler="Nobody"))
    with pytest.raises(ArchiveError, match="scheduler that is not to be had: diffusers has no scheduler 'Nobody'"):
        renoise.load(path)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("prompts",), "a cat", "prompts is 'a cat', not null or a list"),
        (("prompts",), [7], r"prompts\[0\] is 7, not a text"),
        (("pipe_kwargs",), {"eta": 1}, "pipe_kwargs is .* not a list"),
        (("pipe_kwargs",), [None], r"pipe_kwargs\[0\] is None, not a text"),
        (("pipe_kwargs",), None, "pipe_kwargs is None, not a list"),
        (("pipeline",), 3, "pipeline is 3, not an object"),
        (("pipeline", "source"), [], "pipeline.source is .* not null or a text"),
        (("pipeline", "networks"), ["nowhere"], "it lacks 'weights.nowhere'"),
        (("driver",), "car", "driver 'car' is none of direct, pipeline"),
        (("scheduler",), ["DDIMScheduler"], "scheduler is .* not a text"),
        (("boxes",), [[0.5, 0, 32, 32]], r"boxes\[0\]\[0\] is 0.5, not a whole number"),
        (("boxes",), [[0, 0, 10**6, 32]], "does not lie in a picture of 32 x 32 pixels"),
        (("num_train_timesteps",), 0, "num_train_timesteps is 0"),
        (("num_train_timesteps",), "many", "num_train_timesteps is 'many', not a whole number"),
        (("seconds",), None, "seconds is None, not a whole number or a number"),
        (("batched",), 1, "batched is 1, not true or false"),
        (("steps",), [{"step": 99, "passes": 1}], "reports on steps beyond"),
        (("steps",), [7], r"steps\[0\] is 7, not an object"),
        (("settings", "regions"), None, "settings.regions is None, not a list"),
        (("settings", "regions"), [{"below": "x"}], r"settings.regions\[0\].below is 'x'"),
        (("settings", "edit_losses"), [], "settings.edit_losses is .* not null or an object"),
        (("settings", "solver"), 3, "settings.solver is 3, not a text"),
        (("settings", "guidance_scale"), "high", "guidance_scale='high'"),
        (("inversion_guidance_scale",), True, "inversion_guidance_scale is True"),
        (("version",), True, "version True is no number of a format"),
        (("colour",), "red", "colour is unknown"),
    ],
)
def test_json_of_another_shape_is_refused_by_place(
    place: tuple[str, ...], value: Any, message: str, saved: Path, tmp_path: Path
) -> None:
    def change(header: dict[str, Any], _: dict[str, Tensor]) -> None:
        for key in place[:-1]:
            header = header[key]
        header[place[-1]] = value

    path = rewritten(saved, tmp_path / "changed.safetensors", change)
    with pytest.raises(ArchiveError, match=message):
        renoise.load(path, tiny.sd(tiny.euler_ancestral()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.update(pixels=tensors["pixels"].float()), "pixels are torch.float32"),
        (lambda tensors: tensors["z_T"].fill_(float("nan")), "z_T is not made of finite floats"),
        (lambda tensors: tensors.update(z_0=tensors["z_0"].int()), "z_0 is not made of finite floats"),
    ],
)
def test_tensors_of_another_kind_are_refused(
    change: Callable[[dict[str, Tensor]], object], message: str, saved: Path, tmp_path: Path
) -> None:
    path = rewritten(saved, tmp_path / "changed.safetensors", lambda _, tensors: change(tensors))
    with pytest.raises(ArchiveError, match=message):
        renoise.load(path, tiny.sd(tiny.euler_ancestral()))


def test_pipe_kwargs_of_another_kind_are_refused(saved: Path) -> None:
    for wrong in (3, "eta", ["eta"], {3: 4}):
        with pytest.raises(TypeError, match=r"pipe_kwargs=.* is no dict of keywords"):
            renoise.load(saved, tiny.sd(tiny.euler_ancestral()), pipe_kwargs=wrong)  # type: ignore[arg-type]


# --- what inverts can be saved ---


def test_settings_made_of_numbers_of_numpy_and_torch_are_saved(tmp_path: Path) -> None:
    settings = Settings(
        regions=[  # type: ignore[arg-type]
            Region(np.float32(0.4), np.int64(1), np.array([0.25, 0.75])),  # type: ignore[arg-type]
            Region(torch.tensor(float("inf")), torch.tensor(0)),  # type: ignore[arg-type]
        ],
        edit_losses=EditLosses(np.float64(1), torch.tensor(0.5), np.uint8(1), torch.tensor(1)),  # type: ignore[arg-type]
        correction=np.float32(0.5),  # type: ignore[arg-type]
        num_inference_steps=np.int32(2),  # type: ignore[arg-type]
        guidance_scale=torch.tensor(2.0),  # type: ignore[arg-type]
    )
    before = renoise.invert(
        tiny.sd(),
        PICTURE,
        np.str_("a cat"),
        preset=settings,
        seed=np.int64(3),  # type: ignore[arg-type]
        strength=np.float32(1),  # type: ignore[arg-type]
        size=np.array([32, 40]),  # type: ignore[arg-type]
    )
    before.save(tmp_path / "cat.safetensors")
    after = renoise.load(tmp_path / "cat.safetensors", tiny.sd())
    assert after.settings == before.settings
    assert type(after.settings.regions[0].iterations) is int
    assert after.size == (32, 40)


class Solver:
    """A solver that is an object."""

    def __call__(self, reverse: Any, start: Tensor) -> Any:
        return SOLVERS["anderson"](reverse, start)


def test_a_solver_that_is_an_object_is_saved_by_the_name_of_its_class(tmp_path: Path) -> None:
    settings = Settings((Region(iterations=1),), solver=Solver(), num_inference_steps=2)
    renoise.invert(tiny.sd(), PICTURE, "a cat", preset=settings).save(tmp_path / "cat.safetensors")
    after = renoise.load(tmp_path / "cat.safetensors", tiny.sd())
    assert after.settings.solver.name == "tests.test_archive.Solver"  # type: ignore[union-attr]


def test_tensors_that_share_memory_are_saved(tmp_path: Path) -> None:
    inversion = inverted(tiny.sd())
    trajectory = replace(inversion.trajectory, z_T=inversion.z_0)
    data = archive.dumps(replace(inversion.record, trajectory=trajectory, seconds=np.float32(1)))  # type: ignore[arg-type]
    assert archive.loads(data).trajectory.z_T.equal(inversion.z_0)


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
