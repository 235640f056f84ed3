"""LPIPS with SqueezeNet features (Zhang et al., "The Unreasonable Effectiveness of Deep Features", CVPR 2018).

The distance of two pictures is the sum over seven layers l of the mean over positions of

    sum_c  w_lc (f_lc / |f_l| - g_lc / |g_l|)^2,

f and g the features of the two pictures, w the published weights.  torchmetrics has those weights, but takes the
features from torchvision, which does not import beside every torch build.  So the feature stack of SqueezeNet 1.1 is
built here, with the names of torchvision's, whose weights it loads from a file.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

__all__ = ["Lpips", "SqueezeNetFeatures"]

_FIRE = ((64, 16, 64), (128, 16, 64), None, (128, 32, 128), (256, 32, 128), None)
_FIRE_LAST = ((256, 48, 192), (384, 48, 192), (384, 64, 256), (512, 64, 256))
_TAPS = (1, 4, 7, 9, 10, 11, 12)  # layers whose outputs are compared: after the first ReLU, and after fire modules
WIDTHS = (64, 128, 256, 384, 384, 512, 512)
"""Channels of the seven compared layers."""


class _Fire(nn.Module):
    """A fire module: few channels by 1 x 1, then half of the output by 1 x 1 and half by 3 x 3 convolutions."""

    def __init__(self, before: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(before, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x).relu(), self.expand3x3(x).relu()], 1)


class SqueezeNetFeatures(nn.Module):
    """The convolutional layers of SqueezeNet 1.1 (Iandola et al., 2016), with torchvision's names."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(), _pool()]
        layers += [_Fire(*widths) if widths else _pool() for widths in _FIRE]
        layers += [_Fire(*widths) for widths in _FIRE_LAST]
        self.features = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The outputs of the seven compared layers, [batch, channels, height, width] each."""
        found = []
        for place, layer in enumerate(self.features):
            x = layer(x)
            if place in _TAPS:
                found.append(x)
        return found


class Lpips(nn.Module):
    """The distance LPIPS-squeeze.  It has random features until `load` gives it weights."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.net = SqueezeNetFeatures()
        self.weights = nn.ParameterList(nn.Parameter(torch.rand(width)) for width in WIDTHS)
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188])[:, None, None])
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450])[:, None, None])

    @classmethod
    def load(cls, features: Path) -> Lpips:
        """The published distance, with the weights of the layers that torchmetrics brings along.

        Args:
            features: torchvision's file squeezenet1_1-b8a52dc0.pth, or any with its names.

        Raises:
            ImportError: torchmetrics is not installed.
            OSError, ValueError: a file that cannot be read, or has other weights in it.
        """
        found = cls()
        stored = _weights(features)
        wanted = {name: value for name, value in stored.items() if name.startswith("features.")}
        try:
            found.net.load_state_dict(wanted)
        except RuntimeError as error:
            raise ValueError(f"{features} holds no weights of SqueezeNet 1.1 as torchvision names them") from error
        rows = _weights(bundled())
        for place, weight in enumerate(found.weights):
            weight.data = rows[f"lin{place}.model.1.weight"].flatten()
        return found.eval().requires_grad_(False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances [batch] of pictures [batch, 3, height, width] in [-1, 1]."""
        total = a.new_zeros(len(a))
        for f, g, weight in zip(self.net(self._scaled(a)), self.net(self._scaled(b)), self.weights, strict=True):
            different = (_unit(f) - _unit(g)).square()
            total = total + (weight[:, None, None] * different).sum(1).mean((1, 2))
        return total

    def _scaled(self, x: Tensor) -> Tensor:
        return (x - self.shift) / self.scale


def bundled() -> Path:
    """The file of the layers' weights that torchmetrics brings along."""
    import torchmetrics

    return Path(torchmetrics.__file__).parent / "functional/image/lpips_models/squeeze.pth"


def _weights(path: Path) -> dict[str, Tensor]:
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch raises half a dozen kinds for a file that is none of its own
        raise ValueError(f"{path} is no file of weights that torch can read: {error}") from error
    return dict(stored)


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(1, keepdim=True) + 1e-8).sqrt()


def _pool() -> nn.Module:
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)
