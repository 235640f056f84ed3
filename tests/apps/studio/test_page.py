"""The page in a browser, from the first visit to what is taken home.  Screenshots go to build/studio."""

from __future__ import annotations

import io
import time
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from renoise.apps.studio.examples import examples
from tests.helpers.embedded import SIDE
from tests.helpers.studio import Page, Studio, as_png, png

pytestmark = pytest.mark.slow

Open = Callable[..., Page]
DOG, CAT = "dog face, fluent flat style", "cat face, fluent flat style"


def pixels(data: bytes) -> np.ndarray:  # type: ignore[type-arg]
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def test_the_first_visit(page: Open, studio: Studio) -> None:
    seconds = []
    for _ in range(3):
        began = time.monotonic()
        first = page()
        first.tab.wait_for_selector("[data-example='15'] img")
        seconds.append(f"{time.monotonic() - began:.2f}")
    first.shot("first-visit")
    print(
        f"the first pages of all were ready in {', '.join(seconds)} s; the studio was up after {studio.seconds:.1f} s"
    )
    assert first.tab.title() == "renoise studio"
    for told in ("emoji-turbo", "EulerAncestralDiscreteScheduler", "float32", f"{SIDE} × {SIDE}"):
        assert told in first.tab.inner_text("#top")
    assert first.tab.locator("[data-example]").count() >= 12
    assert first.tab.locator("#invert").is_disabled()
    assert first.problems == []
    assert first.foreign == []
    # everything stands on one screen
    height = first.tab.evaluate("document.documentElement.scrollHeight")
    assert height <= 900


def test_everything_has_a_name_for_screen_readers(page: Open) -> None:
    opened = page()
    opened.example()
    opened.invert()
    opened.unfold("More settings")
    opened.unfold("More controls")
    opened.paint()
    nameless = opened.tab.evaluate(
        """() => [...document.querySelectorAll('button, input, select, textarea, a, canvas, img, svg[role]')]
            .filter((e) => e.offsetParent !== null || e.tagName === 'svg')
            .filter((e) => !(e.getAttribute('aria-label') || e.getAttribute('alt') !== null || e.title
                || e.innerText?.trim() || e.closest('label')?.innerText.trim() || e.labels?.length))
            .map((e) => e.outerHTML.slice(0, 160))"""
    )
    assert nameless == []
    assert opened.tab.locator("#status [role=status]").count() == 1  # is read out when it changes


def test_a_picture_is_uploaded_fitted_and_named(page: Open) -> None:
    opened = page()
    wide = Image.new("RGB", (200, 150), "white")
    wide.paste(examples()[0].picture.resize((150, 150)), (25, 0))
    opened.upload("dog.png", as_png(wide))
    opened.message("Check what it shows")
    assert opened.tab.input_value("#caption input") == DOG
    told = opened.tab.inner_text("label.drop")
    assert "200 × 150" in told
    assert f"scaled to {SIDE} × {SIDE * 3 // 4}" in told
    assert f"{SIDE // 8} pixels above, {SIDE // 8} pixels below" in told
    opened.shot("upload")
    # another guess is taken over by a click
    guess = opened.tab.locator("[data-caption] >> nth=1")
    opened.tab.wait_for_selector("[data-caption]")
    caption = guess.get_attribute("data-caption")
    guess.click()
    opened.tab.wait_for_function("text => document.querySelector('#caption input').value === text", arg=caption)
    # what comes back has the padding cut off
    opened.tab.fill("#caption input", DOG)
    opened.invert()
    assert Image.open(io.BytesIO(opened.file("inversion-1-reconstruction.png"))).size == (SIDE, SIDE * 3 // 4)
    assert opened.problems == []


def test_a_picture_is_pasted_and_dropped(page: Open) -> None:
    opened = page()
    give = """([name, event, data]) => {
        const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
        const files = new DataTransfer();
        files.items.add(new File([bytes], name, {type: 'image/png'}));
        const told = event === 'paste' ? new ClipboardEvent('paste', {clipboardData: files, bubbles: true})
            : new DragEvent('drop', {dataTransfer: files, bubbles: true, cancelable: true});
        document.querySelector('label.drop').dispatchEvent(told);
    }"""
    import base64

    for event, index in (("paste", 1), ("drop", 4)):
        data = base64.b64encode(as_png(examples()[index].picture)).decode()
        opened.tab.evaluate(give, ["it.png", event, data])
        caption = examples()[index].caption
        opened.tab.wait_for_function("text => document.querySelector('#caption input').value === text", arg=caption)
        assert (pixels(opened.file("source.png")) == np.asarray(examples()[index].picture)).all()
        opened.shot(event)


def test_an_inversion_is_followed_and_judged(page: Open) -> None:
    opened = page()
    opened.example()
    opened.shot("source")
    began = time.monotonic()
    opened.tab.click("#invert")
    opened.tab.wait_for_selector("#status [role=progressbar]")
    opened.shot("inverting")
    opened.message("below what the auto-encoder can give", "done")
    inverted = time.monotonic() - began
    assert "% of the noise carries picture" in opened.tab.inner_text("#status")
    opened.shot("inverted")
    opened.tab.get_by_role("tab", name="How good it is").click()
    opened.tab.wait_for_selector(".report .plot")
    opened.shot("report")
    told = opened.tab.inner_text(".report")
    assert told.count("dB") >= 2
    assert "16 passes" in told
    assert opened.tab.locator(".plot g").count() == 4
    began = time.monotonic()
    opened.edit(CAT)
    edited = time.monotonic() - began
    print(f"inversion {inverted:.2f} s, edit {edited:.2f} s, from the press of the button to the words on the page")
    opened.shot("edited")
    assert opened.problems == []


def test_presets_say_what_they_cost_and_settings_are_checked(page: Open) -> None:
    opened = page()
    opened.example()
    assert "16 passes for 4 steps" in opened.tab.inner_text("#preset-line")
    opened.tab.click("#preset input")
    opened.tab.get_by_role("option", name="fast", exact=True).click()
    opened.tab.wait_for_selector("#preset-line:has-text('8 passes for 4 steps')")
    opened.unfold("More settings")
    opened.tab.get_by_label("Passes").fill("many")
    opened.tab.click("#invert")
    opened.message("“many” is no number", "error")
    opened.shot("refused-setting")
    opened.tab.get_by_label("Passes").fill("2")
    opened.tab.click("#invert")
    opened.message("That cannot work.", "error")  # fewer passes than steps
    opened.tab.get_by_label("Passes").fill("12")
    opened.invert()
    assert "12 passes" in opened.tab.inner_text("#status")
    assert "passes=12" in opened.tab.text_content("#take-part pre >> nth=0")


def test_stop_ends_an_inversion_within_a_pass_and_leaves_what_was_there(page: Open) -> None:
    opened = page()
    opened.example()
    opened.invert()
    before = opened.file("inversion-1-reconstruction.png")
    opened.invert_for_long()
    began = time.monotonic()
    opened.tab.click("#stop")
    opened.message("Inverting was stopped after")
    seconds = time.monotonic() - began
    print(f"stopped {seconds:.2f} s after the press of the button")
    opened.shot("stopped")
    assert seconds < 3
    assert opened.tab.locator("#invert").is_enabled()
    assert opened.tab.locator("#stop").is_disabled()
    assert opened.file("inversion-1-reconstruction.png") == before
    opened.edit(CAT)  # the first inversion can still be edited


def test_the_slider_works_by_keyboard_and_compares_any_two(page: Open) -> None:
    opened = page()
    opened.example()
    opened.invert()
    opened.edit(CAT, "bear, fluent flat style")
    opened.tab.get_by_role("tab", name="Compare").click()
    line = opened.tab.locator(".compare input[type=range]")
    line.focus()
    for _ in range(20):
        opened.tab.keyboard.press("ArrowLeft")
    assert float(line.input_value()) == 40
    assert "60%" in str(opened.tab.locator(".compare .over").get_attribute("style"))
    sides = opened.tab.locator(".compare select")
    sides.nth(0).select_option("edit-1")
    sides.nth(1).select_option("edit-2")
    assert str(opened.tab.locator(".compare .over").get_attribute("src")).endswith("edit-1.png")
    assert str(opened.tab.locator(".compare .under").get_attribute("src")).endswith("edit-2.png")
    opened.shot("two-edits-compared")
    opened.tab.click(".pair button")
    assert str(opened.tab.locator(".compare .over").get_attribute("src")).endswith("edit-2.png")


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("notes.txt", b"these are notes", "no picture that can be read"),
        ("half.png", png(300, 200)[:150], "damaged"),
        ("huge.png", png(6000, 5000), "30 megapixels"),
        ("heavy.png", b"\x89PNG" + bytes(33_000_000), "takes up to 32"),
        ("notes.safetensors", b"no tensors at all", "not a complete safetensors file"),
    ],
    ids=["text", "half a picture", "too many pixels", "too many bytes", "no inversion"],
)
def test_bad_files_are_refused_in_plain_words(page: Open, name: str, data: bytes, told: str) -> None:
    opened = page()
    opened.upload(name, data, "application/octet-stream")
    opened.message(told, "error")
    opened.shot(f"refused-{name.split('.')[0]}")
    assert "Traceback" not in opened.tab.content()
    opened.example()  # and one can go on


def test_a_missing_caption_is_asked_for(page: Open) -> None:
    opened = page()
    opened.example()
    opened.tab.fill("#caption input", "  ")
    opened.tab.click("#invert")
    opened.message("Say what the picture shows", "error")


def test_narrow(page: Open) -> None:
    opened = page(390, 844, has_touch=True)
    opened.shot("narrow-first")
    opened.example()
    opened.invert()
    opened.shot("narrow-inverted")
    opened.edit(CAT, "bear, fluent flat style")
    opened.shot("narrow-edited")
    opened.shot("narrow-whole", whole=True)
    assert opened.tab.evaluate("document.documentElement.scrollWidth") <= 390
    small = opened.tab.evaluate(
        """() => [...document.querySelectorAll('button, select, .links a')].filter((e) => e.offsetParent !== null)
            .filter((e) => { const b = e.getBoundingClientRect(); return b.height < 22 || b.width < 22; })
            .map((e) => e.outerHTML.slice(0, 120))"""
    )
    assert small == []


def test_dark(page: Open) -> None:
    opened = page(color_scheme="dark")
    opened.shot("dark-first")
    opened.example(5)
    opened.invert()
    opened.edit("red mushroom, fluent style")
    opened.shot("dark-edited")
    opened.tab.get_by_role("tab", name="How good it is").click()
    opened.shot("dark-report")
    shade = opened.tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert all(int(level) < 60 for level in shade.strip("rgb()").split(",")[:3])
