"""Progress and interruption of inversions, reconstructions and edits, through both drivers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from PIL import Image

import renoise
from renoise.core.settings import Region, Settings
from renoise.record import Driver
from tests.helpers import tiny, tiny_flow

SETTINGS = Settings((Region(iterations=2),), num_inference_steps=2)
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
DRIVERS: tuple[Driver, ...] = ("direct", "pipeline")
PIPES: dict[str, Callable[[], Any]] = {"sd": lambda: tiny.sd(tiny.euler_ancestral()), "sd3": tiny_flow.sd3}


def inverted(pipe: Any, driver: Driver, **options: Any) -> renoise.Inversion:
    return renoise.invert(pipe, PICTURE, "a cat", preset=SETTINGS, driver=driver, **options)


def state(pipe: Any) -> dict[str, Any]:
    """What an interrupted call must leave as it was."""
    network = getattr(pipe, "unet", None) or pipe.transformer
    return {
        "scheduler": pipe.scheduler,
        "timesteps": pipe.scheduler.timesteps.tolist(),
        "bar": getattr(pipe, "_progress_bar_config", None),
        "hooks": len(network._forward_pre_hooks),
        "random": torch.get_rng_state().tolist(),
    }


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("name", PIPES)
def test_every_pass_of_every_stage_is_told(name: str, driver: Driver) -> None:
    pipe, told = PIPES[name](), list[tuple[str, int, int]]()
    progress = renoise.Progress(lambda p: told.append((p.stage, p.passes, p.total)))
    inversion = inverted(pipe, driver, progress=progress)
    assert told == [("invert", passes, 6) for passes in range(7)]
    told.clear()
    inversion.reconstruct(progress=progress)
    inversion.edit("a dog", progress=progress)
    assert told == [("generate", passes, 2) for passes in range(3)] * 2


@pytest.mark.parametrize("after", [0, 3])
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("name", PIPES)
def test_cancelling_leaves_the_pipeline_as_it_was(name: str, driver: Driver, after: int) -> None:
    pipe = PIPES[name]()
    before = state(pipe)
    progress = renoise.Progress(lambda p: p.cancel() if p.passes == after else None)
    with pytest.raises(renoise.Cancelled, match=f"cancelled after {after} of 6 passes"):
        inverted(pipe, driver, progress=progress)
    assert state(pipe) == before
    inversion = inverted(pipe, driver)
    for work in (inversion.reconstruct, lambda **options: inversion.edit("a dog", **options)):
        with pytest.raises(renoise.Cancelled):
            work(progress=progress)
        assert state(pipe) == before
    assert inverted(pipe, driver).latents.equal(inversion.latents)


@pytest.mark.parametrize("driver", DRIVERS)
def test_an_interrupt_in_the_network_leaves_the_pipeline_as_it_was(driver: Driver) -> None:
    """Ctrl-C, with offloaded networks: they are given back."""
    pipe, calls = PIPES["sd"](), list[int]()
    freed: list[int] = []
    pipe.maybe_free_model_hooks = lambda: freed.append(1)
    before = state(pipe)

    def interrupt(*_: object) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    hook = pipe.unet.register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        inverted(pipe, driver)
    hook.remove()
    assert state(pipe) == before
    assert len(freed) == 2, "after the auto-encoder, and after the interrupt"


@pytest.mark.parametrize("driver", DRIVERS)
def test_cancelling_gives_offloaded_networks_back(driver: Driver) -> None:
    pipe = PIPES["sd"]()
    for network in (pipe.unet, pipe.vae, pipe.text_encoder):
        cpu_offload(network, "cpu")
    progress = renoise.Progress(lambda p: p.cancel() if p.passes == 2 else None)
    with pytest.raises(renoise.Cancelled):
        inverted(pipe, driver, progress=progress)
    assert all(weight.device.type == "meta" for weight in pipe.unet.parameters())


def test_another_thread_may_cancel() -> None:
    pipe = PIPES["sd"]()
    progress = renoise.Progress(lambda p: threading.Thread(target=p.cancel).start() if p.passes == 1 else None)
    with pytest.raises(renoise.Cancelled):
        renoise.invert(
            pipe, PICTURE, "a cat", preset=Settings((Region(iterations=500),), num_inference_steps=4), progress=progress
        )
    assert progress.passes < 2000


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_pipelines_own_bar_is_the_default(driver: Driver, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = PIPES["sd"]()
    pipe.set_progress_bar_config(disable=False)
    inverted(pipe, driver).reconstruct()
    shown = capsys.readouterr().err
    assert "invert: 100%" in shown
    assert "6/6" in shown
    assert "generate: 100%" in shown


def test_what_is_no_progress_is_refused_before_any_network_runs() -> None:
    pipe = PIPES["sd"]()
    pipe.vae.register_forward_pre_hook(lambda *_: pytest.fail("the auto-encoder ran"))
    with pytest.raises(TypeError, match=r"is no Progress: pass renoise\.Progress\(function\)"):
        inverted(pipe, "direct", progress=print)
