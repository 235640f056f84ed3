"""Editing on the page: masks, chains, history, and what is taken home and brought back."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from renoise.apps.studio.examples import examples
from tests.helpers.embedded import SIDE
from tests.helpers.studio import Page

pytestmark = pytest.mark.slow

Open = Callable[..., Page]
DOG, CAT = "dog face, fluent flat style", "cat face, fluent flat style"


def pixels(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def paint(page: Page, *points: tuple[float, float]) -> None:
    """Draws a line through points, given as shares of the picture."""
    box = page.tab.locator(".painter canvas").bounding_box()
    mouse = page.tab.mouse
    for number, (x, y) in enumerate(points):
        mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=6)
        if number == 0:
            mouse.down()
    mouse.up()


def share_painted(page: Page) -> float:
    """How much of the canvas has the tint of the mask; a look at the pixels."""
    return float(
        page.tab.evaluate(
            """() => { const c = document.querySelector('.painter canvas');
            const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let n = 0;
            for (let i = 0; i < d.length; i += 4) if (d[i] < 120 && d[i + 1] > 100 && d[i + 2] > 90) n++;
            return n / (d.length / 4); }"""
        )
    )


def test_a_painted_mask_keeps_the_rest_to_the_pixel(page: Open) -> None:
    opened = page()
    opened.example()
    opened.invert()
    opened.paint()
    opened.tab.fill("#prompts textarea", CAT)
    opened.tab.click("#edit")
    opened.message("The mask is empty", "error")
    before = share_painted(opened)
    paint(opened, (0.75, 0.1), (0.75, 0.9))
    paint(opened, (0.95, 0.1), (0.95, 0.9))
    two = share_painted(opened)
    opened.tab.click("[data-tool=undo]")
    one = share_painted(opened)
    assert before < one < two  # undo takes back one stroke
    paint(opened, (0.92, 0.1), (0.92, 0.9))
    opened.shot("mask-painted")
    opened.tab.get_by_label("Soften").fill("0")
    opened.edit(CAT)
    opened.shot("mask-edited")
    edited, original = pixels(opened.file("edit-1.png")), pixels(opened.file("inversion-1-original.png"))
    left = SIDE * 5 // 8  # of all that was painted
    assert (edited[:, :left] == original[:, :left]).all()
    assert np.abs(edited - original)[:, left + SIDE // 16 :].max() > 30
    painted = pixels(opened.file("edit-1-painted.png"))
    assert painted.max() == 255
    assert (painted[:, :left] == 0).all()
    assert opened.problems == []


def test_an_automatic_mask_is_shown_and_adjusted_by_hand(page: Open) -> None:
    opened = page()
    opened.example(5)
    opened.invert()
    opened.tab.get_by_text("automatic", exact=True).click()
    opened.edit("red mushroom, fluent style")
    opened.tab.locator(".compare select").nth(0).select_option("edit-1-mask")
    opened.shot("mask-automatic")
    mask = pixels(opened.file("edit-1-mask.png"))
    assert mask.min() == 0
    assert mask.max() == 255
    opened.paint()
    opened.tab.click("[data-tool=found]")
    opened.tab.wait_for_timeout(400)
    assert share_painted(opened) > 0.05
    opened.tab.click("[data-tool=erase]")
    paint(opened, (0.1, 0.9), (0.9, 0.9))
    opened.shot("mask-adjusted")
    opened.edit("green mushroom, fluent style")
    painted = pixels(opened.file("edit-2-painted.png"))
    assert (painted[-6:-3, 20:40] == 0).all()
    assert painted.max() == 255


def test_several_edits_a_chain_and_the_history(page: Open) -> None:
    opened = page()
    opened.example()
    opened.invert()
    opened.unfold("More controls")
    noise = opened.tab.get_by_label("number input for Fresh noise")
    noise.fill("0.5")
    noise.press("Tab")
    opened.tab.get_by_label("Seeds of fresh noise").fill("0, 1")
    opened.tab.fill("#prompts textarea", f"{CAT}\nbear, fluent flat style")
    opened.tab.click("#edit")
    opened.message("4 edits made.", "done")
    opened.shot("grid")
    assert opened.tab.locator("#grid-part [data-choose]").count() == 4
    assert "seed 1" in opened.tab.inner_text("#grid-part")
    assert len({hashlib.sha256(opened.file(f"edit-{n}.png")).hexdigest() for n in range(1, 5)}) == 4
    noise.fill("0")
    noise.press("Tab")
    # the settings of each are in the history, and an edit that is chosen is looked at
    opened.tab.click("#history-part [data-choose='2']")
    opened.tab.wait_for_selector(".about:has-text('Edit 2')")
    assert "fresh noise 0.5, seed 1" in opened.tab.inner_text(".about")
    # it becomes the source of the next one
    opened.tab.click("#history-part [data-base='2']")
    opened.tab.wait_for_selector(".base:has-text('edit 2')")
    opened.edit("cat face, noto style")
    opened.shot("chain")
    assert "from edit 2" in opened.tab.inner_text(".about")
    script = opened.tab.text_content("#take-part pre >> nth=0")
    assert "edit_5 = edit_2.edit(" in script
    opened.tab.click("#base-part [data-base]")
    opened.tab.wait_for_selector(".base:has-text('the picture')")
    assert opened.problems == []


def test_five_edits_in_a_row_leave_what_is_not_masked(page: Open) -> None:
    opened = page()
    opened.example()
    opened.invert()
    opened.paint()
    paint(opened, (0.8, 0.0), (0.8, 1.0))
    for number, prompt in enumerate(("cat face", "bear", "fox", "panda", "koala"), 1):
        opened.edit(f"{prompt}, fluent flat style")
        opened.tab.wait_for_selector(f".about:has-text('Edit {number}')")
        opened.tab.click(f"#history-part [data-base='{number}']")
        opened.tab.wait_for_selector(f".base:has-text('edit {number}')")
    mask = pixels(opened.file("edit-5-mask.png"))
    moved = np.abs(pixels(opened.file("edit-5.png")) - pixels(opened.file("inversion-1-original.png")))
    print(f"five edits: at most {moved[mask == 0].max()} grey levels outside of the masks, {moved.max()} inside")
    assert moved[mask == 0].max() <= 2


def test_what_is_taken_home_can_be_brought_back_and_repeated(page: Open, tmp_path: Path) -> None:
    opened = page()
    opened.example()
    opened.invert()
    opened.edit(CAT)
    got = {}
    opened.shot("take-home")
    for link in opened.tab.locator("#take-part .links a").all():
        with opened.tab.expect_download() as coming:
            link.click()
        coming.value.save_as(tmp_path / coming.value.suggested_filename)
        got[coming.value.suggested_filename] = (tmp_path / coming.value.suggested_filename).read_bytes()
    assert set(got) == {"edit-1.png", "edit-1-strip.png", "inversion-1.safetensors", "source.png"}
    assert (pixels(got["source.png"]) == np.asarray(examples()[0].picture)).all()
    opened.tab.get_by_text("Repeat this result").click()
    opened.shot("repeat")
    # the script of the page, in the folder of the downloads, makes the same picture
    (tmp_path / "again.py").write_text(opened.tab.text_content("#take-part pre >> nth=0"))
    subprocess.run([sys.executable, "again.py"], cwd=tmp_path, check=True, timeout=300)
    assert (pixels((tmp_path / "edit-1.png").read_bytes()) == pixels(got["edit-1.png"])).all()
    # another tab opens the inversion file, and edits it to the same picture
    other = page()
    other.upload("inversion-1.safetensors", got["inversion-1.safetensors"], "application/octet-stream")
    other.message("Inverted.", "done")
    other.shot("reloaded")
    assert other.tab.input_value("#caption input") == DOG
    assert other.file("inversion-1-reconstruction.png") == opened.file("inversion-1-reconstruction.png")
    other.edit(CAT)
    assert other.file("edit-1.png") == got["edit-1.png"]
    assert "renoise.load('inversion-1.safetensors', pipe)" in other.tab.text_content("#take-part pre >> nth=0")


def test_the_whole_way_by_keyboard(page: Open) -> None:
    opened = page()
    keys = opened.tab.keyboard

    def reach(selector: str, most: int = 80) -> None:
        """Presses Tab until something that matches has the focus, which must be seen."""
        for _ in range(most):
            keys.press("Tab")
            if opened.tab.evaluate("s => document.activeElement.matches(s)", selector):
                ring = opened.tab.evaluate(
                    """() => { const f = (e) => getComputedStyle(e); let e = document.activeElement;
                    return f(e).outlineStyle !== 'none' || f(e).boxShadow !== 'none'
                        || f(e.parentElement).outlineStyle !== 'none' || f(e).borderColor !== 'rgb(0, 0, 0)'; }"""
                )
                assert ring, selector
                return
        raise AssertionError(f"{selector} cannot be reached")

    reach("[data-example='3']")
    keys.press("Enter")
    opened.message("press Invert")
    reach("#invert, #invert button")
    keys.press("Enter")
    opened.message("Inverted.", "done")
    reach(".compare input[type=range]")
    keys.press("ArrowRight")
    reach("#prompts textarea")
    keys.type("castle, noto style")
    reach("#mask input[value=painted]")
    keys.press("Space")
    opened.tab.wait_for_selector(".painter canvas")
    opened.tab.wait_for_timeout(400)
    reach(".painter canvas")
    for key in ["Space", *["Shift+ArrowDown"] * 8, *["Shift+ArrowLeft"] * 8]:
        keys.press(key)
    opened.shot("keyboard-mask")
    reach("#edit, #edit button")
    keys.press("Enter")
    opened.message("One edit made.", "done")
    opened.shot("keyboard")
    assert pixels(opened.file("edit-1-painted.png")).max() == 255
