"""What is said about inversions, and the plot of their residuals."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest
import torch

from renoise.apps.studio import plot, words
from renoise.apps.studio.words import Scores
from renoise.core.table import COLUMNS, StepTable
from renoise.core.trajectory import StepReport, Trajectory

SCORES = Scores(34.0, 35.2, 16, 2.0, 0.12, ((0.8, 0.3), (0.4, 0.2, 0.05)), (999.0, 499.0))


def test_the_gap_to_the_auto_encoder_is_said_in_words() -> None:
    assert (
        words.verdict(SCORES) == "Close: 1.2 dB below what the auto-encoder can give. 12% of the noise carries picture."
    )
    assert words.verdict(replace(SCORES, fidelity=35.2)).startswith("As close as this model can come")
    assert "Very close: 0.4 dB" in words.verdict(replace(SCORES, fidelity=34.8))
    far = words.verdict(replace(SCORES, fidelity=12.0))
    assert "Far off: 23.2 dB" in far
    assert "more passes" in far


def test_noise_that_carries_nothing_is_said_so() -> None:
    assert "None of the sampler's noise" in words.verdict(replace(SCORES, noise_share=0.0))
    assert "draws no noise" in words.verdict(replace(SCORES, noise_share=None))


def test_the_share_of_the_noise_is_the_root_mean_square_of_its_travel() -> None:
    row = torch.ones(2, dtype=torch.float64)
    table = StepTable(**dict.fromkeys(COLUMNS, row), num_train_timesteps=1000, integer_timesteps=True)
    reports = tuple(
        StepReport(step, 999.0, 0.999, 2, torch.ones(2, 1), None if step else torch.tensor([0.3])) for step in range(2)
    )
    noises = torch.zeros(2, 1, 4, 2, 2)
    trajectory = Trajectory(table, noises[0], noises, reports, 4)
    assert words.noise_share(trajectory) == pytest.approx((0.3**2 / 2) ** 0.5)
    assert words.noise_share(replace(trajectory, noises=None)) is None


def test_the_fit_tells_size_scale_and_padding() -> None:
    told = words.fitted((800, 600), (64, 64), (0, 8, 64, 56))
    assert told == (
        "Yours has 800 × 600 pixels; the model works at 64 × 64, so it is scaled to 64 × 48 and padded (8 pixels "
        "above, 8 pixels below; cut off again at the end)."
    )
    assert words.fitted((64, 64), (64, 64), (0, 0, 64, 64)) == "Yours has 64 × 64 pixels; the model works at 64 × 64."


def test_places_and_durations() -> None:
    assert "number 3 in the queue" in words.place(2)
    assert words.place(0) == "Starting …"
    assert [words.duration(seconds) for seconds in (0.42, 42.4, 125)] == ["0.4 s", "42 s", "2 min 5 s"]


def test_the_plot_shows_every_step_from_its_first_to_its_last_residual() -> None:
    drawn = ElementTree.fromstring(plot.residuals(SCORES))
    steps = drawn.findall("g")
    assert len(steps) == 2
    assert [step.findtext("title") for step in steps] == [
        "timestep 999: from 0.8 to 0.3 in 2 passes", "timestep 499: from 0.4 to 0.05 in 3 passes",
    ]  # fmt: skip
    for step in steps:  # lower residuals stand lower
        first, last = (float(circle.attrib["cy"]) for circle in step.findall("circle"))
        assert first < last
    assert "from 0.8 to 0.3" in drawn.attrib["aria-label"]


def test_the_plot_survives_what_residuals_can_be() -> None:
    odd = replace(SCORES, residuals=((0.0, float("nan")), (float("inf"),)))
    assert len(ElementTree.fromstring(plot.residuals(odd)).findall("g")) == 1
    assert plot.residuals(replace(SCORES, residuals=((), ()))) == ""
    many = replace(SCORES, residuals=((0.5, 0.1),) * 50, timesteps=tuple(float(20 * step) for step in range(50)))
    assert len(ElementTree.fromstring(plot.residuals(many)).findall("g")) == 50
