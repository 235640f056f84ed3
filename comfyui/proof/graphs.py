"""Workflows in the format of ComfyUI's API, written by a small builder."""

from __future__ import annotations

from typing import Any

__all__ = ["Graph", "Link", "edited", "emoji", "replays", "tiny"]

Link = list[Any]


class Graph:
    """A workflow that grows node by node.

    Attributes:
        nodes: the workflow as ComfyUI's API takes it.
    """

    def __init__(self) -> None:
        self.nodes: dict[str, Any] = {}

    def add(self, kind: str, title: str | None = None, /, **inputs: Any) -> Graph.Node:
        """A node; inputs that are None stay unwired."""
        number = str(len(self.nodes) + 1)
        wired = {name: value.out(0) if isinstance(value, Graph.Node) else value for name, value in inputs.items()}
        self.nodes[number] = {"class_type": kind, "inputs": {k: v for k, v in wired.items() if v is not None}}
        if title:
            self.nodes[number]["_meta"] = {"title": title}
        return Graph.Node(number)

    class Node:
        """A node that was added."""

        def __init__(self, number: str) -> None:
            self.number = number

        def out(self, slot: int) -> Link:
            """One of its outputs."""
            return [self.number, slot]


def emoji(graph: Graph, pictures: list[str], source: str, **invert: Any) -> dict[str, Any]:
    """The shipped model, some pictures of its size from the input folder, and their inversion."""
    loaded = graph.add("RenoiseEmojiModel", "the model that ships with renoise", name="emoji-turbo")
    image = graph.add("LoadImage", "your picture", image=pictures[0])
    for name in pictures[1:]:
        image = graph.add("ImageBatch", image1=image, image2=graph.add("LoadImage", image=name))
    latent = graph.add("VAEEncode", pixels=image, vae=loaded.out(2))
    positive = graph.add("CLIPTextEncode", "what it shows", text=source, clip=loaded.out(1))
    words: dict[str, Any] = {
        "sampler_name": "euler_ancestral",
        "scheduler": "simple",
        "steps": 4,
        "denoise": 1.0,
        "cfg": 1.0,
    }
    words |= {"preset": "auto", "passes": 0, "seed": 0} | invert
    found = graph.add("RenoiseInvert", model=loaded.out(0), positive=positive, latent=latent, **words)
    return {"model": loaded.out(0), "clip": loaded.out(1), "vae": loaded.out(2), "inversion": found.out(0)} | {
        "positive": positive,
        "image": image,
        "latent": latent,
    }


def edited(graph: Graph, of: dict[str, Any], prompt: str | None, title: str = "", **edit: Any) -> Graph.Node:
    """An edit of an inversion with the model of `of`; without a prompt the reconstruction."""
    positive = None
    if prompt is not None:
        positive = graph.add("CLIPTextEncode", "what it shall show", text=prompt, clip=of["clip"])
    words: dict[str, Any] = {
        "cfg": 1.0,
        "preserve": 0.0,
        "strength": 1.0,
        "source_guidance": -1.0,
        "randomness": 0.0,
        "seed": 0,
    }
    words |= {"auto_mask": False, "mask_grow": 0, "mask_feather": 0, "positive": positive} | edit
    return graph.add("RenoiseEdit", title, model=of["model"], inversion=of["inversion"], **words)


def replays(graph: Graph, of: dict[str, Any], latent: Any = None, negative: Any = None, cfg: float = 1.0) -> Graph.Node:
    """ComfyUI's own SamplerCustomAdvanced with the noises that were found."""
    noise = graph.add("RenoiseReplayNoise", inversion=of["inversion"])
    sampler = graph.add("RenoiseReplaySampler", inversion=of["inversion"])
    if negative is None:
        guider = graph.add("BasicGuider", model=of["model"], conditioning=of["positive"])
    else:
        guider = graph.add("CFGGuider", model=of["model"], positive=of["positive"], negative=negative, cfg=cfg)
    return graph.add(
        "SamplerCustomAdvanced",
        noise=noise,
        guider=guider,
        sampler=sampler.out(0),
        sigmas=sampler.out(1),
        latent_image=noise.out(1) if latent is None else latent,
    )


def tiny(graph: Graph, kind: str, *, patches: tuple[str, ...] = (), cfg: float = 1.0, **invert: Any) -> dict[str, Any]:
    """One of the tiny checkpoints, with model patches by name, and the inversion of latents from a file."""
    flow = kind == "tiny-sd3"
    width, pooled = (64, 64) if flow else (768, 1)
    model: Any = graph.add("CheckpointLoaderSimple", ckpt_name=f"{kind}.safetensors")
    positive: Any = graph.add("ProofConditioning", seed=1, width=width, pooled=pooled)
    negative: Any = graph.add("ProofConditioning", seed=2, width=width, pooled=pooled)
    for patch in patches:
        if patch == "v, zero terminal SNR":
            model = graph.add("ModelSamplingDiscrete", model=model, sampling="v_prediction", zsnr=True)
        elif patch == "LoRA":
            loaded = {"lora_name": "tiny.safetensors", "strength_model": 1.0}
            model = graph.add("LoraLoaderModelOnly", model=model, **loaded)
        elif patch == "attention patch":
            model = graph.add("ProofAttentionPatch", model=model)
        elif patch == "ControlNet":
            net = graph.add("ControlNetLoader", control_net_name="tiny.safetensors")
            hint = graph.add("LoadImage", image="hint.png")
            reach = {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0}
            both = graph.add(
                "ControlNetApplyAdvanced", positive=positive, negative=negative, control_net=net, image=hint, **reach
            )
            positive, negative = both.out(0), both.out(1)
    latent = invert.pop("latent", None) or graph.add("LoadLatent", latent=f"{kind}.latent")
    words: dict[str, Any] = {
        "sampler_name": "euler",
        "scheduler": "simple",
        "steps": 4,
        "denoise": 1.0,
        "preset": "auto",
        "passes": 0,
    }
    words |= {"seed": 0, "cfg": cfg} | invert
    found = graph.add("RenoiseInvert", model=model, positive=positive, negative=negative, latent=latent, **words)
    return {"model": model, "positive": positive, "negative": negative, "latent": latent, "inversion": found.out(0)}
