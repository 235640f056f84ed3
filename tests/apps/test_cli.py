"""The command line, in process and once as a process: results, exit codes, and mistakes that are found early."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from diffusers import PNDMScheduler
from PIL import Image
from typer.testing import CliRunner

import renoise
from renoise import models
from renoise.apps import demo
from renoise.apps.cli import app as cli
from renoise.apps.cli import options, pipes
from renoise.apps.cli.listing import recognised
from renoise.apps.cli.output import write
from renoise.pipelines import loading
from renoise.pipelines.adapter import Adapter
from renoise.pipelines.families import FAMILIES, Task
from renoise.presets import chosen_settings
from renoise.shipped import SHIPPED
from tests.helpers import tiny, tiny_flow, tiny_transformers
from tests.helpers.command_line import run, said
from tests.helpers.embedded import SIDE

WORDS = ("--prompt", "red apple, blob style")
QUICK = ("--steps", "1", "--preset", "paper-sd")  # three passes


def pixels(path: str | Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_embedded", lambda name: pytest.fail("a model was loaded"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved [here]") / "apple.safetensors"
    assert run("invert", models.EXAMPLE, *WORDS, *QUICK, "-o", path).exit_code == 0
    return path


# --- what it does ---


def test_edit_a_picture() -> None:
    result = run("edit", models.EXAMPLE, *WORDS, *QUICK, "--to", "green apple, blob style")
    assert result.exit_code == 0, result.output
    assert "wrote edited.png" in said(result)
    assert re.search(r"reconstruction -?[\d.]+ dB, auto-encoder ceiling [\d.]+ dB, 3 passes, [\d.]+ s", said(result))
    assert pixels("edited.png").shape == (SIDE, SIDE, 3)


def test_nothing_is_shown_but_bars_that_count_passes() -> None:
    result = run("edit", models.EXAMPLE, *WORDS, *QUICK, "--to", "green apple, blob style")
    assert "| 0/3 [" in result.stderr
    assert "passes/s" in result.stderr
    assert "Loading" not in result.output
    assert set(re.findall(r"(\w+): +\d+%", result.stderr)) <= {"invert", "generate"}


def test_reconstruct_and_edit_a_saved_inversion(saved: Path) -> None:
    inversion = renoise.load(saved)
    result = run("reconstruct", saved, "-o", "new/again[1].png")
    assert result.exit_code == 0, result.output
    assert "wrote new/again[1].png" in said(result)
    assert np.array_equal(pixels("new/again[1].png"), np.asarray(inversion.reconstruct()))
    options = ("--guidance", "2", "--negative", "leaf")
    assert run("edit", saved, "--to", "pear, blob style", "-o", "pear.png", *options).exit_code == 0
    expected = inversion.edit("pear, blob style", guidance_scale=2, negative_prompt="leaf")
    assert np.array_equal(pixels("pear.png"), np.asarray(expected))
    assert expected.tobytes() != inversion.edit("pear, blob style", guidance_scale=2).tobytes()


def test_a_saved_inversion_with_a_model_in_another_precision(saved: Path) -> None:
    result = run("reconstruct", saved, "--model", "emoji-turbo", "--dtype", "bfloat16", "-o", "half.png")
    assert result.exit_code == 0, result.output
    result = run("reconstruct", saved, "--model", "emoji-turbo", "--scheduler", "LCMScheduler")
    assert result.exit_code == 1
    assert "was made with EulerAncestralDiscreteScheduler" in said(result)


def test_a_batch_is_written_as_numbered_pictures(saved: Path) -> None:
    pipe = renoise.load(saved).pipe
    settings = renoise.Settings(regions=(renoise.Region(),), num_inference_steps=1)
    renoise.invert(pipe, [models.EXAMPLE] * 2, "red apple", preset=settings).save("two.safetensors")
    result = run("reconstruct", "two.safetensors", "-o", "two.png")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in Path().glob("*.png")) == ["two-1.png", "two-2.png"]
    assert said(result).count("auto-encoder ceiling") == 2


def test_a_pipeline_from_a_folder(saved: Path) -> None:
    tiny.sd().save_pretrained("own")
    made = ("--model", "own", "--steps", "2", "--preset", "paper-sd")
    assert run("invert", models.EXAMPLE, "-p", "a cat", "-o", "own.safetensors", *made).exit_code == 0
    assert run("reconstruct", "own.safetensors", "--model", "own").exit_code == 0
    alone = run("reconstruct", "own.safetensors")
    assert alone.exit_code == 1
    assert "or --model on the command line" in said(alone)
    other = run("reconstruct", saved, "--model", "own")
    assert other.exit_code == 1
    assert "denoiser of another architecture" in said(other)


def _pictures() -> dict[str, Image.Image]:
    noise = np.random.default_rng(0).integers(0, 256, (24, 40, 4), dtype=np.uint8)
    colour = Image.fromarray(noise[..., :3])
    return {
        "alpha.png": Image.fromarray(noise),
        "grey.png": colour.convert("L"),
        "greyalpha.png": Image.fromarray(noise).convert("LA"),
        "palette.gif": colour.convert("P"),
        "bits.png": colour.convert("1"),
        "cmyk.jpg": colour.convert("CMYK"),
        "deep.png": Image.fromarray(noise[..., 0].astype(np.uint16) * 257),
        "thin.bmp": colour.resize((200, 3)),
        "dot.webp": colour.resize((1, 1)),
        "wide.tiff": colour.resize((300, 100)),
    }


@pytest.mark.parametrize("name", _pictures())
def test_pictures_of_every_mode_and_size(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_embedded", lambda name: tiny.sd())
    picture = _pictures()[name]
    picture.save(name)
    result = run("edit", name, *WORDS, *QUICK, "--to", "pear", "-o", "edited.webp")
    assert result.exit_code == 0, result.output
    height, width, _ = pixels("edited.webp").shape
    assert max(width, height) == 32
    assert min(width, height) == max(1, round(32 * min(picture.size) / max(picture.size)))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".webp", ".bmp", ".tiff", ".gif"])
def test_formats_of_results(suffix: str, tmp_path: Path) -> None:
    write(Image.new("RGB", (5, 4), "red"), tmp_path / f"result{suffix}")
    assert pixels(tmp_path / f"result{suffix}").shape == (4, 5, 3)


def test_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    def figure(pipe: Any, *, seed: int) -> tuple[Image.Image, list[str]]:
        return Image.new("RGB", (5, 4)), [f"{models.name_of(pipe)} [b]{seed}[/b]"]

    monkeypatch.setattr(demo, "figure", figure)
    result = run("demo", "--model", "emoji", "--seed", "3")
    assert result.exit_code == 0, result.output
    assert "emoji [b]3[/b] wrote renoise-demo.png" in said(result)
    assert pixels("renoise-demo.png").shape == (4, 5, 3)


# --- what it says ---


def test_models_lists_models_presets_and_pipelines(no_model: None) -> None:
    result = run("models")
    assert result.exit_code == 0, result.output
    for name in (*models.NAMES, *renoise.presets.PRESETS, "StableDiffusionXLPipeline", "LatentConsistency"):
        assert name in result.output


def test_models_names_the_extra_that_a_model_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "ABOUT", {"emoji-turbo-sharp": SHIPPED["emoji-turbo-sharp"].about})
    assert 'pip install "renoise[lora]"' in said(run("models"))


def test_models_says_where_every_number_comes_from(no_model: None) -> None:
    screen = said(run("models"))
    for settings in renoise.presets.PRESETS.values():
        assert settings.source in screen
        assert settings.score in screen


@pytest.mark.parametrize("columns", [80, 200])
def test_models_fits_its_screen(columns: int, no_model: None) -> None:
    result = CliRunner(env={"COLUMNS": str(columns)}).invoke(cli.app, ["models"])
    assert max(map(len, result.output.splitlines())) <= columns
    for name in (*renoise.presets.PRESETS, *(kind for rules in FAMILIES.values() for kind in rules.pipelines)):
        assert name in result.output  # in one piece


def some_pipelines() -> dict[tuple[str, str], Any]:
    """One of every kind, and of every sampler that makes a difference, with the words that `models` has for it."""
    made = {("any other", kind): getattr(tiny, kind)(tiny.ddim()) for kind in ("sd", "sdxl")}
    made |= {("Euler, trailing", kind): getattr(tiny, kind)(tiny.euler_ancestral()) for kind in ("sd", "sdxl")}
    made |= {("LCM, TCD", kind): getattr(tiny, kind)(tiny.lcm_scheduler()) for kind in ("sd", "sdxl", "lcm")}
    made["any other", "controlnet"] = tiny_flow.controlnet()
    made |= {("any other", kind): getattr(tiny_transformers, kind)() for kind in ("pixart", "hunyuan")}
    later = ("kontext", "flux_controlnet", "flux2_dev", "chroma", "aura_flow", "lumina2")
    made |= {("any", kind): getattr(tiny_transformers, kind)() for kind in later}
    made |= {("any", kind): getattr(tiny_flow, kind)() for kind in ("sd3", "flux", "flux2", "z_image", "qwen", "sana")}
    schnell = tiny_flow.flux_transformer(guidance_embeds=False)
    made["any, few-step model", "flux"] = tiny_flow.flux(transformer=schnell)
    made["any, few-step model", "flux2"] = tiny_flow.flux2(is_distilled=True)
    return made


def test_models_tells_the_preset_that_a_pipeline_gets() -> None:
    listed = {
        (sampler, pipeline): name
        for task in get_args(Task)
        for (samplers, names), pipelines in recognised(task).items()
        for sampler, name in zip(samplers.split("\n"), names.split("\n"), strict=True)
        for pipeline in pipelines
    }
    for (sampler, _), pipe in some_pipelines().items():
        expected = renoise.presets.PRESETS[listed[sampler, type(pipe).__name__]].settings
        assert replace(chosen_settings(Adapter(pipe)), edit_losses=None) == replace(expected, edit_losses=None)


def test_version(no_model: None) -> None:
    result = run("--version")
    assert (result.exit_code, result.output) == (0, f"renoise {renoise.__version__}\n")


@pytest.mark.parametrize("command", [(), ("edit",), ("invert",), ("reconstruct",), ("demo",), ("models",)])
def test_help_says_what_every_option_means(command: tuple[str, ...], no_model: None) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "[b]" not in result.output  # markup is rendered
    for line in result.output.splitlines():
        if re.match(r"│ \*? *--", line):
            assert len(re.split(r"  +", line.strip("│ *"))) >= 3, line


# --- mistakes ---


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ("edit", "{picture}", *WORDS, "--to", "x", "--preserve", "all"),
            2,
            "'all' is no number from 0 to 1, and",
        ),
        (("edit", "{picture}", *WORDS, "--to", "x", "--preserve", "nan"), 2, "'nan' is no number from 0 to 1"),
        (("edit", "{picture}", *WORDS, "--to", "x", "--mask", "nowhere.png"), 1, "error: nowhere.png: no such file"),
        (("edit", "{picture}", *WORDS, "--to", "x", "--randomness", "2"), 2, "Invalid value for '--randomness'"),
        (("edit", "{picture}", *WORDS, "--to", "x", "--source-guidance", "inf"), 2, "Invalid value for '--source-"),
        (("edit", "{picture}", "--to", "pear", "-p", "  "), 2, "say what the picture shows"),
        (("edit", "{picture}", "-p", "apple"), 2, "Missing option '--to'"),
        (("edit", "nowhere[b].png", *WORDS, "--to", "pear"), 1, "error: nowhere[b].png: no such file"),
        (("edit", "{text}", *WORDS, "--to", "pear"), 1, "is not a picture"),
        (("edit", "{picture}", *WORDS, "--to", "x", "-o", "a.xyz"), 2, "no picture can be written as '.xyz'; use .png"),
        (("edit", "{picture}", *WORDS, "--to", "x", "-o", "name"), 2, "no picture can be written as ''"),
        (("edit", "{picture}", *WORDS, "--to", "x", "-o", "a.xbm"), 2, "no picture can be written as '.xbm'"),
        (("edit", "{picture}", *WORDS, "--to", "x", "-o", "a.psd"), 2, "no picture can be written as '.psd'"),
        (
            ("edit", "{picture}", *WORDS, "--to", "x", "-o", "{folder}"),
            2,
            "cannot be written (is a folder: pass the name of a file in it)",
        ),
        (("edit", "{picture}", *WORDS, "--to", "x", "-o", "{text}/a.png"), 2, "cannot be written (Not a directory)"),
        (("edit", "{picture}", *WORDS, "--to", "x", "--guidance", "0"), 2, "Invalid value for '--guidance'"),
        (("invert", "{picture}", *WORDS, "-o", "a.png"), 2, "saved as .safetensors, e.g. a.safetensors"),
        (("invert", "{picture}", *WORDS, "--steps", "0"), 2, "Invalid value for '--steps'"),
        (("invert", "{picture}", *WORDS, "--passes", "0"), 2, "Invalid value for '--passes'"),
        (("invert", "{picture}", *WORDS, "--steps", "4.5"), 2, "Invalid value for '--steps'"),
        (("invert", "{picture}", *WORDS, "--strength", "1.5"), 2, "Invalid value for '--strength'"),
        (("invert", "{picture}", *WORDS, "--seed", "-1"), 2, "Invalid value for '--seed'"),
        (("invert", "{picture}", *WORDS, "--dtype", "int8"), 2, "'int8' is not one of float32, bfloat16, float16"),
        (("invert", "{picture}", *WORDS, "--preset", "best"), 2, "'best' is not one of paper, paper-sd"),
        (("invert", "{picture}", *WORDS, "--model", "[b]x"), 1, "error: no embedded model is called '[b]x'"),
        (("invert", "{picture}", *WORDS, "--scheduler", "Euler"), 1, "diffusers has no scheduler 'Euler'"),
        (("reconstruct", "nowhere.safetensors"), 1, "nowhere.safetensors does not exist"),
        (("reconstruct", "nowhere.safetensors", "--model", "emoji"), 1, "nowhere.safetensors does not exist"),
        (("reconstruct", "{picture}"), 1, "is not a complete safetensors file"),
        (("reconstruct", "{picture}", "--dtype", "bfloat16"), 2, "--scheduler and --dtype belong to a --model"),
        (("demo", "--model", "other"), 2, "'other' is not one of emoji, emoji-turbo"),
        (("edit", "{picture}", *WORDS, "--to", "x", "--guidance", "inf"), 2, "inf is not a finite number"),
        (("edit", "{picture}", *WORDS, "--to", "x", "--guidance", "nan"), 2, "Invalid value for '--guidance'"),
        (("edit", "{picture}", *WORDS, "--to", "x", "-o", "n" * 252 + ".png"), 2, "cannot be written (File name too"),
        (("edit", "{picture}", *WORDS, "--to", "x", "-o", "n" * 300 + "/a.png"), 2, "cannot be written"),
        (("invert", "{picture}", *WORDS, "--strength", "nan"), 2, "Invalid value for '--strength'"),
        (("invert", "{picture}", *WORDS, "--tol", "nan"), 2, "Invalid value for '--tol'"),
        (("invert", "{picture}", *WORDS, "--size", "0"), 2, "'0' is no size: pass one number, or HEIGHTxWIDTH"),
        (("invert", "{picture}", *WORDS, "--size", "64*64"), 2, "'64*64' is no size"),
        (("invert", "{picture}", *WORDS, "--model", ""), 1, "error: no embedded model is called ''"),
        (("edit", "{picture}", *WORDS, "--to", "x", "--model", ""), 1, "error: no embedded model is called ''"),
        (("invert", "{picture}", *WORDS, "--model", "{folder}"), 1, "holds no model_index.json"),
        (("invert", "{picture}", *WORDS, "--scheduler-config", "clip"), 2, "'clip' is not key=value"),
        (("reconstruct", "{picture}", "--scheduler-config", "a=b"), 2, "belong to a --model"),
        (("reconstruct", "{picture}", "--make-invertible"), 2, "belong to a --model"),
        (("draw",), 2, "No such command 'draw'"),
    ],
)
def test_mistakes_are_named_before_a_model_is_loaded(
    arguments: tuple[str, ...], code: int, message: str, no_model: None, own_folder: Path
) -> None:
    text = own_folder / "text.txt"
    text.write_text("words")
    places = {"{picture}": models.EXAMPLE, "{text}": text, "{folder}": own_folder}
    result = run(*(re.sub(r"\{\w+\}", lambda found: str(places[found[0]]), argument) for argument in arguments))
    assert message in said(result)
    assert result.exit_code == code
    assert [path.name for path in own_folder.iterdir()] == ["text.txt"]


@pytest.mark.parametrize(
    "option",
    [
        ("--prompt", "apple"),
        ("--preset", "paper-sd"),
        ("--passes", "8"),
        ("--steps", "4"),
        ("--seed", "0"),
    ],
)
def test_options_that_a_saved_inversion_would_ignore_are_refused(
    option: tuple[str, str], saved: Path, no_model: None
) -> None:
    result = run("edit", saved, "--to", "pear", *option)
    assert result.exit_code == 2
    assert f"is inverted already; leave out {option[0]}" in said(result)


def test_a_failure_while_writing_leaves_the_earlier_picture(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("edited.png").write_bytes(b"earlier")

    stock = os.replace

    def fail(source: Path, target: Path) -> None:
        if Path(target).name == "edited.png":
            raise PermissionError(13, "Permission denied", "edited[1].png")
        stock(source, target)

    monkeypatch.setattr("os.replace", fail)
    result = run("edit", saved, "--to", "pear")
    assert result.exit_code == 1
    assert "error: [Errno 13] Permission denied: 'edited[1].png'" in said(result)
    assert [(path.name, path.read_bytes()) for path in Path().iterdir()] == [("edited.png", b"earlier")]


def test_an_interruption_has_a_code_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "load", interrupt)
    assert run("demo").exit_code == 130


@pytest.mark.parametrize("index", ["{", "{}", '{"_class_name": "Nothing"}', '{"_class_name": "FluxPipeline"}'])
def test_a_folder_with_a_bad_index_is_an_error_in_a_line(index: str, own_folder: Path) -> None:
    (own_folder / "model_index.json").write_text(index)
    result = run("invert", models.EXAMPLE, *WORDS, "--model", own_folder)
    assert result.exit_code == 1
    assert "error: " in said(result)
    assert isinstance(result.exception, SystemExit)


@pytest.mark.parametrize("seconds", [0.02, 0.1, 0.25])
def test_an_interruption_while_modules_are_imported(seconds: float, own_folder: Path) -> None:
    """Just after the program began, and in the middle of what it imports."""
    begin = f"""
import os, signal, sys, threading
from renoise.apps.cli import main
sys.argv = ["renoise", "models"]
threading.Timer({seconds}, os.kill, (os.getpid(), signal.SIGINT)).start()
main()
"""
    ended = subprocess.run([sys.executable, "-c", begin], capture_output=True, text=True, check=False)
    assert ended.returncode == 130
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("edti",),
        ("edit", "{picture}", "--too", "pear"),
        ("edit", "nowhere.png", *WORDS, "--to", "pear"),
        ("edit", "{picture}", *WORDS, "--to", "pear", "--model", "emjoi"),
        ("edit", "{picture}", *WORDS, "--to", "pear", "--scheduler", "Eulre"),
        ("edit", "{picture}", *WORDS, "--to", "pear", "--preset", "fsat"),
        ("reconstruct", "nowhere.safetensors", "--model", "emoji"),
        ("--help",),
    ],
)
def test_a_mistyped_word_is_named_before_torch_is_imported(arguments: tuple[str, ...], own_folder: Path) -> None:
    """torch alone takes longer than somebody who mistyped a word wants to wait."""
    given = ["renoise", *(word.replace("{picture}", str(models.EXAMPLE)) for word in arguments)]
    begin = f"""
import sys
from renoise.apps.cli import main
sys.argv = {given}
try:
    main()
except SystemExit as ended:
    print(ended.code, *({{"torch", "diffusers", "transformers"}} & sys.modules.keys()))
"""
    ended = subprocess.run([sys.executable, "-c", begin], capture_output=True, text=True, check=True)
    assert ended.stdout.split()[-1] == ("0" if arguments == ("--help",) else "1" if ended.stderr[0] == "e" else "2")


def test_the_names_that_are_checked_early_are_all_there_are() -> None:
    assert ("paper", *renoise.presets.PRESETS) == options.PRESETS
    assert tuple(loading.DTYPES) == options.DTYPES


def test_a_negative_prompt_that_the_model_does_not_take_is_refused_before_the_inversion(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipe = tiny.lcm()  # knows guidance as an embedding
    monkeypatch.setattr(models, "_embedded", lambda name: pipe)
    pipe.vae.encode = lambda *_: pytest.fail("the picture was encoded")
    result = run("edit", models.EXAMPLE, *WORDS, "--to", "pear", "--negative", "leaf", "--guidance", "3")
    assert result.exit_code == 1
    assert "takes no negative prompt here: leave out 'leaf'" in said(result)


# --- schedulers, sizes, precision ---


@pytest.fixture
def tiny_folder(tmp_path: Path) -> Path:
    pipe = tiny.sd(PNDMScheduler(**tiny.TRAINING))
    pipe.save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_a_scheduler_that_cannot_be_inverted_is_exchanged_by_an_option(tiny_folder: Path) -> None:
    command = ("invert", models.EXAMPLE, *WORDS, "--model", tiny_folder, "--steps", "2", "--preset", "many-step")
    refused = run(*command)
    assert refused.exit_code == 1
    assert "Use --make-invertible, which takes DDIMScheduler" in said(refused)
    assert "pipe." not in said(refused)
    result = run(*command, "--make-invertible", "--size", "32x40", "--tol", "0.5")
    assert result.exit_code == 0, result.output
    assert "PNDMScheduler replaced by DDIMScheduler" in said(result)
    assert "float32" in said(result)
    result = run("reconstruct", "inversion.safetensors", "--model", tiny_folder, "--make-invertible")
    assert result.exit_code == 0, result.output


def test_settings_of_a_scheduler_are_options(tiny_folder: Path) -> None:
    command = ("invert", models.EXAMPLE, *WORDS, "--model", tiny_folder, "--steps", "2", "--preset", "many-step")
    settings = ("--scheduler", "DDIMScheduler", "--scheduler-config", "timestep_spacing=trailing")
    assert run(*command, *settings, "--scheduler-config", "clip_sample=false").exit_code == 0
    found = renoise.load("inversion.safetensors", trailing())
    assert found.table.timesteps.tolist() == [999, 499]
    refused = run(*command, *settings, "--scheduler-config", "spacing=trailing")
    assert refused.exit_code == 1
    assert "DDIMScheduler has no 'spacing'; it has num_train_timesteps" in said(refused)


def trailing() -> Any:
    return tiny.sd(tiny.ddim(timestep_spacing="trailing", set_alpha_to_one=False))


def test_models_of_ones_own_get_half_precision_on_a_gpu(monkeypatch: pytest.MonkeyPatch, tiny_folder: Path) -> None:
    assert pipes._usual_dtype(str(tiny_folder)) == "float32"
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    assert pipes._usual_dtype(str(tiny_folder)) == "bfloat16"
    assert pipes._usual_dtype("emoji") == "float32"
    (tiny_folder / "unet/model.fp16.safetensors").touch()
    assert pipes._usual_dtype(str(tiny_folder)) == "float16"


def test_remedies_are_options() -> None:
    assert cli.as_options("load the pipeline with dtype=torch.float32") == "use --dtype float32"
    assert cli.as_options("num_inference_steps=0: pass") == "--steps 0: pass"
    assert cli.as_options("guidance_scale=0.5") == "--guidance 0.5"


def test_a_process_ends_with_the_exit_code() -> None:
    command = [sys.executable, "-m", "renoise", "invert", "no[b]where.png", *WORDS]
    project = Path(__file__).parents[2]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=project)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: no[b]where.png: no such file")
    assert ended.stdout == ""
