"""What the few-step stages share: the student's four levels, states that it reaches itself, and its guided teacher.

Latents are (B, C, h, w) float32. The teacher and the student both predict noise:

    z = alpha x + sigma noise,        clean estimate x = (z - sigma noise) / alpha.
"""

import random
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from training.loop import DEVICE, fast_precision
from training.pictures import caption
from training.text_to_emoji import build_scheduler, token_ids

LEVELS = (999, 749, 499, 249)  # where a four-step sampler with trailing spacing stops
SIGNAL = build_scheduler().alphas_cumprod


@dataclass(frozen=True)
class Prompts:
    """Captions of rendered pictures, and what a frozen text encoder makes of them."""

    rows: list[dict[str, Any]]
    text: CLIPTextModel
    tokenizer: CLIPTokenizer

    def states(self, count: int, rng: random.Random) -> tuple[Tensor, Tensor]:
        """States of the empty caption, and of ``count`` captions by chance; one in ten names no style."""
        chosen = [self.rows[rng.randrange(len(self.rows))] for _ in range(count)]
        captions = [row["label"] if rng.random() < 0.1 else caption(row) for row in chosen]
        given = self.text(token_ids(self.tokenizer, captions).to(DEVICE)).last_hidden_state
        nothing = self.text(token_ids(self.tokenizer, [""]).to(DEVICE)).last_hidden_state.expand_as(given)
        return nothing, given


@dataclass(frozen=True)
class Reached:
    """Where a student got to from noise: latents at level number ``stop``, with the states of the empty caption and
    of the captions. ``generator`` goes on with the random numbers of this step.
    """

    z: Tensor
    stop: int
    states: tuple[Tensor, Tensor]
    generator: torch.Generator


def level(t: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma of timesteps (B,), each (B, 1, 1, 1)."""
    signal = SIGNAL[t.cpu()].to(t.device).view(-1, 1, 1, 1)
    return signal.sqrt(), (1 - signal).sqrt()


def noise_of(unet: nn.Module, z: Tensor, t: Tensor, states: Tensor) -> Tensor:
    """The predicted noise; ``t`` is one timestep, or one for each picture."""
    with fast_precision():
        return unet(z.to(memory_format=torch.channels_last), t.to(z.device).expand(len(z)), states).sample.float()


def guided(teacher: nn.Module, z: Tensor, t: Tensor, states: tuple[Tensor, Tensor], scale: float) -> Tensor:
    """The teacher's noise; ``states`` are those of the empty caption and of the captions."""
    both = noise_of(teacher, torch.cat([z, z]), t.expand(len(z)).repeat(2), torch.cat(states))
    without, given = both.chunk(2)
    return without + scale * (given - without)


def estimate(student: nn.Module, z: Tensor, stop: int, states: Tensor) -> tuple[Tensor, Tensor]:
    """The student's clean estimate and noise at level number ``stop``."""
    t = torch.tensor(LEVELS[stop])
    noise = noise_of(student, z, t, states)
    alpha, sigma = (part.item() for part in level(t))
    return (z - sigma * noise) / alpha, noise


def step_down(student: nn.Module, z: Tensor, stop: int, states: Tensor, ancestral: bool, fresh: Tensor) -> Tensor:
    """From one level to the next: LCM makes all noise anew, ancestral Euler keeps a part of the predicted one."""
    clean, noise = estimate(student, z, stop, states)
    (_, high), (alpha, low) = (_relative(i) for i in (stop, stop + 1))
    new = low * (1 - (low / high) ** 2) ** 0.5 if ancestral else low
    kept = (low**2 - new**2) ** 0.5
    return alpha * (clean + kept * noise + new * fresh)


def _relative(stop: int) -> tuple[float, float]:
    """alpha and sigma / alpha of level number ``stop``."""
    alpha, sigma = (part.item() for part in level(torch.tensor(LEVELS[stop])))
    return alpha, sigma / alpha


@torch.no_grad()
def reached(student: nn.Module, prompts: Prompts, step: int, shape: tuple[int, int, int, int]) -> Reached:
    """Latents of this shape that the student reaches from noise, by ancestral Euler or LCM; all by chance of the step.

    Every level is as likely to be the one it stops at; at the first it is noise alone.
    """
    generator, rng = torch.Generator().manual_seed(step), random.Random(step)
    states = prompts.states(shape[0], rng)
    stop, ancestral = rng.randrange(len(LEVELS)), rng.random() < 0.5
    z = level(torch.tensor(LEVELS[0]))[1].item() * torch.randn(shape, generator=generator).to(DEVICE)
    for i in range(stop):
        z = step_down(student, z, i, states[1], ancestral, torch.randn(shape, generator=generator).to(DEVICE))
    return Reached(z, stop, states, generator)
