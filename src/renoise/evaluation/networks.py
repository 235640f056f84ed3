"""The networks that some metrics need: from a folder, by a name on the hub, or as modules; and which are missing.

The weights are downloads of other people's, so none of them come with this package.  A metric whose network is not to
be had is left out, with one sentence that says which and how to get it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from renoise.evaluation.clip import Clip
from renoise.evaluation.lpips import Lpips
from renoise.evaluation.structure import Structure

__all__ = ["CLIP", "DINO", "NONE", "SQUEEZENET", "Networks", "load"]

CLIP = "openai/clip-vit-large-patch14"
DINO = "facebook/dino-vitb8"
SQUEEZENET = "https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth"
NONE = "none"
"""In place of a network: leave its metric out."""


@dataclass(frozen=True)
class Networks:
    """The networks of the metrics; None for what is left out.

    Attributes:
        clip: for CLIP similarities.
        structure: for structure distances.
        lpips: for LPIPS.
        names: what each was loaded from, by its field, for records.
        missing: sentences about what was asked for and is not to be had.
    """

    clip: Clip | None = None
    structure: Structure | None = None
    lpips: Lpips | None = None
    names: tuple[tuple[str, str], ...] = ()
    missing: tuple[str, ...] = ()

    def to(self, device: torch.device) -> Networks:
        """The same networks on a device."""
        moved = {name: getattr(self, name) for name, _ in self.names}
        return replace(self, **{name: network.to(device) for name, network in moved.items()})


def load(
    clip: str | Clip = CLIP, dino: str | torch.nn.Module = DINO, squeezenet: str | os.PathLike[str] | Lpips = SQUEEZENET
) -> Networks:
    """Load what is to be had.

    Args:
        clip: folder or hub name of a CLIP model, or one that is loaded already; "none" leaves it out.
        dino: folder or hub name of a DINO ViT, or a `ViTModel` that is loaded already; "none" leaves it out.
        squeezenet: file or address of torchvision's weights of SqueezeNet 1.1, or an `Lpips` that is loaded already;
            "none" leaves it out.  An address is downloaded once, to the folder of torch.hub.
    """
    found: dict[str, Any] = {}
    names, missing = [], []
    wanted: tuple[tuple[str, Any, str, Callable[[Any], torch.nn.Module], str, str], ...] = (
        ("clip", clip, "CLIP similarity", _clip, "--clip", CLIP),
        ("structure", dino, "structure distance", _structure, "--dino", DINO),
        ("lpips", squeezenet, "LPIPS", _lpips, "--squeezenet", SQUEEZENET),
    )
    for field, source, metric, loader, option, usual in wanted:
        if isinstance(source, str) and source == NONE:
            continue
        try:
            found[field] = loader(source)
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0].rstrip(".:")
            missing.append(
                f"{metric} is left out: {source} cannot be loaded ({reason}). Download {usual} on a machine with a "
                f"connection, and pass where it is with {option}"
            )
        else:
            names.append((field, str(source) if isinstance(source, (str, os.PathLike)) else type(source).__name__))
    return Networks(**found, names=tuple(names), missing=tuple(missing))


def _clip(source: str | Clip) -> Clip:
    return source if isinstance(source, Clip) else Clip.load(source)


def _structure(source: str | torch.nn.Module) -> Structure:
    if isinstance(source, str):
        from transformers import ViTModel

        network: torch.nn.Module = ViTModel.from_pretrained(source, add_pooling_layer=False)
    else:
        network = source
    return Structure(network.eval().requires_grad_(False))


def _lpips(source: str | os.PathLike[str] | Lpips) -> Lpips:
    if isinstance(source, Lpips):
        return source
    if not str(source).startswith("https://"):
        return Lpips.load(Path(source))
    file = Path(torch.hub.get_dir()) / "checkpoints" / str(source).rsplit("/", 1)[-1]
    if not file.exists():
        if os.environ.get("HF_HUB_OFFLINE", "0") not in ("0", ""):
            raise FileNotFoundError("HF_HUB_OFFLINE is set, so nothing is downloaded")
        torch.hub.load_state_dict_from_url(str(source), map_location="cpu", progress=False, check_hash=True)
    return Lpips.load(file)
