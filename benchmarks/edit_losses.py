"""Time of one call of the edit-enhancement losses on one thread: closed-form gradients against autograd.

    python -m benchmarks.edit_losses

Prints CSV: milliseconds of processor time per image (median over the runs) of `renoise.core.edit_losses.enhance` and of
the same computation with autograd.  Both use the published settings (4 gradient steps, 5 rolls, both losses) on float32
latents of 4x64x64, for one image and for a batch of 8.  If their results differ, it ends with an error instead.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, unfold

from renoise.core.edit_losses import enhance
from renoise.core.rolls import draw_rolls

STEPS, ROLLS, LAMBDA_PAIR, LAMBDA_KL = 4, 5, 20.0, 0.065


def plain_pair(x: Tensor, rolls: Tensor) -> Tensor:
    """L_pair of one image [1, channel, height, width] with rolls [channel, scale]."""
    total = x.new_zeros(())
    for channel, by_scale in enumerate(rolls.tolist()):
        scaled = x[:, channel : channel + 1]
        for roll in by_scale:
            total = total + (scaled * scaled.roll(roll, 2)).mean() ** 2 + (scaled * scaled.roll(roll, 3)).mean() ** 2
            scaled = avg_pool2d(scaled, 2)
    return total


def plain_kl(x: Tensor, target: Tensor) -> Tensor:
    """L_patch-KL of one image."""
    here, there = (unfold(each.transpose(0, 1), 4, stride=4) for each in (x, target))
    variance, aim = here.var(1) + 1e-6, there.var(1) + 1e-6
    squares = (here.mean(1) - there.mean(1)) ** 2
    return ((aim / variance).log() + (variance - 1e-6 + squares) / aim - 1).sum()


def plain_enhance(prediction: Tensor, target: Tensor, rolls: Tensor) -> Tensor:
    """The same gradient steps as `enhance`, image by image, with autograd."""

    def descend(x: Tensor, rate: float, loss: Callable[[Tensor], Tensor]) -> Tensor:
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(x), x)
        return (x - rate * gradient).detach()

    images = []
    for image in range(len(prediction)):
        x, aim = prediction[image : image + 1], target[image : image + 1]
        for by_roll in rolls[image]:
            x = descend(x, LAMBDA_KL, lambda x, aim=aim: plain_kl(x, aim))  # type: ignore[misc]
            for roll in by_roll:
                x = descend(x, LAMBDA_PAIR / ROLLS, lambda x, roll=roll: plain_pair(x, roll))  # type: ignore[misc]
        images.append(x)
    return torch.cat(images)


def milliseconds(calls: Sequence[Callable[[], Tensor]], runs: int) -> list[float]:
    """Median processor time of each call.  Calls take turns, so other work on the machine affects all of them alike."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(runs):
        for call, taken in zip(calls, times, strict=True):
            start = time.process_time()
            call()
            taken.append(1e3 * (time.process_time() - start))
    return [statistics.median(taken) for taken in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=31, help="number of timed calls of each kind")
    runs = parser.parse_args().runs
    torch.set_num_threads(1)
    names: list[tuple[str, int]] = []
    calls: list[Callable[[], Tensor]] = []
    for batch in (1, 8):
        generators = [torch.Generator().manual_seed(seed) for seed in range(batch)]
        x, target = (torch.stack([torch.randn(4, 64, 64, generator=each) for each in generators]) for _ in range(2))
        rolls = draw_rolls(x.shape, steps=STEPS, rolls=ROLLS, generators=generators)
        closed = partial(enhance, x, target, lambda_pair=LAMBDA_PAIR, lambda_kl=LAMBDA_KL, steps=STEPS, rolls=rolls)
        plain = partial(plain_enhance, x, target, rolls)
        difference = ((closed() - plain()).norm() / x.norm()).item()
        if difference > 1e-5:
            sys.exit(f"closed form and autograd differ by {difference:.1e} (relative L2), more than 1e-5")
        names += [("closed form", batch), ("autograd", batch)]
        calls += [closed, plain]
    print("method,batch,latents,ms_per_image")
    for (name, batch), taken in zip(names, milliseconds(calls, runs), strict=True):
        print(f"{name},{batch},4x64x64,{taken / batch:.2f}")


if __name__ == "__main__":
    main()
