"""The studio's own addresses: pictures come in and go out by the key of their session, in memory."""

from __future__ import annotations

import asyncio

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from renoise.apps.studio.choices import Refused
from renoise.apps.studio.downloads import download
from renoise.apps.studio.examples import examples
from renoise.apps.studio.pictures import encoded, mask_of
from renoise.apps.studio.sessions import GONE, Sessions

__all__ = ["add_routes"]


def add_routes(app: FastAPI, sessions: Sessions) -> None:
    """Adds the routes, all under /studio.

    Whoever has a session's key may fetch its files; the key is told to its own page only, after the login where there
    is one.  Names are looked up in the session, and never on a disk.
    """
    limits = sessions.limits

    @app.get("/studio/examples/{index}.png")
    async def example(index: int) -> Response:
        if not 0 <= index < len(examples()):
            return _error(404, "There is no such example.")
        return _picture(encoded(examples()[index].picture), "image/png", "public, max-age=86400")

    @app.get("/studio/{key}/{name}")
    async def file(key: str, name: str) -> Response:
        session = sessions.by_key(key)
        if session is None:
            return _error(404, GONE)
        made = await asyncio.to_thread(download, session, name)
        if made is None:
            return _error(404, "This file is no longer held.")
        return _picture(*made, "private, no-cache" if name in ("sheet.png", "source.png") else "private, max-age=3600")

    @app.post("/studio/{key}/upload")
    async def upload(key: str, request: Request) -> Response:
        session = sessions.by_key(key)
        if session is None:
            return _error(404, GONE)
        data = await _body(request)
        if data is None or len(data) > limits.megabytes * 1e6:
            return _error(413, f"This file is larger than {limits.megabytes:g} MB, the most that this studio takes.")
        return JSONResponse({"name": session.keep_upload(data)})

    @app.post("/studio/{key}/mask")
    async def mask(key: str, request: Request) -> Response:
        session = sessions.by_key(key)
        if session is None:
            return _error(404, GONE)
        try:
            session.mask = await asyncio.to_thread(mask_of, await _body(request) or b"", limits)
        except Refused as error:
            return _error(400, str(error))
        return JSONResponse({"painted": session.mask is not None})


async def _body(request: Request) -> bytes | None:
    """The body of a request; None where it broke off, or the guard broke it off."""
    try:
        return await request.body()
    except ClientDisconnect:
        return None


def _picture(data: bytes, kind: str, cache: str) -> Response:
    return Response(data, media_type=kind, headers={"cache-control": cache})


def _error(status: int, text: str) -> JSONResponse:
    return JSONResponse({"error": text}, status)
