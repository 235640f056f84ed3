"""The pictures of the studio in the documentation.

    python -m tests.helpers.studio_pictures

starts the studio, works on its page in Debian's Chromium, and writes docs/pictures/studio*.png.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from tests.helpers.studio import ROOT, Page, Studio, browser

PICTURES = ROOT / "docs/pictures"


def keep(tab: Any, name: str) -> None:
    """Writes what a tab shows."""
    tab.mouse.move(5, 500)
    tab.wait_for_timeout(600)
    shot = Image.open(io.BytesIO(tab.screenshot())).convert("RGB")
    path = PICTURES / f"{name}.png"
    shot.save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size // 1000} kB")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, browser() as chromium:
        studio = Studio(Path(folder))
        try:
            page = Page(chromium.new_context(viewport={"width": 1440, "height": 900}).new_page(), studio.url)
            tab = page.tab
            page.example(0)
            page.invert()
            tab.get_by_role("tab", name="How good it is").click()
            keep(tab, "studio-report")
            page.edit(
                "bear, fluent flat style", "dog face, noto style", "panda, fluent flat style", "dog face, blob style"
            )
            tab.get_by_text("automatic", exact=True).click()
            page.edit("cat face, fluent flat style")
            tab.get_by_text("everywhere", exact=True).click()
            keep(tab, "studio")
            page.paint()
            tab.click("[data-tool=found]")
            tab.locator("#edit").scroll_into_view_if_needed()
            keep(tab, "studio-mask")
        finally:
            studio.stop()


if __name__ == "__main__":
    main()
