"""What the tests of the studio share: pictures as files, the studio in a process of its own, and its page."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).parents[2]
CHROMIUM = "/usr/bin/chromium"
SHOTS = ROOT / "build/studio"
"""Where screenshots are kept."""
PATIENCE = 60_000
"""Milliseconds to wait for work on a machine that others use too."""

# Notes every connection that the studio's process asks for; Python runs it before anything else.
_WITNESS = """
import json, os, sys
def witness(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        told = arguments[1] if event == "socket.connect" else arguments[0]
        with open(os.environ["RENOISE_TEST_CONNECTIONS"], "a") as file:
            file.write(json.dumps([event, repr(told)]) + "\\n")
sys.addaudithook(witness)
"""


def png(width: int, height: int, shade: int = 128) -> bytes:
    """A picture of one shade, as a file."""
    return as_png(Image.new("RGB", (width, height), (shade, shade, shade)))


def as_png(picture: Image.Image) -> bytes:
    """A picture as a file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def until(condition: Callable[[], object], seconds: float = 20.0, what: str = "it") -> None:
    """Waits for something to become true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {seconds} s"
        time.sleep(0.02)


class Studio:
    """`renoise studio` in a process of its own.

    Attributes:
        url: of the page.
        process: the process.
        seconds: from its start to the moment when the page can be opened.
        folder: a temporary folder that only this process uses.
    """

    def __init__(self, folder: Path, *options: str, **environment: str) -> None:
        self.folder = folder
        witness = folder / "witness"
        witness.mkdir()
        (witness / "sitecustomize.py").write_text(_WITNESS)
        self._connections = folder / "connections"
        self._connections.touch()
        (folder / "tmp").mkdir()
        paths = [str(witness), str(ROOT / "src"), str(ROOT)]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONUNBUFFERED": "1",
            "RENOISE_TEST_CONNECTIONS": str(self._connections),
            "TMPDIR": str(folder / "tmp"),
            "COLUMNS": "200",
            **environment,
        }
        began = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "renoise", "studio", "--port", "0", *options],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=folder,
        )  # fmt: skip
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        until(lambda: self._address() or self.process.poll() is not None, 180, "the start")
        self.url = self._address()
        assert self.url, "".join(self.lines)
        self.seconds = time.monotonic() - began

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    def _address(self) -> str:
        found = re.search(r"http://\S+:\d+/", "".join(self.lines))
        return found.group() if found else ""

    def connections(self) -> list[str]:
        """Every address that the process asked for and that is not this machine."""
        told = [json.loads(line) for line in self._connections.read_text().splitlines()]
        here = ("'127.0.0.1'", "'::1'", "'localhost'", "None")
        return [f"{event} {address}" for event, address in told if not any(name in address for name in here)]

    def memory(self) -> int:
        """Resident memory in bytes."""
        import psutil

        return int(psutil.Process(self.process.pid).memory_info().rss)

    def threads(self) -> int:
        """Number of threads."""
        import psutil

        return int(psutil.Process(self.process.pid).num_threads())

    def files(self) -> list[Path]:
        """Every file in the temporary folder."""
        return [path for path in (self.folder / "tmp").rglob("*") if path.is_file()]

    def stop(self, how: signal.Signals = signal.SIGINT, seconds: float = 60.0) -> int:
        """Ends it as Ctrl-C does; returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        code = self.process.wait(seconds)
        self._reader.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@contextmanager
def browser() -> Iterator[Any]:
    """Debian's Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        running = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield running
        finally:
            running.close()


class Page:
    """The studio's page in a browser tab, and what is done on it."""

    def __init__(self, tab: Any, url: str) -> None:
        self.tab = tab
        self.problems: list[str] = []
        self.foreign: list[str] = []
        tab.set_default_timeout(PATIENCE)
        tab.on("pageerror", lambda error: self.problems.append(str(error)))
        tab.on("console", self._logged)
        tab.on("request", lambda request: self._asked(request.url, url))
        tab.goto(url)
        tab.wait_for_selector("#studio-key", state="attached")

    def _logged(self, message: Any) -> None:
        if message.type == "error":
            self.problems.append(message.text)

    def _asked(self, address: str, url: str) -> None:
        if not address.startswith((url, "data:", "blob:")):
            self.foreign.append(address)

    @property
    def key(self) -> str:
        """The key of its session."""
        return str(self.tab.locator("#studio-key").get_attribute("data-key"))

    def message(self, text: str, kind: str = "") -> Any:
        """Waits for a message with this text."""
        self.tab.wait_for_selector(
            f"#status .say{'.' + kind if kind else ''}:has-text({json.dumps(text, ensure_ascii=False)})"
        )

    def example(self, index: int = 0) -> None:
        """Chooses an example."""
        self.tab.click(f"[data-example='{index}']")
        self.message("press Invert")

    def upload(self, name: str, data: bytes, kind: str = "image/png") -> None:
        """Chooses a file."""
        self.tab.set_input_files("label.drop input", {"name": name, "mimeType": kind, "buffer": data})

    def invert(self) -> None:
        """Presses Invert and waits for the end."""
        self._fresh()
        self.tab.click("#invert")
        self.message("Inverted.", "done:not([data-old])")

    def unfold(self, title: str) -> None:
        """Opens a part of the page that is folded.

        The framework makes its fields only then, and what is typed in the very moment in which they appear is lost.
        """
        self.tab.get_by_text(title).click()
        self.tab.wait_for_timeout(500)

    def invert_for_long(self) -> None:
        """Begins an inversion of minutes, and waits until passes have been made and the rest is foreseen.

        On a busy machine a press can hit nothing, since the page moved under it while it was drawn, or a number that
        was typed can be lost, so that a short inversion runs. Both are done again, as a person would.
        """
        steps = self.tab.get_by_label("Steps", exact=True)
        if not steps.is_visible():
            self.unfold("More settings")
        for _ in range(4):
            steps.fill("")
            steps.fill("400")
            steps.press("Tab")
            self._fresh()
            self.tab.click("#invert")
            began = time.monotonic()
            while not self.tab.locator("#status .say.done:not([data-old])").count():
                if "about" in self.tab.inner_text("#status"):
                    return
                if time.monotonic() - began > (90 if self.tab.locator("#stop").is_enabled() else 10):
                    break
                self.tab.wait_for_timeout(50)
        raise AssertionError(f"no long inversion began; the page says {self.tab.inner_text('#status')!r}")

    def paint(self) -> None:
        """Chooses a painted mask, and waits until one can paint."""
        self.tab.get_by_text("painted", exact=True).click()
        self.tab.wait_for_selector(".painter canvas")
        self.tab.wait_for_function("document.querySelector('.painter canvas').width >= 320")

    def edit(self, *prompts: str) -> None:
        """Writes prompts, presses Edit and waits for the end."""
        self.tab.fill("#prompts textarea", "\n".join(prompts))
        self._fresh()
        self.tab.click("#edit")
        told = "One edit made." if len(prompts) == 1 else f"{len(prompts)} edits made."
        self.message(told, "done:not([data-old])")

    def _fresh(self) -> None:
        """Marks the message that is shown, so that the same words said anew are told from it."""
        self.tab.evaluate("document.querySelector('#status .say')?.setAttribute('data-old', '')")

    def file(self, name: str) -> bytes:
        """A file of the session, by its address."""
        answer = self.tab.request.get(self.tab.url.split("?")[0] + f"studio/{self.key}/{name}")
        assert answer.ok, (name, answer.status)
        return bytes(answer.body())

    def shot(self, name: str, whole: bool = False) -> None:
        """Keeps a screenshot."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.tab.wait_for_timeout(250)
        self.tab.screenshot(path=SHOTS / f"{name}.png", full_page=whole)
