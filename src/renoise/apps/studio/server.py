"""The studio as a server: a folder of its own, one model, no request that leaves the machine, nothing left behind."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from renoise.apps.studio.line import Line
from renoise.apps.studio.room import Options, Room
from renoise.apps.studio.sessions import Sessions

__all__ = ["Server", "listening"]


class Server:
    """A studio that can be started and stopped.

    Attributes:
        room: what its page works with; the folder is removed by `close`.
    """

    def __init__(self, pipe: Any, options: Options, door: socket.socket) -> None:
        """Builds the page.

        Args:
            pipe: the pipeline that everything runs on.
            options: how to serve.
            door: a bound socket (`listening`), which is closed with the server.

        Raises:
            ModuleNotFoundError: the packages of the extra `studio` are not installed.
        """
        self._socket = door
        self.room = Room(options, Sessions(options.limits), Line(), Path(tempfile.mkdtemp(prefix="renoise-studio-")))
        try:
            _offline(self.room.folder)
            self._server = self._built(pipe)
        except BaseException:
            self.close()
            raise
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where the page is."""
        host, port = self._socket.getsockname()[:2]
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
        return f"http://{shown}:{port}/"

    def serve(self, ready: Callable[[str], object] = lambda url: None) -> None:
        """Serves until it is interrupted (Ctrl-C, SIGTERM), then stops all work and removes the folder.

        Args:
            ready: is told the URL as soon as the page can be opened.
        """
        before = signal.signal(signal.SIGTERM, _leave)
        threading.Thread(target=self._tell, args=(ready,), daemon=True, name="renoise-studio-ready").start()
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self.close()
            signal.signal(signal.SIGTERM, before)

    def start(self) -> str:
        """Serves in a thread of its own, and returns the URL when the page can be opened."""
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="renoise-studio-server", daemon=True
        )
        self._thread.start()
        self._wait()
        return self.url

    def close(self) -> None:
        """Stops serving and working, and removes the folder; may be called twice."""
        if hasattr(self, "_server"):
            self._server.should_exit = True
            if self._thread is not None:
                self._thread.join(30)
        self.room.sessions.close_all()
        self.room.line.close()
        self._socket.close()
        shutil.rmtree(self.room.folder, ignore_errors=True)

    def _tell(self, ready: Callable[[str], object]) -> None:
        if self._wait():
            ready(self.url)

    def _wait(self) -> bool:
        while not self._server.started and not self._server.should_exit:
            time.sleep(0.02)
        return bool(self._server.started)

    def _built(self, pipe: Any) -> Any:
        import gradio
        import uvicorn
        from fastapi import FastAPI

        from renoise.apps.studio.guard import Guard
        from renoise.apps.studio.page import LOOKS, built
        from renoise.apps.studio.routes import add_routes

        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        add_routes(app, self.room.sessions)
        page = built(pipe, self.room)
        gradio.mount_gradio_app(
            app,
            page,
            "/",
            server_name=self._socket.getsockname()[0],
            server_port=self._socket.getsockname()[1],
            footer_links=[],
            auth=self.room.options.auth,
            auth_message="This studio asks for the name and the password that it was started with.",
            allowed_paths=[],
            blocked_paths=["/"],
            show_error=False,
            max_file_size=1,  # nothing is uploaded by the framework
            ssr_mode=False,
            enable_monitoring=False,
            pwa=False,
            mcp_server=False,
            **LOOKS,
        )
        app.add_middleware(Guard, most_bytes=int(self.room.options.limits.megabytes * 1e6) + 100_000)
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2, access_log=False, ws="none")
        server = uvicorn.Server(config)
        # pages that are still open when the server ends are no errors
        logging.getLogger("uvicorn.error").addFilter(lambda record: not server.should_exit)
        if find_spec("matplotlib") is not None:
            import matplotlib

            matplotlib.get_backend()  # gradio asks for it at its first event, which is half a second of imports
        return server


def _leave(number: int, frame: object) -> None:
    """Ends the program by way of its `finally`s, which a signal alone would skip."""
    sys.exit(128 + number)


def listening(host: str, port: int) -> socket.socket:
    """A socket bound to an address, which can so be refused before a model is loaded.

    Args:
        host: address to listen at.
        port: TCP port; 0 for any that is free.

    Raises:
        OSError: the address cannot be had; says what to do.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise OSError(
            f"nothing can listen at {host}, port {port} ({error.strerror or error}): another program may be there; "
            "choose another with --port, or --port 0 for any that is free"
        ) from error
    return bound


def _offline(folder: Path) -> None:
    """Settings of the page's framework that must be there before it is imported."""
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_RUN_HISTORY"] = "False"
    os.environ["GRADIO_SSR_MODE"] = "False"
