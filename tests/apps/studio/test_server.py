"""The studio as a server: what it shows to whom, what it opens, what it asks for, and what it leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.studio import ROOT, Page, Studio, png, until

pytestmark = pytest.mark.slow

Open = Callable[..., Page]
CAT = "cat face, fluent flat style"


def asked(url: str, data: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    """Status and body of a plain request."""
    request = urllib.request.Request(url, data, {"content-type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_nothing_leaves_the_machine(page: Open, studio: Studio) -> None:
    opened = page()
    opened.example()
    opened.invert()
    opened.edit(CAT)
    assert opened.foreign == []  # the browser's side
    assert studio.connections() == []  # the server's side


def test_the_witness_of_connections_is_awake(tmp_path: Path) -> None:
    """What the test before relies on: a process that does connect is noticed."""
    from tests.helpers import studio as helper

    (tmp_path / "sitecustomize.py").write_text(helper._WITNESS)
    log = tmp_path / "log"
    code = (
        "import socket; s = socket.socket(); s.settimeout(.2)\ntry: s.connect(('192.0.2.1', 9))\nexcept OSError: pass"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "RENOISE_TEST_CONNECTIONS": str(log)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert "192.0.2.1" in log.read_text()


def test_no_path_of_a_client_is_opened_and_no_address_is_fetched(page: Open, studio: Studio) -> None:
    opened, url = page(), studio.url
    config = json.loads(asked(f"{url}config")[1])
    for path in (
        "gradio_api/file=/etc/passwd", "file=/etc/passwd", "gradio_api/file=https://example.com/x.png",
        "gradio_api/proxy=https://example.com/x.png", "gradio_api/upload", "gradio_api/stream/x", "monitoring",
        "gradio_api/runs", "gradio_api/component_server", "docs", "openapi.json", "gradio_api/mcp",
        "gradio_api/deep_link", "gradio_api/info",
    ):  # fmt: skip
        for data in (None, b"{}"):
            status, body = asked(url + path, data)
            assert status == 404, path
            assert b"root:" not in body
    for name in ("%2e%2e%2fedit-1.png", "..%2f..%2fetc%2fpasswd", "edit-1.png", "sheet.png", "%00"):
        assert asked(f"{url}studio/{opened.key}/{name}")[0] == 404
    # a field whose value pretends to be a file, of this machine or of another one
    for number, path in enumerate(("/etc/passwd", "http://192.0.2.1/x.png", str(ROOT / "README.md"))):
        for dependency in range(len(config["dependencies"])):
            inputs = len(config["dependencies"][dependency]["inputs"])
            file = {"path": path, "meta": {"_type": "gradio.FileData"}, "url": path, "orig_name": "x"}
            name = f"hostile{number}{dependency}"
            asks = json.dumps({"data": [file] * inputs, "fn_index": dependency, "session_hash": name}).encode()
            status, told = asked(f"{url}gradio_api/queue/join", asks)
            assert b"root:" not in told
    time.sleep(1)
    assert studio.connections() == []
    assert "Traceback" not in opened.tab.content()
    opened.example()  # it goes on


def test_bodies_are_bounded_whether_or_not_they_tell_their_length(page: Open, studio: Studio) -> None:
    opened = page()
    host, port = studio.url.split("/")[2].split(":")
    start = f"POST /studio/{opened.key}/upload HTTP/1.1\r\nhost: x\r\n"
    with socket.create_connection((host, int(port)), timeout=60) as line:
        line.sendall(f"{start}content-length: 33000000\r\n\r\n".encode())
        assert line.recv(100).startswith(b"HTTP/1.1 413")  # before a byte of it is read
    before = studio.memory()
    with socket.create_connection((host, int(port)), timeout=60) as line:
        line.sendall(f"{start}transfer-encoding: chunked\r\n\r\n".encode())
        with contextlib.suppress(OSError):  # it hangs up
            for _ in range(80):
                line.sendall(b"100000\r\n" + bytes(0x100000) + b"\r\n")
    time.sleep(0.5)
    assert studio.memory() - before < 60e6
    assert asked(f"{studio.url}studio/nobody/upload", png(4, 4))[0] == 404


def test_tabs_and_browsers_see_nothing_of_each_other(page: Open, studio: Studio) -> None:
    one = page()
    second = Page(one.tab.context.new_page(), studio.url)  # another tab of the same browser
    three = page()  # another browser
    assert len({one.key, second.key, three.key}) == 3
    for number, opened in enumerate((one, second, three)):
        opened.example(number)
    for opened in (one, second, three):
        opened.tab.click("#invert")  # all at once
    for opened in (one, second, three):
        opened.message("Inverted.", "done")
    one.edit(CAT)
    assert second.tab.locator("[data-choose]").count() == three.tab.locator("[data-choose]").count() == 0
    assert asked(f"{studio.url}studio/{second.key}/edit-1.png")[0] == 404
    assert len({opened.file("inversion-1-original.png") for opened in (one, second, three)}) == 3
    for opened, name in ((one, "one"), (three, "other")):
        opened.shot(f"two-browsers-{name}")
    status, body = asked(f"{studio.url}config")
    assert status == 200
    assert one.key.encode() not in body
    assert CAT.encode() not in body


def test_the_place_in_the_queue_is_shown_and_can_be_left(page: Open) -> None:
    first, then = page(), page()
    for opened in (first, then):
        opened.example()
    first.invert_for_long()
    then.tab.click("#invert")
    then.message("You are number 2 in the queue")
    then.shot("queue")
    then.tab.click("#stop")
    then.message("Inverting was stopped")
    then.tab.click("#invert")
    then.message("You are number 2 in the queue")
    first.tab.click("#stop")
    then.message("Inverted.", "done")


def test_closing_a_tab_in_the_middle_leaves_nothing(page: Open, studio: Studio) -> None:
    opened = page()
    opened.example()
    opened.invert()
    key = opened.key
    assert asked(f"{studio.url}studio/{key}/inversion-1-original.png")[0] == 200
    opened.invert_for_long()
    opened.tab.close()
    # its session goes, and with it what it held; the model is free for the next one
    until(lambda: asked(f"{studio.url}studio/{key}/inversion-1-original.png")[0] == 404, 60, "the end of the session")
    other = page()
    other.example()
    began = time.monotonic()
    other.invert()
    print(f"after a tab was closed in the middle, the next inversion took {time.monotonic() - began:.1f} s")
    assert studio.files() == []


def test_a_restart_is_told_and_the_page_goes_on(chromium: Any, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = Studio(tmp_path / "a", "--port", port)
    tab = chromium.new_context().new_page()
    opened = Page(tab, first.url)
    opened.example()
    opened.invert()
    first.stop()
    again = Studio(tmp_path / "b", "--port", port)
    try:
        tab.goto(again.url)
        opened.message("The studio was started anew. What you downloaded is safe")
        opened.shot("restarted")
        opened.example(2)
        opened.invert()
    finally:
        tab.context.close()
        again.stop()


def middle_of_an_inversion(studio: Studio, chromium: Any) -> Any:
    context = chromium.new_context()
    opened = Page(context.new_page(), studio.url)
    opened.example()
    opened.invert_for_long()
    return context


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_stopping_the_server_in_the_middle_leaves_no_process_and_no_file(
    chromium: Any, tmp_path: Path, how: signal.Signals
) -> None:
    studio = Studio(tmp_path)
    context = middle_of_an_inversion(studio, chromium)
    began = time.monotonic()
    code = studio.stop(how)
    print(f"ended {time.monotonic() - began:.1f} s after {how.name}, in the middle of an inversion")
    assert code in (0, 130, 143, -signal.SIGTERM)
    assert studio.files() == []
    assert list((tmp_path / "tmp").glob("renoise-*")) == []
    assert "Traceback" not in "".join(studio.lines)
    context.close()


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Studio]:
    """A studio that asks for a password."""
    running = Studio(tmp_path, "--auth", "STUDIO_LOGIN", STUDIO_LOGIN="ann:open: sesame")
    yield running
    running.stop()


def test_a_password_is_asked_for(locked: Studio, chromium: Any) -> None:
    url = locked.url
    assert asked(f"{url}gradio_api/queue/join", b'{"data": [], "fn_index": 0, "session_hash": "x"}')[0] == 401
    status, body = asked(f"{url}config")
    assert status == 401 or b"dependencies" not in body
    tab = chromium.new_context().new_page()
    tab.goto(url)
    tab.get_by_label("username").fill("ann")
    tab.get_by_label("password").fill("wrong")
    tab.get_by_role("button", name="Login").click()
    tab.wait_for_selector("text=Incorrect")
    tab.screenshot(path=ROOT / "build/studio/login.png")
    tab.get_by_label("username").fill("ann")  # the form was emptied
    tab.get_by_label("password").fill("open: sesame")
    tab.get_by_role("button", name="Login").click()
    tab.wait_for_selector("#studio-key", state="attached")
    tab.context.close()
    assert "sesame" not in "".join(locked.lines)
    assert locked.connections() == []
