"""What the method is for, on the embedded few-step model and pictures that it never saw (slow)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import renoise
from benchmarks import pictures
from renoise import metrics
from renoise.core.settings import Region, plain
from renoise.images import to_pil
from renoise.presets import PRESETS

pytestmark = pytest.mark.slow


def test_each_further_renoising_reconstructs_better_and_plain_reversal_is_far_behind() -> None:
    held_out = pictures.load("validation").first(8)
    pipe = renoise.models.load("emoji-turbo")
    bare = plain(PRESETS["paper-sdxl-turbo"].settings)
    scores = []
    for iterations in (0, 1, 4, 9):
        settings = replace(bare, regions=(Region(iterations=iterations),))
        inversion = renoise.invert(pipe, to_pil(held_out.pixels), held_out.captions, preset=settings)
        assert inversion.passes == 4 * (iterations + 1)
        found = inversion.regenerate(inversion.scene)
        assert torch.isfinite(found).all()
        scores.append(float(metrics.psnr(found, inversion.round_trip()).mean()))
    assert scores == sorted(scores)
    assert scores[-1] > scores[0] + 6


def test_a_sharp_model_is_harder_and_the_presets_stay_ahead_of_the_published_method() -> None:
    held_out = pictures.load("validation").first(8)
    reached = {}
    for name in ("emoji-turbo", "emoji-turbo-sharp"):
        pipe = renoise.models.load(name)
        for preset in ("fast", "few-step", "sharp", "paper"):
            inversion = renoise.invert(pipe, to_pil(held_out.pixels), held_out.captions, preset=preset)
            found = inversion.regenerate(inversion.scene)
            reached[name, preset] = float(metrics.psnr(found, inversion.round_trip()).mean())
    sharp = {preset: dB for (name, preset), dB in reached.items() if name == "emoji-turbo-sharp"}
    assert reached["emoji-turbo", "fast"] > sharp["fast"] + 4
    assert sharp["paper"] + 4 < sharp["fast"] < sharp["few-step"] < sharp["sharp"]
