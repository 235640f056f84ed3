"""ReNoise for ComfyUI: invert pictures into the model that is loaded, and edit them with words.

ComfyUI imports this package from its folder of custom nodes and calls `comfy_entrypoint`.
"""

from __future__ import annotations

from typing import Any

__all__ = ["comfy_entrypoint"]


async def comfy_entrypoint() -> Any:
    """The extension with its nodes."""
    from comfy_api.latest import ComfyExtension

    from . import file_nodes, nodes, replay_nodes

    class Extension(ComfyExtension):  # type: ignore[misc]
        async def get_node_list(self) -> list[Any]:
            return [*nodes.NODES, *replay_nodes.NODES, *file_nodes.NODES]

    return Extension()
