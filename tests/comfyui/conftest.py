"""The nodes import ComfyUI as they are imported themselves, so its stub is there before any test is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.helpers import comfy_stub

comfy_stub.install()


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """No questions asked yet, and nobody presses Cancel."""
    comfy_stub.State.asked, comfy_stub.State.cancel_after = [], None
    yield
    comfy_stub.State.cancel_after = None
