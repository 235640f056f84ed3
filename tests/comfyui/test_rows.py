"""Rows of ComfyUI's samplers are measured, not typed; what is not a row is refused."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from comfyui.rows import measure
from renoise import NotInvertible
from tests.helpers import comfy_stub as stub

NOISE, FLOW = torch.tensor([14.6, 4.0, 1.5, 0.7, 0.0]), torch.tensor([1.0, 0.9, 0.75, 0.5, 0.0])


@pytest.mark.parametrize("sigmas", [NOISE, torch.tensor([4518.76, 5.4, 0.7, 0.0])], ids=["usual", "zero terminal SNR"])
def test_rows_of_noise_levels_that_grow_without_bound(sigmas: Tensor) -> None:
    s, t = sigmas[:-1].double(), sigmas[1:].double()
    levels = stub.Levels(sigma_max=float(sigmas[0]))
    table = measure(stub.ksampler("euler"), levels, sigmas)
    torch.testing.assert_close(table.a, torch.ones_like(s))
    torch.testing.assert_close(table.b, t - s)
    assert not table.stochastic
    torch.testing.assert_close(table.sigma, s)
    torch.testing.assert_close(table.alpha, torch.ones_like(s))
    table = measure(stub.ksampler("lcm"), levels, sigmas)
    torch.testing.assert_close(table.b, -s)
    torch.testing.assert_close(table.n, t)
    table = measure(stub.ksampler("euler_ancestral"), levels, sigmas)
    down = t**2 / s
    torch.testing.assert_close(table.b, down - s, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(table.n, (t**2 - down**2).sqrt(), rtol=1e-5, atol=1e-5)


def test_rows_of_flow_matching_begin_at_pure_noise() -> None:
    s, t = FLOW[:-1].double(), FLOW[1:].double()
    levels = stub.Levels("flow")
    table = measure(stub.ksampler("euler"), levels, FLOW)
    torch.testing.assert_close(table.b, t - s)
    torch.testing.assert_close(table.alpha, 1 - s)
    assert table.alpha[0] == 0
    table = measure(stub.ksampler("lcm"), levels, FLOW)
    torch.testing.assert_close(table.a, 1 - t)
    torch.testing.assert_close(table.b, -(1 - t) * s)
    torch.testing.assert_close(table.n, t)
    table = measure(stub.ksampler("euler_ancestral"), levels, FLOW)
    down = t * t / s
    keep = (1 - t) / (1 - down)
    torch.testing.assert_close(table.a, keep, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(table.b, keep * (down - s), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(table.n, (t**2 - (keep * down) ** 2).clamp(min=0).sqrt(), rtol=1e-4, atol=1e-4)


def test_options_of_a_sampler_count() -> None:
    calm = measure(stub.ksampler("euler_ancestral", {"eta": 0.0}), stub.Levels("flow"), FLOW)
    plain = measure(stub.ksampler("euler"), stub.Levels("flow"), FLOW)
    torch.testing.assert_close(calm.a, plain.a)
    torch.testing.assert_close(calm.b, plain.b)


def steps(x: Tensor, sigmas: Tensor, step: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    for s, t in itertools.pairwise(sigmas):
        x = step(x, s, t)
    return x


def heun(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor, extra_args: Any, **_: Any) -> Tensor:
    def step(x: Tensor, s: Tensor, t: Tensor) -> Tensor:
        d = (x - model(x, s * x.new_ones(len(x)), **extra_args)) / s
        if t == 0:
            return x - s * d
        ahead = x + (t - s) * d
        return x + (t - s) * (d + (ahead - model(ahead, t * x.new_ones(len(x)), **extra_args)) / t) / 2

    return steps(x, sigmas, step)


def two_step(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor, extra_args: Any, **_: Any) -> Tensor:
    before: list[Tensor] = []

    def step(x: Tensor, s: Tensor, t: Tensor) -> Tensor:
        clean = model(x, s * x.new_ones(len(x)), **extra_args)
        used = clean if not before else 1.5 * clean - 0.5 * before[-1]
        before.append(clean)
        return used + t / s * (x - used)

    return steps(x, sigmas, step)


def clipping(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor, extra_args: Any, **_: Any) -> Tensor:
    def step(x: Tensor, s: Tensor, t: Tensor) -> Tensor:
        clean = model(x, s * x.new_ones(len(x)), **extra_args).clamp(-5, 5)
        return clean + t / s * (x - clean)

    return steps(x, sigmas, step)


def before_guidance(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor, extra_args: Any, **_: Any) -> Tensor:
    options = {"sampler_post_cfg_function": [lambda args: args["denoised"]]}
    return steps(x, sigmas, lambda x, s, t: model(x, s * x.new_ones(len(x)), model_options=options, seed=0))


def global_noise(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor, extra_args: Any, **_: Any) -> Tensor:
    return steps(
        x, sigmas, lambda x, s, t: model(x, s * x.new_ones(len(x)), **extra_args) + 9 * t * torch.randn_like(x)
    )


def other_levels(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor, extra_args: Any, **_: Any) -> Tensor:
    return steps(x, sigmas, lambda x, s, t: model(x, (s + t) / 2 * x.new_ones(len(x)), **extra_args))


def two_noises(
    model: Callable[..., Tensor], x: Tensor, sigmas: Tensor, extra_args: Any, noise_sampler: Any = None, **_: Any
) -> Tensor:
    return steps(
        x,
        sigmas,
        lambda x, s, t: (
            model(x, s * x.new_ones(len(x)), **extra_args) + t * (noise_sampler(s, t) + noise_sampler(s, t))
        ),
    )


def broken(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor, extra_args: Any, **_: Any) -> Tensor:
    raise RuntimeError("no")


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (heun, "more than once"),
        (two_step, "history"),
        (clipping, "clips"),
        (before_guidance, "before guidance"),
        (global_noise, "a z \\+ b m \\+ n eps"),
        (other_levels, "other noise levels"),
        (two_noises, "noise more than once"),
        (broken, "fails on test latents"),
    ],
)
@pytest.mark.parametrize("sigmas", [NOISE, torch.tensor([4518.76, 5.4, 0.7, 0.0])], ids=["usual", "zero terminal SNR"])
def test_what_is_no_row_is_refused_with_advice(function: Any, reason: str, sigmas: Tensor) -> None:
    with pytest.raises(NotInvertible, match=f"{reason}.*Use euler instead"):
        measure(stub.KSAMPLER(function), stub.Levels(), sigmas, "it")


def test_a_sampler_that_is_no_function_is_refused() -> None:
    with pytest.raises(NotInvertible, match="hides its steps"):
        measure(stub.Sampler(), stub.Levels(), NOISE)


@pytest.mark.parametrize(
    ("sigmas", "reason"),
    [
        ([], "no step"),
        ([1.0], "no step"),
        ([0.0, 1.0], "do not fall"),
        ([2.0, 1.0], "above 0"),
        ([2.0, 2.0, 0.0], "do not fall"),
        ([float("inf"), 1.0, 0.0], "not finite"),
    ],
)
def test_sigmas_that_are_no_schedule_are_refused(sigmas: list[float], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        measure(stub.ksampler("euler"), stub.Levels(), torch.tensor(sigmas))
