"""One piece of work at a time on a pipeline, whatever thread or callback asks for another."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import renoise
from renoise.pipelines.adapter import Adapter
from renoise.pipelines.measure import measure
from tests.helpers import tiny, tiny_flow
from tests.helpers.kinds import KINDS, inverted, settings


@pytest.fixture
def quick_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("driver", ["direct", "pipeline"])
def test_threads_on_one_pipeline_get_the_right_answer_or_an_error(driver: Any, quick_switches: None) -> None:
    pipe = tiny.sd(tiny.euler_ancestral())
    scheduler, right = pipe.scheduler, inverted(pipe, settings(3, 1), driver=driver).latents
    found: list[Any] = []

    def work() -> None:
        for _ in range(3):
            try:
                found.append(inverted(pipe, settings(3, 1), driver=driver).latents)
            except RuntimeError as error:
                found.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 12
    assert any(isinstance(one, str) for one in found)
    assert any(isinstance(one, torch.Tensor) for one in found)
    for one in found:
        assert "in the middle of an inversion" in one if isinstance(one, str) else torch.equal(one, right)
    assert pipe.scheduler is scheduler


def test_a_second_thread_is_refused_while_the_networks_are_asked_directly() -> None:
    pipe = tiny_flow.sd3()
    errors: list[str] = []

    def other() -> None:
        with pytest.raises(RuntimeError, match="in the middle of an inversion") as caught:
            inverted(pipe, settings(1, 0), driver="direct")
        errors.append(str(caught.value))

    def start(progress: renoise.Progress) -> None:
        if progress.passes == 1:
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()

    inverted(pipe, settings(2, 0), driver="direct", progress=renoise.Progress(start))
    assert len(errors) == 1


def test_a_rehearsal_hears_its_own_thread_alone() -> None:
    """Another pipeline with the same networks works on while this one is rehearsed."""
    pipe = tiny.sd()
    other = type(pipe)(**pipe.components, requires_safety_checker=False)
    other.set_progress_bar_config(disable=True)
    right = inverted(other, settings(2, 0), driver="pipeline").latents
    found: list[torch.Tensor] = []
    encode = pipe.encode_prompt

    def during(*arguments: Any, **keywords: Any) -> Any:
        hook = pipe.unet.register_forward_pre_hook(lambda *_: None)
        thread = threading.Thread(
            target=lambda: found.append(inverted(other, settings(2, 0), driver="pipeline").latents)
        )
        thread.start()
        thread.join()
        hook.remove()
        return encode(*arguments, **keywords)

    # the rehearsal listens to the network from before the prompts are encoded
    pipe.encode_prompt = during
    inverted(pipe, settings(2, 0), driver="direct")
    assert len(found) == 1
    assert torch.equal(found[0], right)


USES: dict[str, Callable[[renoise.Inversion, Path], object]] = {
    "invert": lambda inversion, path: inverted(inversion.pipe, settings(1, 0)),
    "edit": lambda inversion, path: inversion.edit("a dog"),
    "reconstruct": lambda inversion, path: inversion.reconstruct(),
    "fidelity": lambda inversion, path: inversion.fidelity(),
    "replaying": lambda inversion, path: inversion.replaying().__enter__(),
    "load": lambda inversion, path: renoise.load(path, inversion.pipe),
    "make_invertible": lambda inversion, path: renoise.make_invertible(inversion.pipe),
}


@pytest.mark.parametrize("use", USES)
def test_whatever_is_begun_in_the_middle_of_replaying_is_refused(use: str, tmp_path: Path) -> None:
    pipe = tiny.sd()
    inversion = inverted(pipe, settings(2, 0))
    inversion.save(tmp_path / "kept.safetensors")
    scheduler = pipe.scheduler
    with (
        inversion.replaying() as keywords,
        pytest.raises(RuntimeError, match="this pipeline is in the middle of an inversion or of replaying one"),
    ):
        USES[use](inversion, tmp_path / "kept.safetensors")
    assert pipe.scheduler is scheduler

    def look(*_: Any) -> dict[str, Any]:
        USES[use](inversion, tmp_path / "kept.safetensors")
        return {}

    with (
        inversion.replaying() as keywords,
        pytest.raises(RuntimeError, match="this pipeline is in the middle of"),
    ):
        pipe(["a", "b"], **keywords, callback_on_step_end=look)
    assert pipe.scheduler is scheduler
    inversion.reconstruct()


@pytest.mark.parametrize("make", [tiny.ddim, tiny.euler_ancestral, tiny.lcm_scheduler, tiny_flow.flow])
def test_measuring_draws_nothing_from_the_global_generator_meanwhile(make: Any) -> None:
    """Not even for a moment: another thread may draw from it."""
    scheduler = make()
    scheduler.set_timesteps(4)
    table, before, kind = measure(scheduler), torch.get_rng_state(), type(scheduler)
    states: list[bool] = []

    class Watching(kind):  # type: ignore[misc, valid-type]
        def step(self, model_output: Any, timestep: Any, sample: Any, *, generator: Any = None, **rest: Any) -> Any:
            states.append(torch.equal(torch.get_rng_state(), before))
            torch.randn(2)  # as a scheduler that takes no generator
            states.append(torch.equal(torch.get_rng_state(), before))
            return super().step(model_output, timestep, sample, generator=generator, **rest)

    if "generator" in kind.step.__code__.co_varnames:
        scheduler.__class__ = Watching
        measure(scheduler)
        assert states
        assert all(states)
    assert torch.equal(torch.get_rng_state(), before)
    assert len(table) == 4


def test_a_scheduler_that_draws_from_the_global_generator_is_measured() -> None:
    scheduler = tiny_flow.flow(stochastic_sampling=True)
    scheduler.set_timesteps(4)
    before = torch.get_rng_state()
    assert measure(scheduler).stochastic
    assert torch.equal(torch.get_rng_state(), before)


def test_an_adapter_may_enter_its_turn_again() -> None:
    adapter = Adapter(KINDS["sd"]())
    with adapter.turn(), adapter.turn(), pytest.raises(RuntimeError, match="in the middle of"):
        Adapter(adapter.pipe)
    Adapter(adapter.pipe)
