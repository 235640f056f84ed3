"""How an inversion went, as text and as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from renoise import images, metrics
from renoise.core.trajectory import StepReport
from renoise.figures import Panel, comparison

from .inversion import Inversion

__all__ = ["latent_decibels", "panels", "picture", "stacked", "text"]

_INK, _GREY, _PAPER, _BAR, _FIRST = "#1a1a1a", "#8a8a8a", "#ffffff", "#2f6fb0", "#c9dbed"
_WIDTH, _ROW, _MARGIN = 640, 26, 18


def text(inversion: Inversion, latents: Tensor | None = None, decoded: Tensor | None = None) -> str:
    """The report in words.

    Args:
        inversion: what is reported on.
        latents: its reconstruction, as nodes pass latents on; None where there is none.
        decoded: PSNR in dB of the decoded reconstruction against the auto-encoder's round trip [batch], or None.
    """
    model, table, trajectory = inversion.model, inversion.table, inversion.trajectory
    name, options = inversion.sampler
    told = ", ".join(f"{key}={value:g}" for key, value in options.items())
    lines = [
        f"{len(inversion.z_0)} picture(s), {model.name} ({model.prediction} prediction), sampler {name}"
        + (f" ({told})" if told else ""),
        f"{len(table)} steps from sigma {table.sigma[0]:.4g}, {trajectory.passes} network passes, guidance "
        f"{inversion.cfg:g}, {inversion.seconds:.1f} s",
        f"standard deviation of z_T: {_start_std(inversion):.3f} of its noise level (white noise: 1)",
    ]
    if latents is not None:
        lines.append(f"reconstruction against the latents that went in: {_each(latent_decibels(inversion, latents))}")
    if decoded is not None:
        lines.append(f"decoded, against the auto-encoder's round trip: {_each(decoded)}")
    lines.append("step   sigma  passes  residual first -> last   noise: travel    std  neighbours")
    for report in trajectory.steps:
        first, last = (report.residuals[index].mean().item() for index in (0, -1))
        noise = (
            "none drawn"
            if table.n[report.step] == 0
            else "   ".join(_number(getattr(report, key)) for key in ("noise_travel", "noise_std", "noise_correlation"))
        )
        lines.append(
            f"{report.step:4d} {table.sigma[report.step]:7.3f} {report.passes:7d} {first:11.2e} -> {last:.2e}   {noise}"
        )
    if table.stochastic:
        lines.append(
            "travel 0: the noise as drawn; std 1 and neighbours 0: white. What is left of a step is in its noise."
        )
    return "\n".join(lines)


def latent_decibels(inversion: Inversion, latents: Tensor) -> Tensor:
    """PSNR in dB [batch] of latents against those that were inverted, whose range counts as the peak."""
    if latents.shape != inversion.samples.shape:
        raise ValueError(
            f"the reconstruction is {list(latents.shape)} and the inversion {list(inversion.samples.shape)}: wire the "
            "latent that ReNoise Edit or a replay made from this inversion"
        )
    wanted = inversion.samples.flatten(1).double()
    peak = wanted.amax(1) - wanted.amin(1)
    error = (latents.detach().cpu().flatten(1).double() - wanted).square().mean(1)
    return 10 * torch.log10(peak.square() / error)


def picture(inversion: Inversion) -> Image.Image:
    """What was left to solve at every step, first and last pass, as bars on a logarithmic scale."""
    font = ImageFont.load_default(size=14)
    steps = inversion.trajectory.steps
    shown = steps if len(steps) <= 24 else [steps[round(i * (len(steps) - 1) / 23)] for i in range(24)]
    pairs = [(step, *_ends(step)) for step in shown]
    values = [value for step in shown for value in _ends(step)]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)) + 1e-9)
    high = max(high, low + 1)
    figure = Image.new("RGB", (_WIDTH, 2 * _MARGIN + _ROW * (len(pairs) + 2)), _PAPER)
    draw = ImageDraw.Draw(figure)
    draw.text((_MARGIN, _MARGIN), "Residual of every step: first pass (pale), last pass (dark)", font=font, fill=_INK)
    left, right = 150, _WIDTH - _MARGIN - 70

    def place(value: float) -> float:
        return left + (math.log10(value) - low) / (high - low) * (right - left)

    bottom = _MARGIN + _ROW * (len(pairs) + 1)
    for power in range(low, high + 1):
        x = place(10.0**power)
        draw.line((x, _MARGIN + _ROW, x, bottom), fill="#e4e4e4")
        draw.text((x, bottom + 4), f"1e{power}", font=font, fill=_GREY, anchor="ma")
    for row, (step, first, last) in enumerate(pairs):
        y = _MARGIN + _ROW * (row + 1)
        draw.text((_MARGIN, y + 3), _row_title(inversion, step), font=font, fill=_INK)
        draw.rectangle((left, y + 4, place(first), y + 11), fill=_FIRST)
        draw.rectangle((left, y + 13, place(last), y + 20), fill=_BAR)
        draw.text((_WIDTH - _MARGIN, y + 5), f"{last:.1e}", font=font, fill=_INK, anchor="ra")
    return figure


def panels(original: Tensor, again: Tensor) -> tuple[Image.Image, Tensor]:
    """The auto-encoder's round trip beside the reconstruction, with their difference, and PSNR in dB [batch].

    Args:
        original: decoded latents that went in, [batch, height, width, 3] in [0, 1].
        again: the decoded reconstruction, likewise.
    """
    one, other = (pixels.detach().cpu().float().movedim(-1, 1).clamp(0, 1) for pixels in (original, again))
    decibels = metrics.psnr(other, one)
    difference = ((other - one).abs() * 8).clamp(0, 1)
    pictures = [images.to_pil(pixels[:1])[0] for pixels in (one, other, difference)]
    titles = ("auto-encoder alone", "reconstruction", "difference, 8 times")
    captions = ("", f"{decibels[0].item():.1f} dB", "")
    return comparison([Panel(*panel) for panel in zip(pictures, titles, captions, strict=True)], side=192), decibels


def stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures below one another on white."""
    width, height = max(picture.width for picture in pictures), sum(picture.height for picture in pictures)
    whole, top = Image.new("RGB", (width, height), _PAPER), 0
    for one in pictures:
        whole.paste(one, ((width - one.width) // 2, top))
        top += one.height
    return whole


def _ends(step: StepReport) -> tuple[float, float]:
    """Residuals of the first and the last pass, mean over the pictures."""
    first, last = (max(step.residuals[index].mean().item(), 1e-12) for index in (0, -1))
    return first, last


def _row_title(inversion: Inversion, step: StepReport) -> str:
    return f"{step.step}: sigma {inversion.table.sigma[step.step]:.3g}"


def _start_std(inversion: Inversion) -> float:
    alpha, sigma = inversion.table.alpha[0].item(), inversion.table.sigma[0].item()
    return ((inversion.trajectory.z_T - alpha * inversion.z_0) / sigma).std().item()


def _each(decibels: Tensor) -> str:
    return ", ".join(f"{value:.1f}" for value in decibels.tolist()) + " dB"


def _number(values: Tensor | None) -> str:
    return "     -" if values is None else f"{values.mean().item():6.3f}"
