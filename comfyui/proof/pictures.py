"""The picture that goes in."""

from __future__ import annotations

from PIL import Image

from renoise import images, models
from renoise.pipelines.adapter import Adapter

__all__ = ["example"]


def example() -> Image.Image:
    """The example of the package, at the size of the shipped models."""
    return images.fit(images.open_image(models.EXAMPLE), Adapter(models.load("emoji-turbo")).size(None))[0]
