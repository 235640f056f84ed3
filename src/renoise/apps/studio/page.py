"""The page: its fields, where they stand, and which handler each of them calls."""

from __future__ import annotations

import secrets
from functools import cache
from typing import TYPE_CHECKING, Any

import gradio as gr

from renoise import models
from renoise.apps.studio import markup, views
from renoise.apps.studio.captions import vocabulary
from renoise.apps.studio.examples import STATIC
from renoise.apps.studio.fields import Fields
from renoise.apps.studio.handlers import Handlers
from renoise.apps.studio.offers import offers
from renoise.apps.studio.pictures import Limits
from renoise.apps.studio.sessions import Session
from renoise.apps.studio.wiring import wire
from renoise.edit_controls import PRESERVE
from renoise.pipelines.adapter import Adapter

if TYPE_CHECKING:
    from renoise.apps.studio.room import Room

__all__ = ["LOOKS", "built"]

_NOBODY = Session(Limits())
_SCRIPTS = ("shared", "source", "compare", "painter", "gallery")


@cache
def _head() -> str:
    scripts = "\n".join((STATIC / f"{name}.js").read_text() for name in _SCRIPTS)
    icon = (STATIC / "icon.svg").read_text().replace("#", "%23").replace('"', "'").replace("\n", "")
    link = f'<link rel="icon" href="data:image/svg+xml,{icon}">'
    return f'<script>{scripts}</script>{link}<meta name="robots" content="noindex">'


LOOKS: dict[str, Any] = {
    "theme": gr.themes.Base(
        primary_hue=gr.themes.colors.teal,
        neutral_hue=gr.themes.colors.stone,
        spacing_size=gr.themes.sizes.spacing_sm,
        text_size=gr.themes.sizes.text_md,
        radius_size=gr.themes.sizes.radius_md,
        font=["ui-sans-serif", "system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        block_label_text_color="*neutral_800",
        block_label_text_color_dark="*neutral_200",
        block_title_text_color="*neutral_800",
        block_title_text_color_dark="*neutral_200",
        color_accent="*primary_700",
        slider_color="*primary_700",
        slider_color_dark="*primary_400",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
        button_large_text_size="*text_md",
        input_background_fill="*neutral_100",
    ),
    "css": (STATIC / "studio.css").read_text(),
    "head": _head(),
}


def surface(name: str, value: str = "", *events: str) -> gr.HTML:
    """A part of the page made of HTML, to which a script of ours gives its behaviour and its events."""
    told = ", ".join(f"'{event}'" for event in events)
    mount = f"window.studio.mount('{name}', element, trigger, watch, [{told}]);"
    return gr.HTML(value, elem_id=f"{name}-part", js_on_load=mount, apply_default_css=False)


def built(pipe: Any, room: Room) -> gr.Blocks:
    """The page for a pipeline.

    Args:
        pipe: the pipeline that everything runs on.
        room: what the handlers work with.
    """
    options = room.options
    size = Adapter(pipe).size(None)
    with gr.Blocks(title="renoise studio", analytics_enabled=False, fill_width=True) as page:
        gr.HTML(
            markup.header(options.model, type(pipe.scheduler).__name__, size), elem_id="top", apply_default_css=False
        )
        key = surface("key")
        with gr.Row(elem_id="desk", equal_height=False):
            with gr.Column(elem_id="left", elem_classes="side", min_width=0):
                found = offers(pipe)
                left = _left(found)
            with gr.Column(elem_id="middle", min_width=0):
                middle = _middle()
            with gr.Column(elem_id="right", elem_classes="side", min_width=0):
                right = _right(vocabulary() if options.model.name in models.NAMES else None)
        fields = Fields(key=key, **left, **middle, **right)
        wire(page, fields, Handlers(pipe, room, fields, found, size, secrets.token_hex(4)))
    page.queue(default_concurrency_limit=None, max_size=None, api_open=False)
    for block in page.blocks.values():
        block.async_move_resource_to_block_cache = _no_files
    return page


async def _no_files(path: object) -> str:
    """Nothing that a client names becomes a file here, and nothing is fetched for it from anywhere."""
    raise ValueError("the studio takes no files this way")


def _left(found: list[Any]) -> dict[str, Any]:
    gr.HTML("<h2>Picture</h2>", apply_default_css=False)
    source = surface("source", markup.source(None), "picture", "example", "refused")
    caption = gr.Textbox(
        label="What it shows", placeholder="red apple, blob style", max_lines=1, elem_id="caption",
        info="The prompt that the picture is inverted with. The closer it fits, the better edits work.",
    )  # fmt: skip
    guesses = surface("guesses", "", "guess")
    gr.HTML("<h2>Invert</h2>", apply_default_css=False)
    preset = gr.Dropdown(
        [(f"{offer.name} (recommended)" if offer.recommended else offer.name, offer.name) for offer in found],
        value=found[0].name, label="Preset", elem_id="preset", filterable=False,
    )  # fmt: skip
    preset_line = gr.HTML(f'<p class="quiet">{found[0].line}</p>', elem_id="preset-line", apply_default_css=False)
    with gr.Accordion("More settings", open=False, elem_id="advanced"):
        gr.HTML('<p class="quiet">Empty fields take what the preset says.</p>', apply_default_css=False)
        with gr.Row():
            passes = _number("Passes", "of the network, in all")
            steps = _number("Steps", "of the sampler")
        with gr.Row():
            tol = _number("Tolerance", "missed, e.g. 0.01")
            strength = _number("Share of the steps", "inverted, e.g. 0.7")
        with gr.Row():
            guidance = _number("Guidance", "1 is none")
            seed = _number("Seed", "of the noise, e.g. 0")
    with gr.Row(elem_classes="actions"):
        invert = gr.Button("Invert", variant="primary", interactive=False, elem_id="invert")
        stop = gr.Button("Stop", variant="stop", interactive=False, elem_id="stop", scale=0, min_width=90)
    return {
        "source": source, "caption": caption, "guesses": guesses, "preset": preset, "preset_line": preset_line,
        "advanced": (passes, tol, steps, strength, guidance, seed), "invert": invert, "stop": stop,
    }  # fmt: skip


def _number(label: str, hint: str) -> gr.Textbox:
    """A field for a number that may be left empty (gr.Number shows 0 for nothing)."""
    return gr.Textbox("", label=label, placeholder=hint, max_lines=1, min_width=90)


def _middle() -> dict[str, Any]:
    status = gr.HTML(
        markup.say("hint", "Choose a picture to begin with: yours, or one of the examples."),
        elem_id="status",
        apply_default_css=False,
    )
    with gr.Tabs(elem_id="views") as tabs:
        with gr.Tab("Compare", id="compare"):
            stage = surface("compare", views.stage(_NOBODY))
        with gr.Tab("Last edits", id="grid"):
            grid = surface("grid", "", "choose")
        with gr.Tab("How good it is", id="report"):
            report = gr.HTML("", elem_id="report", apply_default_css=False)
    history = surface("history", "", "choose", "base")
    return {"status": status, "tabs": tabs, "stage": stage, "grid": grid, "report": report, "history": history}


def _right(known: Any) -> dict[str, Any]:
    gr.HTML("<h2>Edit</h2>", apply_default_css=False)
    base = surface("base", "", "base")
    prompts = gr.Textbox(
        label="What it shall show instead", lines=2, max_lines=6, elem_id="prompts",
        placeholder="green apple, blob style", info="Several lines make several edits.",
    )  # fmt: skip
    surface("styles", markup.styles(known))
    preserve = gr.Slider(
        0,
        1,
        value=PRESERVE["balanced"],
        step=0.05,
        label="Creative to faithful",
        elem_id="preserve",
        info=f"0 follows the words, {PRESERVE['balanced']} is balanced, {PRESERVE['faithful']} faithful; 1 keeps most.",
    )
    mask = gr.Radio(
        ["everywhere", "automatic", "painted"], value="everywhere", label="Where", elem_id="mask",
        info="Automatic finds where the two prompts disagree.",
    )  # fmt: skip
    with gr.Group(visible=False, elem_id="mask-more") as mask_more:
        with gr.Group(visible=False, elem_id="painting") as painting:
            painter = surface("painter", views.painter(_NOBODY))
        with gr.Row():
            grow = _number("Grow", "pixels; −2 shrinks")
            feather = _number("Soften", "pixels of its edge")
        gr.HTML(
            '<p class="quiet">The mask of an edit is among the pictures to compare. To change it by hand, choose '
            "“painted” and “From the edit”.</p>",
            apply_default_css=False,
        )
    mask.change(
        None, mask, [mask_more, painting], api_visibility="private",
        js="(kind) => [kind !== 'everywhere', kind === 'painted'].map((visible) => ({visible, __type__: 'update'}))",
    )  # fmt: skip
    with gr.Accordion("More controls", open=False, elem_id="controls"):
        strength = gr.Slider(
            0.05,
            1,
            value=1,
            step=0.05,
            label="Strength",
            info="Share of the steps that are edited; less keeps more of the layout.",
        )
        with gr.Row():
            guidance = _number("Guidance", "of words; 1: none")
            push = _number("Push away", "usual for the dial")
        randomness = gr.Slider(
            0, 1, value=0, step=0.05, label="Fresh noise", info="Share of it; other seeds then give other edits."
        )
        seeds = gr.Textbox("", label="Seeds of fresh noise", max_lines=1, placeholder="0, 1, 2")
    with gr.Row(elem_classes="actions"):
        edit = gr.Button("Edit", variant="primary", interactive=False, elem_id="edit")
    gr.HTML("<h2>Take home</h2>", apply_default_css=False)
    take = surface("take", views.take_home(_NOBODY))
    return {
        "base": base, "prompts": prompts, "painter": painter, "edit": edit, "take": take,
        "controls": (preserve, strength, guidance, push, randomness, seeds, mask, grow, feather),
    }  # fmt: skip
