"""A real ComfyUI in a folder of its own, and its HTTP API."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from comfyui.proof.graphs import Graph

__all__ = ["Failed", "Server", "running"]

HERE = Path(__file__).parent


class Failed(RuntimeError):  # noqa: N818 - what it says
    """ComfyUI refused a workflow, or a node of it ended with an error."""


class Server:
    """ComfyUI's HTTP API."""

    def __init__(self, port: int, base: Path) -> None:
        self.port, self.base = port, base
        self._client, self._runs = uuid.uuid4().hex, 0

    def get(self, path: str) -> Any:
        """The JSON at a path."""
        with _open(f"http://127.0.0.1:{self.port}{path}") as answer:
            return json.loads(answer.read())

    def post(self, path: str, data: Any) -> Any:
        """The JSON that comes back, or None."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", json.dumps(data).encode(), {"Content-Type": "application/json"}
        )
        try:
            with _open(request) as answer:
                body = answer.read()
        except urllib.error.HTTPError as error:
            raise Failed(error.read().decode()) from error
        return json.loads(body) if body else None

    def queue(self, graph: Graph) -> str:
        """Queues a workflow; returns its id."""
        number: str = self.post("/prompt", {"prompt": graph.nodes, "client_id": self._client})["prompt_id"]
        return number

    def wait(self, number: str, seconds: float = 300) -> dict[str, Any]:
        """What a queued workflow left in the history.

        Raises:
            Failed: a node ended with an error, or the workflow was interrupted.
            TimeoutError: it takes too long.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            history = self.get(f"/history/{number}")
            if number in history:
                found: dict[str, Any] = history[number]
                for kind, told in found["status"]["messages"]:
                    if kind == "execution_error":
                        raise Failed(f"{told['node_type']}: {told['exception_message']}")
                    if kind == "execution_interrupted":
                        raise Failed("interrupted")
                return found
            time.sleep(0.05)
        raise TimeoutError(f"{number} took more than {seconds} s")

    def run(self, graph: Graph) -> dict[str, Any]:
        """Queues a workflow and waits for it."""
        return self.wait(self.queue(graph))

    def latents(self, graph: Graph, **wanted: Any) -> dict[str, Tensor]:
        """Runs a workflow and returns the latents of some of its nodes, by name."""
        self._runs += 1  # a name of its own for every run, because ComfyUI does not write again what has not changed
        folder = f"latents/{self._runs}"
        for name, node in wanted.items():
            graph.add("SaveLatent", samples=node, filename_prefix=f"{folder}/{name}")
        self.run(graph)
        files = (self.base / "output" / folder).glob("*.latent")
        return {file.name.rsplit("_", 2)[0]: load_file(file)["latent_tensor"] for file in files}


@contextmanager
def running(comfy: Path, base: Path, pack: Path) -> Iterator[Server]:
    """A ComfyUI on the CPU with the node pack and the proof's nodes; `base` gets all its files."""
    shutil.rmtree(base / "output", ignore_errors=True)
    for name in ("custom_nodes", "input", "output", "models"):
        (base / name).mkdir(parents=True, exist_ok=True)
    for name, folder in (("renoise", pack), ("proof", HERE / "nodes")):
        link = base / "custom_nodes" / name
        if not link.exists():
            link.symlink_to(folder, target_is_directory=True)
    _write_checkpoints(comfy, base)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(HERE / "launch.py"), str(comfy / "main.py"), "--cpu", "--port", str(port)]
    command += ["--base-directory", str(base.resolve()), "--disable-api-nodes", "--preview-method", "latent2rgb"]
    command += ["--database-url", "sqlite:///:memory:"]
    with (base / "comfy.log").open("w") as log:
        process = subprocess.Popen(command, cwd=comfy, stdout=log, stderr=subprocess.STDOUT)
        try:
            server = Server(port, base)
            started = time.monotonic()
            while True:
                try:
                    server.get("/system_stats")
                    break
                except (OSError, urllib.error.URLError):
                    if process.poll() is not None or time.monotonic() - started > 600:
                        raise Failed((base / "comfy.log").read_text()[-3000:]) from None
                    time.sleep(0.2)
            yield server
        finally:
            process.terminate()
            process.wait()


def _write_checkpoints(comfy: Path, base: Path) -> None:
    if (base / "models/controlnet/tiny.safetensors").exists():
        return
    command = [sys.executable, str(HERE / "launch.py"), str(HERE / "checkpoints.py"), str(base / "models")]
    done = subprocess.run(
        command, env={**os.environ, "COMFY_PATH": str(comfy)}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Failed(done.stdout[-1000:] + done.stderr[-3000:])


def _open(request: Any) -> Any:
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60)
