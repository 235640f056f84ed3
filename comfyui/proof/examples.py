"""Writes the example workflows, in both formats, from runs in a real ComfyUI: `python -m comfyui.proof.examples`.

The pictures beside them are what a run drew: what went in, and what the workflow saved.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from comfyui.proof import graphs
from comfyui.proof.graphs import Graph
from comfyui.proof.launch import register_operators
from comfyui.proof.pictures import example
from comfyui.proof.server import Server, running
from renoise.figures import Panel, comparison

PACK = Path(__file__).parents[1]
SOURCE, TARGET = "red apple, blob style", "green apple, blob style"
PICTURE, MASK = "red-apple.png", "right-half.png"
_WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
_WIDE, _GAP = 300, 40


def edit(graph: Graph) -> None:
    """Invert, edit, and the reconstruction beside it."""
    of = graphs.emoji(graph, [PICTURE], SOURCE, preset="fast")
    _shown(graph, of, graphs.edited(graph, of, TARGET), "edited")
    _shown(graph, of, graphs.edited(graph, of, None), "reconstruction")


def masked(graph: Graph) -> None:
    """An edit in a mask, whose pixels beyond it are put back by ComfyUI's own node."""
    of = graphs.emoji(graph, [PICTURE], SOURCE, preset="fast")
    mask = graph.add("LoadImageMask", "white: may change", image=MASK, channel="red")
    made = graphs.edited(graph, of, TARGET, mask=mask, mask_feather=4)
    pixels = graph.add("VAEDecode", samples=made, vae=of["vae"])
    place = {"x": 0, "y": 0, "resize_source": False}
    whole = graph.add("ImageCompositeMasked", destination=of["image"], source=pixels, mask=made.out(1), **place)
    graph.add("SaveImage", images=whole, filename_prefix="example/edited in a mask")


def stock(graph: Graph) -> None:
    """The inversion replayed by ComfyUI's own sampler, with another prompt."""
    of = graphs.emoji(graph, [PICTURE], SOURCE, sampler_name="lcm", preset="fast")
    of["positive"] = graph.add("CLIPTextEncode", "what it shall show", text=TARGET, clip=of["clip"])
    _shown(graph, of, graphs.replays(graph, of), "by the stock sampler")


def reported(graph: Graph) -> None:
    """The inversion in a file, and a report with the PSNR of its reconstruction."""
    of = graphs.emoji(graph, [PICTURE], SOURCE, preset="fast")
    graph.add("RenoiseSaveInversion", inversion=of["inversion"], filename_prefix="inversions/apple")
    told = graph.add(
        "RenoiseReport", inversion=of["inversion"], reconstruction=graphs.edited(graph, of, None), vae=of["vae"]
    )
    graph.add("SaveImage", images=told.out(1), filename_prefix="example/report")


EXAMPLES: dict[str, Callable[[Graph], None]] = {
    "edit": edit,
    "edit-in-a-mask": masked,
    "stock-sampler": stock,
    "report-and-file": reported,
}


def _shown(graph: Graph, of: dict[str, Any], latent: Any, name: str) -> None:
    pixels = graph.add("VAEDecode", samples=latent, vae=of["vae"])
    graph.add("SaveImage", images=pixels, filename_prefix=f"example/{name}")


def opened(graph: Graph, known: dict[str, Any]) -> dict[str, Any]:
    """A workflow of the API as the editor's own file: every node with its place, its wires and its widgets.

    Args:
        graph: the workflow.
        known: what ComfyUI tells of its nodes at /object_info.
    """
    links: list[list[Any]] = []
    depth: dict[str, int] = {}
    for number, node in graph.nodes.items():
        before = [depth[value[0]] for value in node["inputs"].values() if isinstance(value, list)]
        depth[number] = 1 + max(before, default=-1)
    heights = dict.fromkeys(depth.values(), 0)
    nodes: list[dict[str, Any]] = []
    for number, node in graph.nodes.items():
        told = known[node["class_type"]]
        described = {**told["input"].get("required", {}), **told["input"].get("optional", {})}
        wires: list[dict[str, Any]] = []
        values: list[Any] = []
        for name, (kind, *more) in described.items():
            value, spec = node["inputs"].get(name), more[0] if more else {}
            if isinstance(kind, list) or kind in _WIDGETS:
                values.append(spec.get("default") if value is None else value)
                if spec.get("control_after_generate", name in ("seed", "noise_seed")):
                    values.append("fixed")
                if spec.get("image_upload"):
                    values.append("image")
                continue
            wire = None
            if value is not None:
                wire = len(links) + 1
                links.append([wire, int(value[0]), value[1], int(number), len(wires), kind])
            wires.append({"name": name, "type": kind, "link": wire})
        column = depth[number]
        tall = 40 + 22 * (len(described) + len(told["output"])) + (200 if node["class_type"] in _PREVIEWS else 0)
        place = {"pos": [column * (_WIDE + _GAP), heights[column]], "size": [_WIDE, tall]}
        heights[column] += tall + _GAP
        outputs = [{"name": name, "type": kind} for name, kind in zip(told["output_name"], told["output"], strict=True)]
        title = {"title": node["_meta"]["title"]} if "_meta" in node else {}
        nodes.append(
            {"id": int(number), "type": node["class_type"], **place, "flags": {}, "order": len(nodes), "mode": 0}
            | {"inputs": wires, "outputs": outputs, "properties": {}, "widgets_values": values, **title}
        )
    for wire, start, slot, *_ in links:
        output = next(node for node in nodes if node["id"] == start)["outputs"][slot]
        output.setdefault("links", []).append(wire)
    numbers = {"last_node_id": len(nodes), "last_link_id": len(links)}
    return {**numbers, "nodes": nodes, "links": links, "groups": [], "config": {}, "extra": {}, "version": 0.4}


_PREVIEWS = ("SaveImage", "LoadImage", "RenoiseReport", "LoadImageMask")


def written(server: Server, name: str, folder: Path) -> None:
    """Runs an example and writes its two files and its picture."""
    graph = Graph()
    EXAMPLES[name](graph)
    told = server.run(graph)["outputs"]
    (folder / f"{name}-api.json").write_text(json.dumps(graph.nodes, indent=2) + "\n")
    (folder / f"{name}.json").write_text(json.dumps(opened(graph, server.get("/object_info")), indent=1) + "\n")
    panels = [Panel(Image.open(server.base / "input" / PICTURE), "what went in", SOURCE)]
    if name == "edit-in-a-mask":
        panels.append(Panel(Image.open(server.base / "input" / MASK), "mask"))
    for number, out in sorted(told.items(), key=lambda pair: int(pair[0])):
        for saved in out.get("images", []) if graph.nodes[number]["class_type"] == "SaveImage" else []:
            picture = Image.open(server.base / "output" / saved["subfolder"] / saved["filename"]).convert("RGB")
            title = saved["filename"].rsplit("_", 2)[0]
            if title == "report":
                picture.save(folder / f"{name}.png", optimize=True)
                return
            panels.append(Panel(picture, title, "" if title == "reconstruction" else TARGET))
    comparison(panels, side=192).save(folder / f"{name}.png", optimize=True)


def main() -> None:
    """Writes all examples."""
    parser = argparse.ArgumentParser(prog="python -m comfyui.proof.examples", description=__doc__)
    parser.add_argument(
        "--comfy", type=Path, required=True, help="folder of a ComfyUI, whose requirements are installed"
    )
    parser.add_argument("--keep", type=Path, help="folder for all files of the run; by default a temporary one")
    parser.add_argument("--docs", type=Path, help="folder for the pictures of docs/comfyui.md")
    given = parser.parse_args()
    register_operators()
    folder = PACK / "example_workflows"
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        base = given.keep or Path(temporary)
        (base / "input").mkdir(parents=True, exist_ok=True)
        apple = example()
        apple.save(base / "input" / PICTURE)
        mask = Image.new("RGB", apple.size)
        mask.paste("white", (apple.width // 2, 0, *apple.size))
        mask.save(base / "input" / MASK)
        with running(given.comfy.resolve(), base, PACK) as server:
            for name in EXAMPLES:
                written(server, name, folder)
                print(f"{folder / name}.json", flush=True)
    if given.docs:
        rows = [Image.open(folder / f"{name}.png") for name in ("edit", "edit-in-a-mask", "stock-sampler")]
        whole = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), "white")
        for number, row in enumerate(rows):
            whole.paste(row, (0, sum(before.height for before in rows[:number])))
        whole.save(given.docs / "comfyui-edits.png", optimize=True)
        Image.open(folder / "report-and-file.png").save(given.docs / "comfyui-report.png", optimize=True)


if __name__ == "__main__":
    main()
