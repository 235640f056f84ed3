"""One piece of work at a time, in the order of arrival, that can be stopped and leaves no thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from renoise.apps.studio.line import Job, Line
from renoise.core.progress import Progress

THREAD = "renoise-studio-work"


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Waits for something to become true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == THREAD]


def passes(gate: threading.Event, count: int = 3) -> Callable[[Progress], str]:
    """Work of so many passes, each of which waits for the gate."""

    def work(progress: Progress) -> str:
        progress.begin("invert", count)
        for _ in range(count):
            gate.wait(10)
            progress.advance(1)
        return "done"

    return work


def test_jobs_run_one_at_a_time_in_the_order_of_arrival() -> None:
    line, order, running = Line(), [], []

    def work(number: int) -> Callable[[Progress], int]:
        def run(progress: Progress) -> int:
            running.append(number)
            assert running == [number]
            time.sleep(0.002)
            order.append(number)
            running.remove(number)
            return number * 10

        return run

    jobs = [line.add(work(number)) for number in range(20)]
    until(lambda: all(job.over for job in jobs))
    assert order == list(range(20))
    assert line.served == 20
    assert [job.result for job in jobs] == [number * 10 for number in range(20)]


def test_the_thread_lives_as_long_as_there_is_work() -> None:
    line, gate = Line(), threading.Event()
    job = line.add(passes(gate))
    assert len(threads()) == 1
    gate.set()
    until(lambda: job.over and not threads())
    again = line.add(passes(gate))
    until(lambda: again.over and not threads())
    assert again.result == "done"


def test_places_count_what_comes_before() -> None:
    line, gate = Line(), threading.Event()
    jobs = [line.add(passes(gate)) for _ in range(4)]
    until(lambda: jobs[0].state == "running")
    assert [line.place(job) for job in jobs] == [0, 1, 2, 3]
    jobs[1].stop()  # whoever leaves makes room
    assert [line.place(job) for job in jobs[2:]] == [1, 2]
    gate.set()
    until(lambda: all(job.over for job in jobs))
    assert [job.state for job in jobs] == ["done", "stopped", "done", "done"]
    assert line.place(jobs[3]) == 0


def test_stopping_ends_a_job_before_its_next_pass_and_the_next_one_runs() -> None:
    line, gate = Line(), threading.Event()
    first, second = line.add(passes(gate, 100)), line.add(passes(gate, 2))
    until(lambda: first.state == "running" and first.progress.total == 100)
    first.stop()
    gate.set()
    until(lambda: second.over)
    assert first.state == "stopped"
    assert first.progress.passes <= 1
    assert second.state == "done"


def test_what_fails_is_kept_without_its_frames_and_the_line_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    line = Line()

    def broken(progress: Progress) -> None:
        raise KeyError("inside")

    def refused(progress: Progress) -> None:
        raise ValueError("strength=2 is not in (0, 1]")

    one, two, three = line.add(broken), line.add(refused), line.add(lambda progress: 7)
    until(lambda: three.over)
    assert (one.state, two.state, three.result) == ("failed", "failed", 7)
    assert one.error is not None
    assert one.error.__traceback__ is None
    # what users are told needs no log; what they are not told stands in it
    assert [record.exc_info is not None for record in caplog.records] == [True]


def test_closing_stops_everything_and_takes_no_more() -> None:
    line, gate = Line(), threading.Event()
    jobs = [line.add(passes(gate, 1000)) for _ in range(3)]
    until(lambda: jobs[0].state == "running")
    gate.set()
    line.close()
    assert not threads()
    assert all(job.over for job in jobs)
    assert {job.state for job in jobs} == {"stopped"}
    with pytest.raises(RuntimeError, match="being closed"):
        line.add(lambda progress: None)


def test_the_time_left_follows_from_the_pace() -> None:
    gate = threading.Event()
    gate.set()

    def slow(progress: Progress) -> None:
        progress.begin("invert", 10)
        assert job.seconds_left() is None
        for _ in range(5):
            time.sleep(0.01)
            progress.advance(1)
        left = job.seconds_left()
        assert left is not None
        assert 0.03 < left < 1

    job = Job(slow)
    job.run()
    assert job.state == "done", job.error
