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
    """dB and passes of a line."""
    found = re.fullmatch(r".*: (-?[\d.]+) dB, (\d+) passes, [\d.]+ s", line)
    assert found, line
    return float(found[1]), int(found[2])


def test_the_demonstration_needs_no_network(offline: None) -> None:
    pipe = models.load("emoji-turbo")
    pipe.set_progress_bar_config(disable=True)
    numbers = torch.get_rng_state()
    figure, lines = demo.figure(pipe)
    names = ["original", "auto-encoder", "plain reversal", "ReNoise, preset paper"]
    names += ["renoise, preset fast", "edit", "edit"]
    assert [line.split(":")[0] for line in lines] == names
    assert lines[0].endswith(demo.PROMPT)
    assert lines[-2:] == [f"edit: {prompt}" for prompt in demo.EDITS]
    (plain, fewest), (published, most), (ours, passes) = map(scores, lines[2:5])
    assert plain < published < ours
    assert fewest == 4 < passes < most
    assert figure.width > 7 * figure.height / 2  # seven panels in a row
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
