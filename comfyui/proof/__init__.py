"""Runs the node pack inside a real ComfyUI and compares: `python -m comfyui.proof --comfy /path/to/ComfyUI`."""
