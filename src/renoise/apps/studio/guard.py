"""What stands between the page and whoever asks: only known addresses, bodies of bounded size, and nothing from abroad.

The page's framework could take files from a browser onto the disk, and hand files of the disk out.  The studio uses
neither: pictures come and go by its own routes, in memory.  So those addresses are closed, as is all else unneeded.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

__all__ = ["Guard"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_OPEN = (
    "/assets/",
    "/static/",
    "/svelte/",
    "/studio/",
    "/gradio_api/queue/",
    "/gradio_api/heartbeat/",
    "/gradio_api/startup-events",
    "/gradio_api/app_id",
    "/gradio_api/cancel",
    "/gradio_api/reset",
)
_EXACTLY = ("/", "/config", "/theme.css", "/login", "/logout", "/favicon.ico", "/robots.txt", "/manifest.json")

_HEADERS = (
    # the framework's scripts and styles are partly inline; nothing may come from, or go to, another host
    (
        b"content-security-policy",
        b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self'; form-action 'self'; "
        b"base-uri 'self'; frame-ancestors 'self'",
    ),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


class Guard:
    """ASGI middleware."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], most_bytes: int) -> None:
        """`most_bytes`: of a request's body."""
        self._app, self._most = app, most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        path = scope.get("path", "")
        if scope["type"] != "http" or not (path in _EXACTLY or path.startswith(_OPEN)):
            await _refuse(send, scope, 404, "There is nothing here.")
            return
        told = dict(scope["headers"]).get(b"content-length", b"0")
        if not told.isdigit() or int(told) > self._most:
            await _refuse(send, scope, 413, f"This is larger than {self._most / 1e6:g} MB, the most that is taken.")
            return
        await self._app(scope, self._bounded(receive), _with_headers(send))

    def _bounded(self, receive: Receive) -> Receive:
        got = 0

        async def bounded() -> MutableMapping[str, Any]:
            nonlocal got
            message = await receive()
            got += len(message.get("body", b""))
            if got > self._most:  # a body that did not tell its length
                return {"type": "http.disconnect"}
            return message

        return bounded


def _with_headers(send: Send) -> Send:
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *_HEADERS]
        await send(message)

    return sending


async def _refuse(send: Send, scope: Scope, status: int, text: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    body = json.dumps({"error": text}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *_HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
