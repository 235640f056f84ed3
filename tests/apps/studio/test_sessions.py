"""What a browser tab has is its own, bounded, and let go."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from renoise.apps.studio.choices import EditChoices, InvertChoices, Refused
from renoise.apps.studio.downloads import download
from renoise.apps.studio.pictures import Limits, Source
from renoise.apps.studio.sessions import Session, Sessions
from renoise.apps.studio.words import Scores
from renoise.apps.studio.work import Found, Made
from tests.helpers.studio import png


class Remembered:
    """Stands for a record; can be watched."""

    def __init__(self, scene: object) -> None:
        self.scene = scene


SCORES = Scores(30.0, 31.0, 8, 1.0, 0.1, ((0.5, 0.1),), (999.0,))


def found(shade: int = 0) -> Found:
    """An inversion, as far as sessions look at it."""
    picture = png(8, 6, shade)
    record: Any = Remembered(SimpleNamespace(prompts=("red apple",)))
    choices = InvertChoices("red apple")
    return Found(record, Source(picture, (8, 6), "red apple"), choices, picture, picture, picture, SCORES, record)


def made(shade: int = 0) -> Made:
    after: Any = None  # sessions do not look at it
    return Made(png(8, 6, shade), after, None, 4, 0.1)


def test_the_oldest_inversion_goes_with_its_edits() -> None:
    session = Session(Limits(inversions=2))
    first = found()
    watched = weakref.ref(first.record)
    session.add_inversion(first)
    held = session.inverted
    assert held is not None
    edit = session.add_result(EditChoices("green apple"), made(), held, None)
    session.base = edit
    session.add_inversion(found())
    assert session.base is None
    assert session.chosen is None
    assert session.results == [edit]
    assert session.add_inversion(found()) == [edit]
    assert [inverted.number for inverted in session.inversions] == [2, 3]
    assert session.results == []
    del first, held, edit
    gc.collect()
    assert watched() is None


def test_an_edit_remembers_its_chain_and_brings_back_its_inversion() -> None:
    session = Session(Limits())
    session.add_inversion(found())
    one = session.inverted
    assert one is not None
    first = session.add_result(EditChoices("green apple"), made(), one, None)
    second = session.add_result(EditChoices("pear"), made(), one, first)
    session.add_inversion(found())
    assert session.restore(second.number) is second
    assert session.inverted is one
    assert session.chosen is second
    assert second.chain() == [first, second]
    with pytest.raises(Refused, match="no longer held"):
        session.restore(99)


def test_results_are_bounded() -> None:
    session = Session(Limits(results=3))
    session.add_inversion(found())
    held = session.inverted
    assert held is not None
    for number in range(5):
        session.add_result(EditChoices(f"prompt {number}"), made(), held, None)
    assert [result.number for result in session.results] == [3, 4, 5]


def test_an_upload_is_taken_once_and_few_are_held() -> None:
    session = Session(Limits())
    names = [session.keep_upload(bytes([number])) for number in range(3)]
    with pytest.raises(Refused, match="did not arrive"):
        session.take_upload(names[0])
    assert session.take_upload(names[2]) == b"\2"
    with pytest.raises(Refused):
        session.take_upload(names[2])


def test_sessions_are_known_by_an_unguessable_key_and_by_their_tab() -> None:
    sessions = Sessions(Limits())
    one, two = sessions.open("a"), sessions.open("b")
    assert one.key != two.key
    assert len(one.key) >= 24
    assert sessions.by_key(two.key) is two
    assert sessions.by_key(two.key[:-1]) is None
    assert sessions.by_key("") is None
    assert sessions.get("a") is one
    sessions.close("a")
    with pytest.raises(Refused, match="downloaded is safe"):
        sessions.get("a")
    assert sessions.by_key(one.key) is None
    with pytest.raises(Refused):
        sessions.get(None)


def test_the_session_that_was_idle_longest_makes_room_and_one_at_work_does_not() -> None:
    sessions = Sessions(Limits(sessions=2))
    busy, idle = sessions.open("busy"), sessions.open("idle")
    busy.job = type("Running", (), {"over": False, "stop": lambda self: None})()  # type: ignore[assignment]
    busy.touched = idle.touched - 100
    sessions.open("new")
    assert sessions.by_key(busy.key) is busy
    assert sessions.by_key(idle.key) is None
    assert len(sessions) == 2


def test_idle_sessions_are_let_go() -> None:
    sessions = Sessions(Limits(idle_minutes=1))
    old = sessions.open("old")
    old.add_inversion(found())
    old.touched -= 61
    sessions.open("new")
    assert len(sessions) == 1
    assert old.inversions == []


def test_files_are_looked_up_by_name_and_nowhere_else() -> None:
    session = Session(Limits())
    assert download(session, "source.png") is None
    assert download(session, "sheet.png") is None
    session.add_inversion(found(10))
    held = session.inverted
    assert held is not None
    painted = png(8, 6, 255)
    first = session.add_result(EditChoices("green apple", mask="painted", painted=painted), made(20), held, None)
    session.add_result(EditChoices("pear"), replace(made(30), mask=png(8, 6, 99)), held, first)
    assert download(session, "edit-1.png") == (png(8, 6, 20), "image/png")
    assert download(session, "edit-1-painted.png") == (painted, "image/png")
    assert download(session, "edit-2-mask.png") == (png(8, 6, 99), "image/png")
    assert download(session, "inversion-1-source.png") == (png(8, 6, 10), "image/png")
    for name in ("edit-1-strip.png", "edit-2-strip.png", "sheet.png"):
        data = download(session, name)
        assert data is not None
        assert data[0].startswith(b"\x89PNG")
    for name in (
        "edit-3.png", "edit-1-mask.png", "edit-1.safetensors", "inversion-2.safetensors", "inversion-1-other.png",
        "../../etc/passwd", "/etc/passwd", "edit-1.png/../x", "edit-١.png\n", "", "inversion-1.png",
    ):  # fmt: skip
        assert download(session, name) is None, name


def test_closing_lets_go_of_everything() -> None:
    sessions = Sessions(Limits())
    session = sessions.open("a")
    watched = found()
    held = weakref.ref(watched.record)
    session.add_inversion(watched)
    session.keep_upload(b"x")
    del watched
    sessions.close_all()
    gc.collect()
    assert held() is None
    assert len(sessions) == 0
