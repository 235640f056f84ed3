"""The parts of the page that are not form fields, as HTML.  Whatever a user wrote is escaped here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from renoise.apps.studio import plot, recipes
from renoise.apps.studio.captions import Guess, Vocabulary
from renoise.apps.studio.examples import examples
from renoise.apps.studio.line import Job
from renoise.apps.studio.pictures import Limits
from renoise.apps.studio.recipes import Model
from renoise.apps.studio.sessions import Result, Session
from renoise.apps.studio.words import duration, place, verdict

__all__ = [
    "base_line", "guesses", "header", "history", "key_holder", "painter", "progress", "report", "say", "source",
    "stage", "styles", "take_home", "tip",
]  # fmt: skip


def tip(word: str, meaning: str) -> str:
    """A word with its meaning, shown by pointing at it or by reaching it with the keyboard."""
    return f'<span class="tip" tabindex="0" data-tip="{escape(meaning)}" aria-label="{escape(word)}: {escape(meaning)}">{escape(word)}</span>'


_DB = tip(
    "dB",
    "Decibels of the peak signal-to-noise ratio. More is closer: above 40 the eye sees no difference, below 25 it is plain.",
)
_CEILING = tip(
    "auto-encoder’s ceiling",
    "The picture packed into the model’s latents and unpacked again, without any noise. No inversion can give back more than that.",
)
_PASSES = tip("passes", "How often the network was evaluated. This is what an inversion costs.")
_RESIDUAL = tip(
    "residual",
    "How far each step of the sampler still is from undoing itself exactly: hollow after its first pass, filled after its last. Lower is better.",
)


def header(model: Model, scheduler: str, size: tuple[int, int]) -> str:
    """The bar at the top: what is at work here."""
    facts = [
        ("model", model.name), ("scheduler", scheduler), ("precision", model.dtype), ("on", model.device),
        ("pixels", f"{size[1]} × {size[0]}"),
    ]  # fmt: skip
    told = "".join(f"<div><dt>{name}</dt><dd>{escape(str(value))}</dd></div>" for name, value in facts)
    return f'<header><h1>renoise <span>studio</span></h1><dl aria-label="What runs here">{told}</dl></header>'


def key_holder(session: Session, run: str, limits: Limits) -> str:
    """What the page's scripts need: the key of the session, which start of the server this is, and the limits."""
    return f'<div id="studio-key" data-key="{session.key}" data-run="{run}" data-bytes="{int(limits.megabytes * 1e6)}"></div>'


def source(session: Session | None, told: str = "") -> str:
    """The place to drop a picture, the picture, and the examples."""
    buttons = "".join(
        f'<button type="button" data-example="{index}" aria-label="Example: {escape(example.caption)}" '
        f'title="{escape(example.caption)}"><img src="/studio/examples/{index}.png" alt="" width="64" height="64"></button>'
        for index, example in enumerate(examples())
    )
    chosen = session.source if session else None
    inside = (
        '<span class="sign" aria-hidden="true">+</span><span>Drop a picture here, paste one, or choose a file.</span>'
    )
    if session is not None and chosen is not None:
        inside = (
            f'<img src="/studio/{session.key}/source.png?{id(chosen):x}" alt="The chosen picture: {escape(chosen.caption or "no caption yet")}">'
            f"<span>{escape(told)}</span>"
        )
    return (
        f'<label class="drop{" full" if chosen else ""}">{inside}'
        '<input type="file" accept="image/*,.safetensors" aria-label="Choose a picture or an inversion file"></label>'
        f'<div class="examples" role="group" aria-label="Examples that the model never saw">{buttons}</div>'
    )


def guesses(found: Sequence[Guess]) -> str:
    """Captions to choose from."""
    if not found:
        return ""
    chips = "".join(
        f'<button type="button" class="chip" data-caption="{escape(guess.caption)}">{escape(guess.caption)}'
        + (f" <small>{guess.probability:.0%}</small>" if guess.probability is not None else "")
        + "</button>"
        for guess in found
    )
    return f'<div class="chips" role="group" aria-label="Guesses at what it shows">{chips}</div>'


def styles(known: Vocabulary | None) -> str:
    """Buttons that put a style into the prompts, and the concepts as suggestions while one types."""
    if known is None:
        return ""
    chips = "".join(
        f'<button type="button" class="chip" data-style="{escape(style)}">{escape(style)}</button>'
        for style in known.styles
    )
    words = escape(json.dumps({"concepts": known.concepts, "styles": known.styles}))
    return (
        f'<div class="chips" role="group" aria-label="Styles that the model knows" data-words="{words}"><span>style</span>{chips}</div>'
        '<datalist id="known-captions"></datalist>'
    )


def say(kind: str, text: str, title: str = "") -> str:
    """A message: "hint", "done" or "error"."""
    sign = {"hint": "→", "done": "✓", "error": "!"}[kind]
    strong = f"<strong>{escape(title)}</strong> " if title else ""
    role = "alert" if kind == "error" else "status"
    return f'<div class="say {kind}" role="{role}"><span aria-hidden="true">{sign}</span><p>{strong}{escape(text)}</p></div>'


def progress(job: Job, what: str, ahead: int) -> str:
    """How far a job is, by passes, with the time left; or its place in the queue."""
    if job.state == "waiting":
        return f'<div class="say wait" role="status"><span class="spin" aria-hidden="true"></span><p>{escape(place(ahead))}</p></div>'
    done, total = job.progress.passes, job.progress.total
    left = job.seconds_left()
    stage = {"invert": "finding the noise", "generate": "regenerating", "edit": "editing"}.get(job.progress.stage, "")
    text = f"{what}" + (f", {stage}: pass {done} of {total}" if total else " …")
    if left is not None and left >= 0.5:
        text += f", about {duration(left)} left"
    share = 100 * done / total if total else 0
    return (
        f'<div class="say run" role="status"><div class="bar" role="progressbar" aria-label="{escape(what)}" aria-valuemin="0" '
        f'aria-valuemax="{max(total, 1)}" aria-valuenow="{done}"><i style="width:{share:.0f}%"></i></div><p>{escape(text)}</p></div>'
    )


def _pictures(session: Session) -> list[dict[str, str]]:
    """All pictures that can be compared, of the inversion at hand."""
    inverted = session.inverted
    if inverted is None:
        return []
    folder, scores = f"/studio/{session.key}", inverted.found.scores
    named = [
        ("original", "Original", "as the model saw it"),
        ("reconstruction", "Reconstruction", f"{scores.fidelity:.1f} dB"),
        ("ceiling", "Auto-encoder alone", f"{scores.ceiling:.1f} dB"),
    ]
    told = [
        {"id": name, "title": title, "note": note, "url": f"{folder}/inversion-{inverted.number}-{name}.png"}
        for name, title, note in named
    ]
    for result in session.results:
        if result.inverted is not inverted:
            continue
        number = result.number
        told.append(
            {
                "id": f"edit-{number}",
                "title": f"Edit {number}",
                "note": result.choices.prompt,
                "url": f"{folder}/edit-{number}.png",
            }
        )
        if result.made.mask is not None:
            told.append(
                {
                    "id": f"edit-{number}-mask",
                    "title": f"Mask of edit {number}",
                    "note": "white is where it was edited",
                    "url": f"{folder}/edit-{number}-mask.png",
                }
            )
    return told


def stage(session: Session) -> str:
    """The before-and-after slider; scripts fill it in."""
    pictures = _pictures(session)
    if not pictures:
        return (
            '<div class="empty"><div class="steps"><p><b>1</b> Choose a picture, and say what it shows.</p>'
            "<p><b>2</b> Invert it once: the studio finds the noise from which the model draws it again.</p>"
            "<p><b>3</b> Say what it shall show instead, as often as you like.</p></div></div>"
        )
    right = f"edit-{session.chosen.number}" if session.chosen else "reconstruction"
    return f'<div class="compare" data-pictures="{escape(json.dumps(pictures))}" data-left="original" data-right="{right}"></div>'


def report(session: Session) -> str:
    """How good the inversion is: three pictures with their numbers, a sentence, and the residual of every step."""
    inverted = session.inverted
    if inverted is None:
        return '<div class="empty"><p>After an inversion, this says how good it is.</p></div>'
    scores, folder = inverted.found.scores, f"/studio/{session.key}/inversion-{inverted.number}"
    cells = "".join(
        f'<figure><img src="{folder}-{name}.png" alt="{alt}"><figcaption>{title}<br><b>{value}</b></figcaption></figure>'
        for name, alt, title, value in (
            ("original", "Original", "original", "as the model saw it"),
            ("ceiling", "Through the auto-encoder alone", _CEILING, f"{scores.ceiling:.1f} {_DB}"),
            ("reconstruction", "Reconstruction", "reconstruction", f"{scores.fidelity:.1f} {_DB}"),
        )
    )
    cost = f"{scores.passes} {_PASSES}, {duration(scores.seconds)}"
    drawn = plot.residuals(scores)
    return (
        f'<div class="report"><div class="three">{cells}</div><p class="verdict">{escape(verdict(scores))}</p>'
        f"<p>{cost}. The {_RESIDUAL} of every step:</p>{drawn}</div>"
    )


def _tile(session: Session, result: Result, large: bool) -> str:
    chosen = session.chosen is result
    settings = result.choices.described()
    origin = f"from edit {result.base.number}" if result.base else "from the picture"
    label = f"Edit {result.number}: {result.choices.prompt}, {origin}" + (f", {settings}" if settings else "")
    seed = f" · seed {result.choices.seed}" if result.choices.randomness else ""
    return (
        f'<li><button type="button" data-choose="{result.number}" aria-pressed="{str(chosen).lower()}" aria-label="{escape(label)}" '
        f'title="{escape(label)}"><img src="/studio/{session.key}/edit-{result.number}.png" alt="" loading="lazy">'
        f"<span>{result.number} · {escape(result.choices.prompt)}{seed if large else ''}</span></button></li>"
    )


def history(session: Session) -> str:
    """All edits, newest first, and what can be done with the one that is looked at."""
    if not session.results:
        return (
            '<p class="quiet">Your edits will be kept here, with the settings of each.</p>' if session.inverted else ""
        )
    tiles = "".join(_tile(session, result, False) for result in reversed(session.results))
    told, result = "", session.chosen
    if result is not None:
        origin = f"from edit {result.base.number}" if result.base else "from the picture"
        settings = result.choices.described() or "plain exchange of the prompt"
        going_on = session.base is result
        told = (
            f'<div class="about"><p><b>Edit {result.number}</b> {origin} · {escape(result.choices.prompt)} · {escape(settings)} · '
            f"{result.made.passes} passes, {duration(result.made.seconds)}</p>"
            f'<button type="button" class="act" data-base="{result.number}" aria-pressed="{str(going_on).lower()}">'
            f"{'Edits go on from here' if going_on else 'Go on from this edit'}</button></div>"
        )
    return f'{told}<ol class="tiles" aria-label="Edits, newest first">{tiles}</ol>'


def grid(session: Session, results: Sequence[Result]) -> str:
    """The edits that were asked for together, large."""
    if not results:
        return '<div class="empty"><p>Several prompts, one a line, or several seeds make several edits; they are laid out here.</p></div>'
    tiles = "".join(_tile(session, result, True) for result in results)
    return f'<ol class="tiles large" aria-label="The last edits together">{tiles}</ol>'


def base_line(session: Session) -> str:
    """What the next edit begins from."""
    if session.inverted is None:
        return ""
    if session.base is None:
        return '<p class="base">Edits begin from <b>the picture</b>.</p>'
    return (
        f'<p class="base">Edits go on from <b>edit {session.base.number}</b>. '
        '<button type="button" class="act" data-base="none">Back to the picture</button></p>'
    )


def painter(session: Session) -> str:
    """The canvas on which a mask is painted; scripts bring it to life."""
    inverted = session.inverted
    if inverted is None:
        return '<p class="quiet">Invert a picture first, then paint where it shall change.</p>'
    folder = f"/studio/{session.key}"
    under = f"edit-{session.base.number}.png" if session.base else f"inversion-{inverted.number}-original.png"
    shown = session.chosen
    found = f"{folder}/edit-{shown.number}-mask.png" if shown is not None and shown.made.mask is not None else ""
    return (
        f'<div class="painter" data-inversion="{inverted.number}" data-under="{folder}/{under}" data-found="{found}"><canvas tabindex="0" role="application" '
        'aria-label="Paint where the picture shall change. Arrow keys move the brush, space paints, E erases, Z takes back."></canvas>'
        '<div class="tools"><label>brush <input type="range" data-tool="size" min="1" max="40" value="12" aria-label="Size of the brush, in percent of the picture"></label>'
        '<button type="button" data-tool="erase" aria-pressed="false">Erase</button><button type="button" data-tool="undo">Undo</button>'
        '<button type="button" data-tool="invert">Swap</button><button type="button" data-tool="clear">Clear</button>'
        f'<button type="button" data-tool="found"{"" if found else " disabled"} title="Begin with the mask of the edit that is looked at">From the edit</button>'
        "</div></div>"
    )


def take_home(session: Session, model: Model | None = None) -> str:
    """Links to the files, and the text that repeats the result."""
    inverted = session.inverted
    if inverted is None or model is None:
        return '<p class="quiet">Pictures, the inversion, and the commands that repeat them will be here.</p>'
    folder, result = f"/studio/{session.key}", session.chosen
    links: list[tuple[str, str, str]] = []
    if result is not None:
        links.append((f"edit-{result.number}.png", f"edit-{result.number}.png", "This edit (PNG)"))
        links.append((f"edit-{result.number}-strip.png", f"edit-{result.number}-strip.png", "Strip: before and after"))
        for edit in result.chain():
            if edit.choices.painted is not None:
                links.append(
                    (
                        f"edit-{edit.number}-painted.png",
                        f"edit-{edit.number}-painted.png",
                        f"Mask of edit {edit.number}",
                    )
                )
    number = inverted.number
    links.append((f"inversion-{number}.safetensors", f"inversion-{number}.safetensors", "Inversion file"))
    if inverted.found.source is not None:
        links.append((f"inversion-{number}-source.png", "source.png", "Source picture"))
    if len(session.results) > 1:
        links.append(("sheet.png", "contact-sheet.png", "Contact sheet of all edits"))
    anchors = "".join(f'<a href="{folder}/{name}" download="{saved}">{title}</a>' for name, saved, title in links)
    subject = result if result is not None else inverted
    needed = " and ".join(recipes.files(subject))
    line = recipes.command_line(model, subject)
    blocks = _code("Python", recipes.python(model, subject))
    blocks += (
        _code("Command line", line)
        if line
        else '<p class="quiet">A chain of edits takes Python; the command line makes one edit.</p>'
    )
    return (
        f'<div class="links">{anchors}</div><details class="repeat"><summary>Repeat this result</summary>'
        f"<p>These make exactly this picture, in a folder with {escape(needed)}.</p>{blocks}</details>"
    )


def _code(title: str, text: str) -> str:
    return (
        f'<div class="code"><div><span>{title}</span><button type="button" data-copy aria-label="Copy: {title}">Copy</button></div>'
        f'<pre tabindex="0">{escape(text)}</pre></div>'
    )


def everything(session: Session, model: Model, last: Sequence[Result]) -> dict[str, Any]:
    """All parts that depend on what a session has, by the name of their place on the page."""
    return {
        "stage": stage(session),
        "grid": grid(session, last),
        "report": report(session),
        "history": history(session),
        "base": base_line(session),
        "painter": painter(session),
        "take": take_home(session, model),
    }
