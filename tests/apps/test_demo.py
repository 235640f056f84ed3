"""The demonstration: a picture from the package, both ways, without a network."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

from renoise import images, models
from renoise.apps import demo


def scores(line: str) -> tuple[float, int]:
    """dB and passes of a line about a reconstruction."""
    found = re.fullmatch(r".*: (-?[\d.]+) dB, (\d+) passes, [\d.]+ s", line)
    assert found, line
    return float(found[1]), int(found[2])


def test_the_demonstration_needs_no_network(offline: None) -> None:
    pipe = models.load("emoji-turbo")
    pipe.set_progress_bar_config(disable=True)
    numbers = torch.get_rng_state()
    figure, lines = demo.figure(pipe)
    titles = ["original", "auto-encoder", "plain reversal", "ReNoise, preset paper"]
    titles += ["renoise, preset fast", "renoise, preset few-step"]
    edits = ["edit, creative", "edit, balanced", "edit, faithful", "automatic mask", "edit, balanced, in the mask"]
    titles += [f"{title}, preset few-step" for title in [*edits, "edit of the style, balanced"]]
    assert [line.split(":")[0] for line in lines] == titles
    assert lines[0].endswith(demo.PROMPT)
    (plain, fewest), (published, most), (fast, fewer), (ours, passes) = map(scores, lines[2:6])
    assert plain < published < fast < ours
    assert fewest == 4 < fewer < passes < most
    spent = [re.fullmatch(r".*: (.*), (\d+) passes", line) for line in lines[6:]]
    assert [found and found[1] for found in spent] == [*[demo.EDIT] * 3, None, demo.EDIT, demo.STYLE]
    assert [found and int(found[2]) for found in spent] == [4, 7, 7, None, 14, 7]
    assert figure.height > figure.width / 3  # six panels in a row, in two rows
    assert len(np.unique(np.asarray(figure).reshape(-1, 3), axis=0)) > 100
    assert torch.equal(numbers, torch.get_rng_state())


def test_the_picture_is_in_the_package_and_square() -> None:
    picture = images.open_image(models.EXAMPLE)
    assert picture.width == picture.height >= 64


def test_the_seed_is_that_of_the_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []

    def stop(*_: Any, seed: int, **__: Any) -> None:
        seeds.append(seed)
        raise InterruptedError

    monkeypatch.setattr(demo, "invert", stop)
    with pytest.raises(InterruptedError):
        demo.figure(models.load("emoji-turbo"), seed=5)
    assert seeds == [5]
