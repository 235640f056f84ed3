"""The nodes that keep inversions in files, in ComfyUI's output and input folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from . import archive
from .inversion import Inversion
from .nodes import CATEGORY, InversionType

__all__ = ["NODES"]

_SUFFIX = ".renoise.safetensors"


class Save(io.ComfyNode):  # type: ignore[misc]
    """Writes an inversion to the output folder."""

    @classmethod
    def define_schema(cls) -> Any:
        """Inputs and outputs."""
        return io.Schema(
            node_id="RenoiseSaveInversion",
            display_name="ReNoise Save Inversion",
            category=CATEGORY,
            description="Writes an inversion to the output folder: tensors and JSON, no pickle, without conditioning.",
            is_output_node=True,
            inputs=[
                InversionType.Input("inversion"),
                io.String.Input("filename_prefix", default="inversions/picture"),
            ],
            outputs=[io.String.Output(display_name="path")],
        )

    @classmethod
    def execute(cls, inversion: Inversion, filename_prefix: str) -> Any:
        """Runs it."""
        output = folder_paths.get_output_directory()
        # ComfyUI's own way of refusing prefixes that lead out of the folder
        folder, name, *_ = folder_paths.get_save_image_path(filename_prefix, output)
        taken = {path.name for path in Path(folder).glob(f"{name}_*{_SUFFIX}")}
        number = next(count for count in range(1, len(taken) + 2) if f"{name}_{count:05}{_SUFFIX}" not in taken)
        path = Path(folder) / f"{name}_{number:05}{_SUFFIX}"
        archive.save(inversion, path)
        told = {"text": (f"written: {path.relative_to(output)}",)}
        return io.NodeOutput(str(path), ui=told)


class Load(io.ComfyNode):  # type: ignore[misc]
    """Reads an inversion from the output or the input folder."""

    @classmethod
    def define_schema(cls) -> Any:
        """Inputs and outputs."""
        return io.Schema(
            node_id="RenoiseLoadInversion",
            display_name="ReNoise Load Inversion",
            category=CATEGORY,
            description="Reads what ReNoise Save Inversion wrote, from the output or the input folder.",
            inputs=[io.Combo.Input("file", options=sorted(_files()) or ["(no inversion is saved yet)"])],
            outputs=[InversionType.Output(display_name="inversion")],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str) -> Any:
        """What makes ComfyUI read the file anew."""
        path = _files().get(file)
        return (file, path.stat().st_mtime_ns if path else 0)

    @classmethod
    def validate_inputs(cls, file: str) -> bool | str:
        """Whether the file is there, now and not when the list was drawn."""
        return file in _files() or f"{file} is not in the output or input folder: refresh the list and pick another"

    @classmethod
    def execute(cls, file: str) -> Any:
        """Runs it."""
        return io.NodeOutput(archive.load(_files()[file]))


def _files() -> dict[str, Path]:
    """Every inversion in the two folders, by the name that the list shows."""
    folders = {"output": folder_paths.get_output_directory(), "input": folder_paths.get_input_directory()}
    return {
        f"{title}: {path.relative_to(folder).as_posix()}": path
        for title, folder in folders.items()
        for path in Path(folder).rglob(f"*{_SUFFIX}")
    }


NODES = (Save, Load)
