"""A denoiser in closed form that takes the place of a network in tests and documentation.

If clean latents follow a mixture of J Gaussians with equal shares, means mu_j and standard deviation s, then after the
forward process z = alpha z_0 + sigma eps the best prediction of the clean latent is known exactly:

    v      = alpha^2 s^2 + sigma^2                                            (variance of z within a component)
    r_j    = softmax_j( -||z - alpha mu_j||^2 / (2 v) )                       (probability that z is of component j)
    E[z_0] = sum_j r_j (mu_j + alpha s^2 / v (z - alpha mu_j)),       E[eps] = (z - alpha E[z_0]) / sigma.

Each prompt is a mixture of its own.  With one component the prediction is affine in z, so a whole inversion can be
solved by hand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from renoise.core.query import Query
from renoise.core.table import StepTable

__all__ = ["Toy"]


@dataclass(frozen=True, eq=False)
class Toy:
    """Answers queries like a network that was trained perfectly on Gaussian mixtures.

    Attributes:
        table: the sampler's rows, whose alpha and sigma give the noise level.
        means: mu [prompt, component, ...], the last dimensions shaped as a latent.
        prompts: the prompt of each image of the batch, as an index of `means`.
        spread: s, 0 or more.
        prediction: what the network predicts: "epsilon" the noise, "v" (alpha eps - sigma z_0) / hypot(alpha, sigma),
            "sample" the clean latent z_0, "flow" the velocity eps - z_0.
    """

    table: StepTable
    means: Tensor
    prompts: tuple[int, ...]
    spread: float = 0.5
    prediction: Literal["epsilon", "v", "sample", "flow"] = "epsilon"

    def __call__(self, query: Query) -> Tensor:
        """Prediction at the latents of a query.  Every block uses the prompts in their order, whatever its scene.

        Raises:
            ValueError: the query has not one latent per prompt in each block.
        """
        if query.z.shape[0] != len(query.scenes) * len(self.prompts):
            raise ValueError(
                f"{query.z.shape[0]} latents in {len(query.scenes)} blocks for {len(self.prompts)} prompts: pass one "
                "prompt per image"
            )
        z = query.z
        alpha, sigma = self.table.alpha[query.step].item(), self.table.sigma[query.step].item()
        mu = self.means.to(z)[list(self.prompts * len(query.scenes))]
        variance = alpha**2 * self.spread**2 + sigma**2
        offset = z[:, None] - alpha * mu
        shares = torch.softmax(-offset.flatten(2).square().sum(2) / (2 * variance), dim=1)
        guesses = mu + alpha * self.spread**2 / variance * offset
        z_0 = (shares.view(*shares.shape, *[1] * (z.ndim - 1)) * guesses).sum(1)
        eps = (z - alpha * z_0) / sigma
        match self.prediction:
            case "epsilon":
                return eps
            case "v":
                return (alpha * eps - sigma * z_0) / math.hypot(alpha, sigma)
            case "sample":
                return z_0
            case "flow":
                return eps - z_0
