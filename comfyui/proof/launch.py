"""Starts a script of ComfyUI: `python launch.py /path/to/ComfyUI/main.py --cpu ...`.

torchvision's wheel looks for compiled operators as it is imported, and does not find them beside a CPU build of torch.
ComfyUI imports torchvision and calls none of them, so their names are registered here.
"""

import importlib
import os
import runpy
import sys


def register_operators() -> object:
    """Names of operators that torchvision misses, one by one as it asks for them; to be kept while it is used."""
    import torch

    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    while True:
        try:
            importlib.import_module("torchvision")
            return library
        except ModuleNotFoundError:
            return library
        except RuntimeError as error:
            name = str(error).split("torchvision::")[1].split()[0]
            library.define(f"{name}() -> ()")  # type: ignore[no-untyped-call]
            for module in [module for module in sys.modules if module.startswith("torchvision")]:
                del sys.modules[module]


if __name__ == "__main__":
    kept = register_operators()
    sys.argv = sys.argv[1:]
    sys.path[0] = os.environ.get("COMFY_PATH", os.path.dirname(os.path.abspath(sys.argv[0])))
    runpy.run_path(sys.argv[0], run_name="__main__")
