"""Calls as a hostile or a clumsy user makes them, and everything that `tests.test_fuzz` tries; see `hostile`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import renoise
from tests.helpers import tiny
from tests.helpers.hostile import (
    NUMBERS,
    ODD,
    PICTURE,
    SETTINGS,
    VALUES,
    NetworkRanError,
    Tally,
    arrays,
    bits,
    files,
    fuzzed,
    method_settings,
    mutated_json,
    scratch,
)

INVERT: dict[str, Any] = {"prompt": "a cat", "preset": SETTINGS}
"""What `invert` is called with, but for the keyword that is tried."""
INVERT_NAMES = (
    *("prompt", "negative_prompt", "passes", "tol", "num_inference_steps", "guidance_scale", "seed", "strength"),
    *("inversion_guidance_scale", "size", "generator", "pipe_kwargs", "preset", "driver", "progress", "keep_latents"),
    "image",
)
EDIT_NAMES = (
    *("prompt", "negative_prompt", "guidance_scale", "num_inference_steps", "pipe_kwargs", "progress"),
    *("preserve", "strength", "source_guidance", "randomness", "seed", "mask", "mask_grow", "mask_feather"),
)
"""Keywords of `Inversion.edit` that are tried; a new one needs its name here and nothing else."""
WORDS = st.sampled_from(["direct", "pipeline", "paper", "few-step", "a dog", "", "\ud800"])
PIPE_KWARGS = st.dictionaries(
    st.sampled_from(["eta", "clip_skip", "prompt_embeds", "timesteps", "strength", "callback_on_step_end", "nonsense"]),
    st.one_of(NUMBERS, ODD),
    max_size=2,
)


def keyword_values(count: int) -> Tally:
    """Keywords of invert with values of every kind, on a pipeline whose networks refuse to run."""
    tally = Tally("keywords of invert")
    pipe = _untouchable()

    @fuzzed(count)
    @given(st.sampled_from(INVERT_NAMES), st.one_of(VALUES, WORDS))
    def run(name: str, value: Any) -> None:
        keywords = {"image": PICTURE, **INVERT, name: value}
        # an array of no picture is told of by its shape
        tally.add(
            (name, value), lambda: renoise.invert(pipe, **keywords), lambda _: False, "" if name == "image" else name
        )

    run()
    return tally


def edit_values(count: int) -> Tally:
    """Keywords of edit with values of every kind, on a pipeline whose networks refuse to run."""
    tally = Tally("keywords of edit")
    pipe = tiny.sd()
    inversion = renoise.invert(pipe, PICTURE, **INVERT)
    _untouchable(pipe)

    @fuzzed(count)
    @given(st.sampled_from(EDIT_NAMES), st.one_of(VALUES, WORDS, PIPE_KWARGS))
    def run(name: str, value: Any) -> None:
        keywords = {"prompt": "a dog", name: value}
        says = "" if isinstance(value, dict) else name  # a message names the keyword in pipe_kwargs
        tally.add((name, value), lambda: inversion.edit(**keywords), lambda _: False, says)

    run()
    return tally


def command_lines(count: int) -> Tally:
    """Command lines put together from words of every kind, up to where a model would be loaded."""
    from typer.testing import CliRunner

    from renoise import models
    from renoise.apps.cli.app import app

    tally = Tally("command lines")
    folder = scratch()
    Image.fromarray(PICTURE).save(folder / "picture.png")
    places = [str(folder / name) for name in ("picture.png", "nowhere.png", "missing/a.png", "n" * 260 + ".png")]
    places += [str(folder), "/dev/full", "/dev/null/a.png", "a.xyz", "a.safetensors", ""]
    options = ["--to", "--prompt", "-o", "--guidance", "--negative", "--model", "--scheduler", "--dtype", "--preset"]
    options += ["--passes", "--steps", "--tol", "--strength", "--size", "--seed", "--scheduler-config", "--nonsense"]
    words = ["a cat", "-1", "0", "1", "2", "0.5", "nan", "inf", "1e999", "9" * 40, "64x64", "float16", "fast", "emoji"]
    words += ["emoji-turbo", "LCMScheduler", "clip_sample=false", "a=", "\ud800", "[b]", "--", *places]
    commands = st.sampled_from(["edit", "edit", "edit", "invert", "reconstruct", "demo", "models", "edti", ""])

    good = st.sampled_from(
        [("--steps", "2"), ("--seed", "1"), ("--size", "64"), ("--tol", "0.1"), ("--preset", "fast")]
    )
    odd = st.tuples(st.sampled_from(options), st.sampled_from(words))

    def load(*_: Any, **__: Any) -> None:
        raise NetworkRanError

    @fuzzed(count)
    @given(commands, st.sampled_from([*places[:1] * len(places), *places]), st.lists(st.one_of(good, odd), max_size=4))
    def run(command: str, place: str, given: list[tuple[str, str]]) -> None:
        line = [command, place, *(word for pair in given for word in pair)]
        if command == "edit" and len(given) < 3:  # what an edit needs
            line += ["--to", "pear", "-p", "apple", "-o", str(folder / "out.png")]

        def start() -> int:
            result = CliRunner().invoke(app, line, env={"COLUMNS": "200"})
            if isinstance(result.exception, NetworkRanError):
                raise result.exception
            if result.exception is not None and not isinstance(result.exception, SystemExit):
                raise RuntimeError(f"a traceback: {result.exception!r}") from result.exception
            if result.exit_code:
                said = " ".join(result.output.split())
                assert said.startswith("error:") or "Usage:" in said, said
                raise ValueError(f"exit code {result.exit_code}")
            return result.exit_code

        tally.add(line, start, lambda code: code == 0)

    stock, models._embedded = models._embedded, load
    try:
        run()
    finally:
        models._embedded = stock
    return tally


def _untouchable(pipe: Any = None) -> Any:
    """A pipeline whose networks refuse to run."""

    def refuse(*_: Any, **__: Any) -> None:
        raise NetworkRanError

    pipe = pipe or tiny.sd()
    for network in (pipe.unet, pipe.vae, pipe.text_encoder):
        network.forward = refuse
    pipe.vae.encode = refuse
    return pipe


KINDS: dict[str, Callable[[int], Tally]] = {
    "arrays": arrays,
    "files": files,
    "settings": method_settings,
    "keywords": keyword_values,
    "edits": edit_values,
    "command lines": command_lines,
    "bits": bits,
    "json": mutated_json,
}
