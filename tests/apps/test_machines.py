"""Ray Data for real, with two actors on this machine: the same results as here, whoever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from renoise.batch.folder import Batch, opened
from tests.helpers import batches

pytestmark = pytest.mark.slow
PICTURES = 12
LONG = 900  # seconds, after which something hangs


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As Ray gives its actors one processor each: other numbers of threads round otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pipeline in a folder, as a user has one."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    batches.pipe().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, of which one cannot be read."""
    folder = batches.pictures(tmp_path_factory.mktemp("source") / "pictures", PICTURES)
    (folder / "05.png").write_bytes(b"no picture")
    return folder


def command(source: Path, out: Path, model: Path, *workers: str) -> list[str]:
    """Two shards for each actor, of one batch each, with so many passes that a batch takes a while."""
    asked = "-p cat --to dog --preset fast --steps 2 --passes 60 --size 32 --batch-size 3 --shard-size 3"
    start = [sys.executable, "-m", "renoise", "batch", str(source), "-o", str(out), "-m", str(model)]
    return [*start, *asked.split(), *workers]


RAY = ("--ray", "local", "--actors", "2")


def finished(arguments: list[str]) -> str:
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=LONG)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def here(source: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The numbers of an unbroken run in one process."""
    out = tmp_path_factory.mktemp("here") / "out"
    finished(command(source, out, model))
    return told(opened(out))


def told(batch: Batch) -> list[dict[str, Any]]:
    return [batches.numbers(row) for row in batches.rows(batch)]


def descendants(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        return list(psutil.Process(process.pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def workers(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Ray's actors that fill shards."""
    found = []
    for child in descendants(process):
        try:
            name = " ".join(child.cmdline())
        except psutil.Error:
            continue
        if name.startswith("ray::") and "MapWorker" in name and "__init__" not in name:
            found.append(child)
    return found


def wait(condition: Callable[[], object]) -> None:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < LONG, "nothing happens"
        time.sleep(0.02)


def test_actors_do_what_the_local_loop_does(
    source: Path, model: Path, here: list[dict[str, Any]], tmp_path: Path
) -> None:
    output = finished(command(source, tmp_path / "out", model, *RAY))
    assert "12 pictures: 11 done, 1 failed" in output
    assert told(opened(tmp_path / "out")) == here


def test_a_worker_that_is_killed_costs_nothing(
    source: Path, model: Path, here: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Both actors are killed, at different times, while they fill a shard."""
    out = tmp_path / "out"
    with subprocess.Popen(command(source, out, model, *RAY)) as process:
        for _ in range(2):
            wait(lambda: busy(out) and workers(process))
            victim = workers(process)[0]
            victim.send_signal(signal.SIGKILL)
            psutil.wait_procs([victim], timeout=LONG)
        assert process.wait(LONG) == 0
    assert told(opened(out)) == here


def test_a_driver_that_is_killed_is_started_again(
    source: Path, model: Path, here: list[dict[str, Any]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with subprocess.Popen(command(source, out, model, *RAY)) as process:
        wait(lambda: shards(out) and busy(out))
        left = descendants(process)
        os.kill(process.pid, signal.SIGKILL)
    assert 0 < len(shards(out)) < 4
    finished(command(source, out, model, *RAY))
    assert told(opened(out)) == here
    assert [path.name for path in opened(out).shards()] == shards(out)
    psutil.wait_procs(left, timeout=60)
    assert not [process for process in left if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def test_what_a_worker_cannot_do_is_said(source: Path, model: Path, tmp_path: Path) -> None:
    arguments = [*command(source, tmp_path / "out", model, *RAY), "--scheduler", "PNDMScheduler"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=LONG)
    assert done.returncode == 1
    assert "a worker failed" in done.stderr
    assert "--make-invertible" in done.stderr


def shards(out: Path) -> list[str]:
    folder = out / "shards"
    return sorted(path.name for path in folder.iterdir() if path.name[0] != ".") if folder.exists() else []


def busy(out: Path) -> bool:
    """Whether a shard is being written."""
    folder = out / "shards"
    return folder.exists() and any(path.name[0] == "." for path in folder.iterdir())
