"""The size of the embedded models, for tests that look at their pictures."""

from __future__ import annotations

import json

from renoise import models

__all__ = ["SIDE"]

SIDE: int = json.loads((models.WEIGHTS / "emoji/vae/config.json").read_text())["sample_size"]
"""Side in pixels of the pictures that they draw."""
