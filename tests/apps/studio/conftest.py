"""One studio and one browser for all tests of a module; each test opens tabs of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.helpers.studio import Page, Studio, browser


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """A studio with the embedded model."""
    running = Studio(tmp_path_factory.mktemp("studio"))
    yield running
    assert running.stop() in (0, 130)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser."""
    with browser() as running:
        yield running


@pytest.fixture
def page(studio: Studio, chromium: Any) -> Iterator[Callable[..., Page]]:
    """Opens the page, in a window of the given size and with other options of a browser context."""
    contexts = []

    def opened(width: int = 1440, height: int = 900, **options: Any) -> Page:
        context = chromium.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        return Page(context.new_page(), studio.url)

    yield opened
    for context in contexts:
        context.close()
