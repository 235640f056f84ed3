"""The parts of the page around the pictures, as HTML: bar, source, captions, messages.  What users wrote is escaped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape

from renoise.apps.studio.captions import Guess, Vocabulary
from renoise.apps.studio.examples import examples
from renoise.apps.studio.line import Job
from renoise.apps.studio.pictures import Limits
from renoise.apps.studio.recipes import Model
from renoise.apps.studio.sessions import Session
from renoise.apps.studio.words import duration, place

__all__ = [
    "CEILING",
    "DB",
    "PASSES",
    "empty",
    "explained",
    "group",
    "guesses",
    "header",
    "key_holder",
    "progress",
    "quiet",
    "say",
    "source",
    "styles",
    "tip",
]


def tip(word: str, meaning: str) -> str:
    """A word with its meaning, shown by pointing at it or by reaching it with the keyboard."""
    word, meaning = escape(word), escape(meaning)
    return f'<span class="tip" tabindex="0" data-tip="{meaning}" aria-description="{meaning}">{word}</span>'


DB = tip(
    "dB",
    "Decibels of the peak signal-to-noise ratio. More is closer: above 40 the eye sees no difference, below 25 it is "
    "plain.",
)
CEILING = tip(
    "auto-encoder’s ceiling",
    "The picture packed into the model’s latents and unpacked again, without any noise. An inversion cannot give back "
    "much more than that.",
)
PASSES = tip("passes", "How often the network was evaluated. This is what an inversion costs.")
_GLOSSARY = {
    "auto-encoder": CEILING.replace("auto-encoder’s ceiling", "auto-encoder"),
    " dB": f" {DB}",
    " passes": f" {PASSES}",
}


def explained(text: str) -> str:
    """A text in which the words of the trade tell their meaning."""
    told = escape(text)
    for word, explanation in _GLOSSARY.items():
        told = told.replace(word, explanation, 1)
    return told


def quiet(text: str) -> str:
    """A remark in small letters."""
    return f'<p class="quiet">{escape(text)}</p>'


def empty(inside: str) -> str:
    """A place that is still to be filled; `inside` is HTML."""
    return f'<div class="empty">{inside}</div>'


def group(label: str, inside: str, **data: str) -> str:
    """Small buttons that belong together; `inside` is HTML."""
    told = "".join(f' data-{name}="{escape(value)}"' for name, value in data.items())
    return f'<div class="chips" role="group" aria-label="{escape(label)}"{told}>{inside}</div>'


def header(model: Model, scheduler: str, size: tuple[int, int]) -> str:
    """The bar at the top: what is at work here.

    Args:
        model: the pipeline as it was named.
        scheduler: its class.
        size: (height, width) in pixels at which it works.
    """
    facts = {
        "model": model.name,
        "scheduler": scheduler,
        "precision": model.dtype,
        "on": model.device,
        "pixels": f"{size[1]} × {size[0]}",
    }
    told = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
    return f'<header><h1>renoise <span>studio</span></h1><dl aria-label="What runs here">{told}</dl></header>'


def key_holder(session: Session, run: str, limits: Limits) -> str:
    """What the page's scripts need: the key of the session, which start of the server this is, and the limit."""
    most = int(limits.megabytes * 1e6)
    return f'<div id="studio-key" data-key="{session.key}" data-run="{run}" data-bytes="{most}"></div>'


def source(session: Session | None, told: str = "") -> str:
    """The place to drop a picture, the picture that was chosen and how it is fitted, and the examples."""
    buttons = ""
    for index, example in enumerate(examples()):
        caption = escape(example.caption)
        picture = f'<img src="/studio/examples/{index}.png" alt="" width="64" height="64">'
        buttons += (
            f'<button type="button" data-example="{index}" aria-label="Example: {caption}" title="{caption}">'
            f"{picture}</button>"
        )
    chosen = session.source if session else None
    if session is not None and chosen is not None:
        alt = escape(chosen.caption or "no caption yet")
        address = f"/studio/{session.key}/source.png?{id(chosen):x}"
        inside = f'<img src="{address}" alt="The chosen picture: {alt}"><span>{escape(told)}</span>'
    else:
        inside = (
            '<span class="sign" aria-hidden="true">+</span>'
            "<span>Drop a picture here, paste one, or choose a file.</span>"
        )
    return (
        f'<label class="drop{" full" if chosen else ""}">{inside}'
        '<input type="file" accept="image/*,.safetensors" aria-label="Choose a picture or an inversion file"></label>'
        f'<div class="examples" role="group" aria-label="Examples that the model never saw">{buttons}</div>'
    )


def guesses(found: Sequence[Guess]) -> str:
    """Captions to choose from."""
    chips = ""
    for guess in found:
        caption = escape(guess.caption)
        sure = f" <small>{guess.probability:.0%}</small>" if guess.probability is not None else ""
        chips += f'<button type="button" class="chip" data-caption="{caption}">{caption}{sure}</button>'
    return group("Guesses at what it shows", chips) if chips else ""


def styles(known: Vocabulary | None) -> str:
    """Buttons that put a style into the prompts, and the words that are suggested while one types."""
    if known is None:
        return ""
    chips = "".join(
        f'<button type="button" class="chip" data-style="{escape(style)}">{escape(style)}</button>'
        for style in known.styles
    )
    words = json.dumps({"concepts": known.concepts, "styles": known.styles})
    chosen = group("Styles that the model knows", f"<span>style</span>{chips}", words=words)
    return f'{chosen}<datalist id="known-captions"></datalist>'


def say(kind: str, text: str, title: str = "") -> str:
    """A message: "hint", "done" or "error"."""
    sign = {"hint": "→", "done": "✓", "error": "!"}[kind]
    strong = f"<strong>{escape(title)}</strong> " if title else ""
    role = "alert" if kind == "error" else "status"
    inside = (
        f'<span aria-hidden="true">{sign}</span><p>{strong}{explained(text) if kind == "done" else escape(text)}</p>'
    )
    return f'<div class="say {kind}" role="{role}">{inside}</div>'


def progress(job: Job, what: str, ahead: int) -> str:
    """How far a job is, by passes, with the time left; or its place in the queue."""
    if job.state == "waiting":
        waiting = f'<span class="spin" aria-hidden="true"></span><p>{escape(place(ahead))}</p>'
        return f'<div class="say wait" role="status">{waiting}</div>'
    done, total = job.progress.passes, job.progress.total
    left = job.seconds_left()
    stage = {"invert": "finding the noise", "walk": "retracing the steps"}.get(job.progress.stage, "drawing")
    text = what + (f", {stage}: pass {done} of {total}" if total else " …")
    if left is not None and left >= 0.5:
        text += f", about {duration(left)} left"
    share = 100 * done / total if total else 0
    bar = (
        f'<div class="bar" role="progressbar" aria-label="{escape(what)}" aria-valuemin="0" '
        f'aria-valuemax="{max(total, 1)}" aria-valuenow="{done}"><i style="width:{share:.0f}%"></i></div>'
    )
    return f'<div class="say run" role="status">{bar}<p>{escape(text)}</p></div>'
