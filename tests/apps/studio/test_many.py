"""The studio for long and for many: memory that stays flat, and eight browsers that each get their own pictures.

    python -m pytest -m slow -s tests/apps/studio/test_many.py

prints the figures of docs/studio.md.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

from renoise.apps.studio.examples import examples
from tests.helpers.studio import CHROMIUM, PATIENCE, Page, Studio

pytestmark = pytest.mark.slow

CAT = "cat face, fluent flat style"
ROUNDS, BROWSERS = 50, 8
# notes when a page says that it is done
_WATCH = """() => { new MutationObserver(() => {
    if (document.querySelector('#status .say.done')) window.doneAt ??= Date.now();
}).observe(document.querySelector('#status'), {childList: true, subtree: true}); }"""


def test_fifty_inversions_and_edits_leave_memory_and_files_as_they_were(
    page: Callable[..., Page], studio: Studio
) -> None:
    opened = page()
    opened.tab.click("#preset input")
    opened.tab.get_by_role("option", name="fast", exact=True).click()
    told = []
    for number in range(ROUNDS):
        opened.example(number % 16)
        opened.invert()
        opened.edit(CAT if number % 2 else "bear, blob style")
        if number % 10 == 9:
            told.append((number + 1, studio.memory() / 1e6, studio.threads(), len(studio.files())))
            print(
                f"after {told[-1][0]} inversions and edits: {told[-1][1]:.0f} MB resident, {told[-1][2]} threads, "
                f"{told[-1][3]} files"
            )
    assert told[-1][1] - told[0][1] < 40  # MB; four inversions and their edits are held all the time
    assert [row[3] for row in told] == [0] * len(told)
    assert opened.problems == []


def test_eight_browsers_at_once_get_their_own_pictures_in_order(studio: Studio) -> None:
    with ThreadPoolExecutor(1) as elsewhere:  # a browser of another test may run an event loop in this thread
        elsewhere.submit(lambda: asyncio.run(_eight(studio))).result()


async def _eight(studio: Studio) -> None:
    from playwright.async_api import async_playwright

    async with async_playwright() as play:
        browsers = [
            await play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
            for _ in range(BROWSERS)
        ]
        try:
            tabs = [await (await browser.new_context()).new_page() for browser in browsers]
            for index, tab in enumerate(tabs):
                tab.set_default_timeout(4 * PATIENCE)
                await tab.goto(studio.url)
                await tab.wait_for_selector("#studio-key", state="attached")
                await tab.click(f"[data-example='{index}']")
                await tab.wait_for_selector("label.drop.full")
            first = await (await browsers[0].new_context()).new_page()  # whose long work makes the others queue
            await first.goto(studio.url)
            await first.click("[data-example='9']")
            await first.wait_for_selector("label.drop.full")
            await first.get_by_text("More settings").click()
            await first.wait_for_timeout(500)  # as tests.helpers.studio.Page.unfold
            await first.get_by_label("Steps", exact=True).fill("400")
            await first.click("#invert")
            await first.wait_for_selector("#status [role=progressbar]")
            for index, tab in enumerate(tabs):
                await tab.evaluate(_WATCH)
                await tab.click("#invert")
                await tab.wait_for_selector(f"#status:has-text('You are number {index + 2} in the queue')")
            began = time.monotonic()
            await first.click("#stop")
            rows = await asyncio.gather(*(_one(studio, tab, index) for index, tab in enumerate(tabs)))
            seconds = time.monotonic() - began
        finally:
            for browser in browsers:
                await browser.close()
    ends = [row["inverted"] for row in rows]
    assert ends == sorted(ends)
    assert len({row["edit"] for row in rows}) == BROWSERS
    waits = [row["seconds"] for row in rows]
    middle = statistics.median(waits)
    print(
        f"{BROWSERS} browsers, each one inversion and one edit: all answered in {seconds:.1f} s; from the moment when "
        f"the model was free to the edited picture {min(waits):.1f} to {max(waits):.1f} s, median {middle:.1f} s"
    )


async def _one(studio: Studio, tab: Any, index: int) -> dict[str, Any]:
    """Follows one browser's inversion, edits it, and holds what it got against its own picture."""
    began = time.monotonic()
    await tab.wait_for_selector("#status .say.done:has-text('Inverted.')")
    inverted = await tab.evaluate("window.doneAt")
    await tab.fill("#prompts textarea", f"robot {index}, noto style")
    await tab.click("#edit")
    await tab.wait_for_selector("#status .say.done:has-text('One edit made.')")
    seconds = time.monotonic() - began
    key = await tab.locator("#studio-key").get_attribute("data-key")

    async def file(name: str) -> bytes:
        return bytes(await (await tab.request.get(f"{studio.url}studio/{key}/{name}")).body())

    original = await file("inversion-1-original.png")
    given = np.asarray(examples()[index].picture)
    assert hashlib.sha256(_rgb(original).tobytes()).digest() == hashlib.sha256(given.tobytes()).digest()
    again = _rgb(await file("inversion-1-reconstruction.png")).astype(int)
    assert np.square(again - given.astype(int)).mean() < 200  # its own, and no other's
    return {"edit": hashlib.sha256(await file("edit-1.png")).hexdigest(), "seconds": seconds, "inverted": inverted}


def _rgb(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
