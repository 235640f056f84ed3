"""Runs the node pack inside a real ComfyUI, headless, and compares: `python -m comfyui.proof --comfy /path/to/ComfyUI`."""
