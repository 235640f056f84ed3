"""A picture of ComfyUI's own editor with a workflow that it has run: `python -m comfyui.proof.editor`.

Needs a ComfyUI that runs with the pack installed, and playwright with a Chromium.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def main() -> None:
    """Opens the editor, loads the workflow, queues it, and takes the picture."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(prog="python -m comfyui.proof.editor", description=__doc__)
    parser.add_argument("--server", required=True, help="address of a running ComfyUI, such as http://127.0.0.1:8188")
    parser.add_argument("--workflow", type=Path, required=True, help="a workflow in the editor's format")
    parser.add_argument("--output", type=Path, required=True, help="the picture to write")
    parser.add_argument("--chromium", default="/usr/bin/chromium", help="the browser")
    parser.add_argument("--seconds", type=float, default=60, help="how long to wait for the run")
    given = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=given.chromium, args=["--no-sandbox", "--no-proxy-server"])
        page = browser.new_page(viewport={"width": 2200, "height": 1240})
        page.set_default_timeout(300_000)
        page.goto(given.server)
        page.wait_for_function("window.app && window.app.graph && window.app.vueAppReady !== false")
        page.wait_for_timeout(5_000)
        page.evaluate("workflow => window.app.loadGraphData(workflow)", json.loads(given.workflow.read_text()))
        page.wait_for_timeout(2_000)
        page.keyboard.press("Escape")
        page.evaluate("window.app.queuePrompt(0)")
        page.wait_for_timeout(1_000 * given.seconds)
        page.keyboard.press(".")  # the editor's key for: show the whole workflow
        page.wait_for_timeout(2_000)
        page.screenshot(path=str(given.output))
        browser.close()


if __name__ == "__main__":
    main()
