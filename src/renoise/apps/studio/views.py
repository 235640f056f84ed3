"""The parts of the page that show what a session has, as HTML: pictures, report, history, mask, files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape

from renoise.apps.studio import plot, recipes
from renoise.apps.studio.markup import CEILING, DB, PASSES, empty, explained, quiet, tip
from renoise.apps.studio.recipes import Model
from renoise.apps.studio.sessions import Result, Session
from renoise.apps.studio.words import duration, verdict

__all__ = ["base_line", "everything", "grid", "history", "painter", "report", "stage", "take_home"]

_RESIDUAL = tip(
    "residual",
    "How far each step of the sampler still is from being undone exactly: hollow after its first pass, filled after "
    "its last. Lower is better.",
)
_TOOLS = (
    '<label>brush <input type="range" data-tool="size" min="1" max="40" value="12" '
    'aria-label="Size of the brush, in percent of the picture"></label>'
    '<button type="button" data-tool="erase" aria-pressed="false">Erase</button>'
    '<button type="button" data-tool="undo">Undo</button>'
    '<button type="button" data-tool="invert" title="What is painted and what is not change places">Swap</button>'
    '<button type="button" data-tool="clear">Clear</button>'
)
_CANVAS = (
    '<canvas tabindex="0" role="application" aria-label="Paint where the picture shall change. Arrow keys move the '
    'brush, shift and arrows paint, space paints a dot, E erases, Z takes back."></canvas>'
)


def _pictures(session: Session) -> list[dict[str, str]]:
    """All pictures of the inversion at hand that can be compared."""
    inverted = session.inverted
    if inverted is None:
        return []
    folder, scores = f"/studio/{session.key}", inverted.found.scores
    named = [
        ("original", "Original", "as the model saw it"),
        ("reconstruction", "Reconstruction", f"{scores.fidelity:.1f} dB"),
        ("ceiling", "Auto-encoder alone", f"{scores.ceiling:.1f} dB"),
    ]
    files = [(name, title, note, f"inversion-{inverted.number}-{name}.png") for name, title, note in named]
    for result in session.results:
        if result.inverted is not inverted:
            continue
        name = f"edit-{result.number}"
        files.append((name, f"Edit {result.number}", result.choices.prompt, f"{name}.png"))
        if result.made.mask is not None:
            files.append((f"{name}-mask", f"Mask of edit {result.number}", "white is where", f"{name}-mask.png"))
    return [{"id": name, "title": title, "note": note, "url": f"{folder}/{file}"} for name, title, note, file in files]


def stage(session: Session) -> str:
    """The before-and-after slider; scripts fill it in."""
    pictures = _pictures(session)
    if not pictures:
        return empty(
            '<div class="steps"><p><b>1</b> Choose a picture, and say what it shows.</p>'
            "<p><b>2</b> Invert it once: the studio finds the noise from which the model draws it again.</p>"
            "<p><b>3</b> Say what it shall show instead, as often as you like.</p></div>"
        )
    right = f"edit-{session.chosen.number}" if session.chosen else "reconstruction"
    told = escape(json.dumps(pictures))
    return f'<div class="compare" data-pictures="{told}" data-left="original" data-right="{right}"></div>'


def report(session: Session) -> str:
    """How good the inversion is: three pictures with their numbers, a sentence, and the residual of every step."""
    inverted = session.inverted
    if inverted is None:
        return empty("<p>After an inversion, this says how good it is.</p>")
    scores, folder = inverted.found.scores, f"/studio/{session.key}/inversion-{inverted.number}"
    cells = ""
    for name, alt, title, value in (
        ("original", "Original", "original", "as the model saw it"),
        ("ceiling", "Through the auto-encoder alone", CEILING, f"{scores.ceiling:.1f} {DB}"),
        ("reconstruction", "Reconstruction", "reconstruction", f"{scores.fidelity:.1f} {DB}"),
    ):
        caption = f"<figcaption>{title}<br><b>{value}</b></figcaption>"
        cells += f'<figure><img src="{folder}-{name}.png" alt="{alt}">{caption}</figure>'
    cost = f"{scores.passes} {PASSES}, {duration(scores.seconds)}"
    return (
        f'<div class="report"><div class="three">{cells}</div><p class="verdict">{explained(verdict(scores))}</p>'
        f"<p>{cost}. The {_RESIDUAL} of every step:</p>{plot.residuals(scores)}</div>"
    )


def _origin(result: Result) -> str:
    return f"from edit {result.base.number}" if result.base else "from the picture"


def _tile(session: Session, result: Result, large: bool) -> str:
    pressed = str(session.chosen is result).lower()
    settings = result.choices.described()
    prompt = escape(result.choices.prompt)
    label = f"Edit {result.number}: {prompt}, {_origin(result)}" + (f", {escape(settings)}" if settings else "")
    seed = f" · seed {result.choices.seed}" if large and result.choices.randomness else ""
    picture = f'<img src="/studio/{session.key}/edit-{result.number}.png" alt="" loading="lazy">'
    return (
        f'<li><button type="button" data-choose="{result.number}" aria-pressed="{pressed}" aria-label="{label}" '
        f'title="{label}">{picture}<span>{result.number} · {prompt}{seed}</span></button></li>'
    )


def history(session: Session) -> str:
    """All edits, newest first, and what can be done with the one that is looked at."""
    if not session.results:
        return quiet("Your edits will be kept here, with the settings of each.") if session.inverted else ""
    tiles = "".join(_tile(session, result, False) for result in reversed(session.results))
    told, result = "", session.chosen
    if result is not None:
        going_on = session.base is result
        settings = result.choices.described() or "plain exchange of the prompt"
        cost = f"{result.made.passes} passes, {duration(result.made.seconds)}"
        facts = " · ".join(map(escape, (_origin(result), result.choices.prompt, settings, cost)))
        told = (
            f'<div class="about"><p><b>Edit {result.number}</b> {facts}</p>'
            f'<button type="button" class="act" data-base="{result.number}" aria-pressed="{str(going_on).lower()}">'
            f"{'Edits go on from here' if going_on else 'Go on from this edit'}</button></div>"
        )
    return f'{told}<ol class="tiles" aria-label="Edits, newest first">{tiles}</ol>'


def grid(session: Session, results: Sequence[Result]) -> str:
    """The edits that were asked for together, large."""
    if not results:
        return empty("<p>Several prompts, one a line, or several seeds make several edits; they are laid out here.</p>")
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
    inverted, shown = session.inverted, session.chosen
    if inverted is None:
        return quiet("Invert a picture first, then paint where it shall change.")
    folder = f"/studio/{session.key}"
    under = f"edit-{session.base.number}.png" if session.base else f"inversion-{inverted.number}-original.png"
    found = f"{folder}/edit-{shown.number}-mask.png" if shown is not None and shown.made.mask is not None else ""
    again = (
        f'<button type="button" data-tool="found"{"" if found else " disabled"} '
        'title="Begin with the mask of the edit that is looked at">From the edit</button>'
    )
    return (
        f'<div class="painter" data-inversion="{inverted.number}" data-under="{folder}/{under}" data-found="{found}">'
        f'{_CANVAS}<div class="tools">{_TOOLS}{again}</div></div>'
    )


def take_home(session: Session, model: Model | None = None) -> str:
    """Links to the files, and the text that repeats the result."""
    inverted, result = session.inverted, session.chosen
    if inverted is None or model is None:
        return quiet("Pictures, the inversion, and the commands that repeat them will be here.")
    number = inverted.number
    links: list[tuple[str, str, str]] = []  # address, name of the file, title
    for edit in result.chain()[-1:] if result is not None else []:
        links.append((f"edit-{edit.number}.png", f"edit-{edit.number}.png", "This edit (PNG)"))
        links.append((f"edit-{edit.number}-strip.png", f"edit-{edit.number}-strip.png", "Strip: before and after"))
    for edit in result.chain() if result is not None else []:
        if edit.choices.painted is not None:
            file = f"edit-{edit.number}-painted.png"
            links.append((file, file, f"Mask of edit {edit.number}"))
    links.append((f"inversion-{number}.safetensors", f"inversion-{number}.safetensors", "Inversion file"))
    if inverted.found.source is not None:
        links.append((f"inversion-{number}-source.png", "source.png", "Source picture"))
    if len(session.results) > 1:
        links.append(("sheet.png", "contact-sheet.png", "Contact sheet of all edits"))
    folder = f"/studio/{session.key}"
    anchors = "".join(f'<a href="{folder}/{name}" download="{saved}">{title}</a>' for name, saved, title in links)
    subject = result if result is not None else inverted
    line = recipes.command_line(model, subject)
    blocks = _code("Python", recipes.python(model, subject))
    blocks += _code("Command line", line) if line else quiet("A chain of edits takes Python.")
    return (
        f'<div class="links">{anchors}</div><details class="repeat"><summary>Repeat this result</summary>'
        f"<p>These make exactly this picture, in a folder with the files that they name.</p>{blocks}</details>"
    )


def _code(title: str, text: str) -> str:
    copy = f'<button type="button" data-copy aria-label="Copy: {title}">Copy</button>'
    return f'<div class="code"><div><span>{title}</span>{copy}</div><pre tabindex="0">{escape(text)}</pre></div>'


def everything(session: Session, model: Model, last: Sequence[Result]) -> dict[str, str]:
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
