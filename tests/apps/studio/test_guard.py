"""What the guard lets through, and what the command line takes as a login."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import typer

from renoise.apps.cli.studio import login
from renoise.apps.studio.guard import Guard
from renoise.apps.studio.server import listening


def through(path: str, body: Iterable[bytes] = (), headers: dict[str, str] | None = None, kind: str = "http") -> Any:
    """What an application behind a guard of 10 bytes got to see, and what was sent back."""
    seen: list[bytes] = []
    sent: list[Any] = []
    parts = [{"type": "http.request", "body": part, "more_body": True} for part in body]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for _ in parts:
            message = await receive()
            seen.append(message.get("body", b"") if message["type"] == "http.request" else b"<gone>")
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> Any:
        return parts[len(seen)]

    async def send(message: Any) -> None:
        sent.append(message)

    told = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {"type": kind, "path": path, "headers": told}
    asyncio.run(Guard(app, 10)(scope, receive, send))
    return seen, sent


@pytest.mark.parametrize("path", ["/", "/config", "/studio/key/edit-1.png", "/gradio_api/queue/join", "/assets/x.js"])
def test_what_the_page_needs_goes_through_with_headers(path: str) -> None:
    _, sent = through(path)
    headers = dict(sent[0]["headers"])
    assert sent[0]["status"] == 200
    assert b"connect-src 'self'" in headers[b"content-security-policy"]


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/upload",
        "/gradio_api/proxy=http://a/b",
        "/docs",
        "/configs",
        "/studio",
    ],
)
def test_the_rest_is_closed(path: str) -> None:
    _, sent = through(path)
    assert sent[0]["status"] == 404
    _, sent = through(path, kind="websocket")
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_bodies_are_bounded() -> None:
    assert through("/", [b"12345", b"67890"])[0] == [b"12345", b"67890"]
    assert through("/", [b"12345", b"678901"])[0] == [b"12345", b"<gone>"]
    for length in ("11", "-1", "many"):
        _, sent = through("/", headers={"content-length": length})
        assert sent[0]["status"] == 413


def test_a_login_comes_from_a_variable_or_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STUDIO_LOGIN", "ann:open: sesame")
    file = tmp_path / "login"
    file.write_text("bob:secret\n")
    assert login(None) is None
    assert login("STUDIO_LOGIN") == ("ann", "open: sesame")
    assert login(str(file)) == ("bob", "secret")
    with pytest.raises(typer.BadParameter, match="could be read by everybody"):
        login("ann:open sesame")
    for text in ("", "ann", ":secret", "ann:", "ann:secret\nbob:secret"):
        file.write_text(text)
        with pytest.raises(typer.BadParameter, match="does not hold one line user:password"):
            login(str(file))


def test_a_port_that_is_taken_is_said_at_once() -> None:
    door = listening("127.0.0.1", 0)
    door.listen()
    port = door.getsockname()[1]
    try:
        with pytest.raises(OSError, match=f"port {port} .*--port 0"):
            listening("127.0.0.1", port)
    finally:
        door.close()
