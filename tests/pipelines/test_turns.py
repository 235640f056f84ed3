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


def test_a_scheduler_is_read_once_since_another_thread_may_exchange_it() -> None:
    pipe = tiny.sd()
    adapter, reads = Adapter(pipe), []
    own = pipe.scheduler

    class Passing(type(pipe)):  # type: ignore[misc]
        @property
        def scheduler(self) -> Any:
            reads.append(True)
            return own if len(reads) == 1 else pytest.fail("read again")

    del pipe.__dict__["scheduler"]
    pipe.__class__ = Passing
    assert len(adapter.schedule(4)) == 4


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


# --- waiting ---


def threads_of(count: int, work: Callable[[], object]) -> list[Any]:
    """What each thread returns or raises."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(work())
        except Exception as error:
            found.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return found


@pytest.mark.parametrize("driver", ["direct", "pipeline"])
def test_threads_that_wait_all_get_the_right_answer(driver: Any, quick_switches: None) -> None:
    pipe = tiny.sd(tiny.euler_ancestral())
    scheduler, inversion = pipe.scheduler, inverted(pipe, settings(2, 1), driver=driver)
    edited, plain = (picture.tobytes() for picture in (inversion.edit("a dog")[0], inversion.reconstruct()[0]))

    def work() -> bool:
        with renoise.waiting(pipe):
            found = inverted(pipe, settings(2, 1), driver=driver)
            with renoise.waiting(pipe, timeout=5):  # again, by the same thread
                same = torch.equal(found.latents, inversion.latents)
        with renoise.waiting(pipe):
            same &= found.edit("a dog")[0].tobytes() == edited
        with renoise.waiting(pipe), found.replaying() as keywords:
            pipe(["a dog"] * 2, **keywords)
        with renoise.waiting(pipe):
            return bool(same and found.reconstruct()[0].tobytes() == plain)

    assert threads_of(4, work) == [True] * 4
    assert pipe.scheduler is scheduler


def test_whoever_waits_has_the_pipeline_between_two_turns_too() -> None:
    pipe = tiny.sd()
    with renoise.waiting(pipe):
        (refused,) = threads_of(1, lambda: inverted(pipe, settings(1, 0)))
        assert "renoise.waiting" in str(refused)
        (late,) = threads_of(1, lambda: renoise.waiting(pipe, timeout=0.05).__enter__())
        assert isinstance(late, TimeoutError)
        assert "after 0.05 s of waiting, this pipeline is in the middle of" in str(late)
        inverted(pipe, settings(1, 0))
    inverted(pipe, settings(1, 0))


def test_a_thread_does_not_wait_for_itself(quick_switches: None) -> None:
    inversion = inverted(tiny.sd(), settings(1, 0))
    with renoise.waiting(inversion.pipe), inversion.replaying():
        with pytest.raises(RuntimeError, match="in the middle of"), renoise.waiting(inversion.pipe):
            pass
        with pytest.raises(RuntimeError, match="in the middle of"):
            inversion.reconstruct()
    with (
        inversion.replaying(),
        pytest.raises(RuntimeError, match="in the middle of"),
        renoise.waiting(inversion.pipe),
    ):
        pass
    inversion.reconstruct()


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (("pipe",), TypeError, "pipe='pipe' has no scheduler: pass a diffusers pipeline"),
        ((None, 1), TypeError, "pipe=None has no scheduler"),
        ((tiny.sd, "soon"), TypeError, "has no scheduler"),
    ],
)
def test_only_pipelines_are_waited_for(arguments: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message), renoise.waiting(*arguments):
        pass


@pytest.mark.parametrize("timeout", ["soon", -1, float("nan"), float("inf"), True])
def test_times_to_wait_are_seconds(timeout: Any) -> None:
    with pytest.raises(ValueError, match=r"timeout=.* is no time to wait: pass seconds"):
        renoise.waiting(tiny.sd(), timeout).__enter__()
