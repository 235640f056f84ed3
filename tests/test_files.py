"""Writing a file: wholly or not at all, whoever else writes, whatever goes wrong on the way."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from renoise import files

CHILD = """
import sys
from pathlib import Path
from renoise import files
path, letter = Path(sys.argv[1]), sys.argv[2].encode()
print("ready", flush=True)
while True:
    files.write(path, letter * 300_000)
"""


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_a_part_file_of_somebody_else_stays(tmp_path: Path) -> None:
    for name in ("cat.safetensors.part", ".part"):
        (tmp_path / name).write_bytes(b"mine")
    files.write(tmp_path / "cat.safetensors", b"new")
    assert (tmp_path / "cat.safetensors").read_bytes() == b"new"
    assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path) if "part" in name} == {
        "cat.safetensors.part": b"mine",
        ".part": b"mine",
    }


def test_threads_that_write_one_path_leave_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "same"
    wrong: list[OSError] = []

    def work(letter: bytes) -> None:
        for _ in range(20):
            try:
                files.write(path, letter * 200_000)
            except OSError as error:
                wrong.append(error)

    def look() -> None:
        while any(thread.is_alive() for thread in threads):
            if path.exists():
                data = path.read_bytes()
                if len(data) != 200_000 or len(set(data)) != 1:
                    wrong.append(OSError("torn"))

    threads = [threading.Thread(target=work, args=(letter.encode(),)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    look()
    for thread in threads:
        thread.join()
    assert not wrong
    assert names(tmp_path) == ["same"]


def test_a_killed_writer_leaves_the_earlier_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "cat.safetensors"
    path.write_bytes(b"e" * 300_000)
    for turn in range(6):
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(path), "abc"[turn % 3]], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.003 * (turn + 1))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        data = path.read_bytes()
        assert len(data) == 300_000
        assert len(set(data)) == 1
    left = [name for name in names(tmp_path) if name != "cat.safetensors"]
    assert all(name.startswith(".renoise-") and name.endswith(".part") for name in left)


@pytest.mark.parametrize("stage", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_the_earlier_file_and_no_other(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cat.safetensors"
    path.write_bytes(b"earlier")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    if stage == "write":
        limited = (
            "import resource, signal, sys; from renoise import files\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
            "try:\n    files.write(sys.argv[1], b'x' * 5000)\nexcept OSError as error:\n    print(error.errno)"
        )
        done = subprocess.run([sys.executable, "-c", limited, str(path)], capture_output=True, text=True, check=True)
        assert int(done.stdout)
    else:
        monkeypatch.setattr(os, stage, full)
        with pytest.raises(OSError, match="No space left"):
            files.write(path, b"new")
    assert path.read_bytes() == b"earlier"
    assert names(tmp_path) == ["cat.safetensors"]


def test_permissions_and_links_are_kept(tmp_path: Path) -> None:
    path, link = tmp_path / "real", tmp_path / "link"
    path.write_bytes(b"earlier")
    path.chmod(0o640)
    link.symlink_to("real")
    files.write(link, b"new")
    assert link.is_symlink()
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", 0o640)
    (tmp_path / "dangling").symlink_to("folder/later")
    files.write(tmp_path / "dangling", b"new")
    assert (tmp_path / "dangling").is_symlink()
    assert (tmp_path / "folder" / "later").read_bytes() == b"new"
    umask = os.umask(0o027)
    try:
        files.write(tmp_path / "fresh", b"")
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "fresh").stat().st_mode) == 0o640


def test_devices_pipes_folders_and_read_only_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to(os.devnull)
    for name in ("pipe", "device"):
        with pytest.raises(OSError, match="is a device, pipe or socket: pass the name of a regular file"):
            files.write(tmp_path / name, b"new")
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    with pytest.raises(IsADirectoryError, match="is a folder: pass the name of a file in it"):
        files.write(tmp_path, b"new")
    (tmp_path / "fixed").touch()
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everything
    with pytest.raises(PermissionError, match="is read-only"):
        files.write(tmp_path / "fixed", b"new")


def test_names_as_long_as_the_system_takes(tmp_path: Path) -> None:
    files.write(tmp_path / ("x" * 255), b"new")
    with pytest.raises(OSError, match="too long"):
        files.write(tmp_path / ("x" * 256), b"new")
    assert len(names(tmp_path)) == 1


@pytest.mark.parametrize("path", [None, 3, b"cat", ["cat"]])
def test_what_is_no_path(path: object) -> None:
    with pytest.raises(TypeError, match=r"path=.* is no path: pass a str or an os\.PathLike"):
        files.write(path, b"")  # type: ignore[arg-type]
    for text in ("", "a\0b"):
        with pytest.raises(ValueError, match="pass the name of a file"):
            files.write(text, b"")
