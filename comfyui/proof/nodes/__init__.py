"""Nodes that only the proof needs: a conditioning for checkpoints without a text encoder, and a model patch."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import ComfyExtension, io


class Conditioning(io.ComfyNode):  # type: ignore[misc]
    """Random text embeddings."""

    @classmethod
    def define_schema(cls) -> Any:
        return io.Schema(
            node_id="ProofConditioning",
            inputs=[io.Int.Input("seed"), io.Int.Input("width"), io.Int.Input("pooled")],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, seed: int, width: int, pooled: int) -> Any:
        draw = torch.Generator().manual_seed(seed)
        text, whole = torch.randn(1, 7, width, generator=draw), torch.randn(1, pooled, generator=draw)
        return io.NodeOutput([[text, {"pooled_output": whole}]])


class AttentionPatch(io.ComfyNode):  # type: ignore[misc]
    """A patch of the kind that IP-Adapter nodes set: what attends to the text attends to something else too."""

    @classmethod
    def define_schema(cls) -> Any:
        return io.Schema(node_id="ProofAttentionPatch", inputs=[io.Model.Input("model")], outputs=[io.Model.Output()])

    @classmethod
    def execute(cls, model: Any) -> Any:
        def patch(q: Any, k: Any, v: Any, extra_options: Any) -> Any:
            return q, k.flip(-1) + k, v + v.mean(1, keepdim=True)

        patched = model.clone()
        patched.set_model_attn2_patch(patch)
        return io.NodeOutput(patched)


class Extension(ComfyExtension):  # type: ignore[misc]
    async def get_node_list(self) -> list[Any]:
        return [Conditioning, AttentionPatch]


async def comfy_entrypoint() -> Any:
    return Extension()
