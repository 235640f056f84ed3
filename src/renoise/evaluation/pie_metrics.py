"""The metrics of PIE-Bench (Ju et al., ICLR 2024), with the conventions of its published numbers.

All compare pictures of 512 x 512 pixels; pictures of other sizes are resized to that first (Lanczos).

* **Background** (PSNR in dB, SSIM, MSE, LPIPS): both pictures are multiplied by 1 - mask, so that what is to be edited
  is black in both, and compared as whole pictures.  The mean goes over all pixels, the black ones too, so a small
  background looks better than it is: this is how the field computes it.  Where the mask covers everything there is
  nothing to compare, and the picture does not count.  SSIM is that of Wang et al. (2004) with a Gaussian window of 11
  pixels and data range 1, MSE is of pixels in [0, 1], LPIPS has SqueezeNet features.
* **CLIP similarity** (0 to 100) of the source with its prompt, of the edited picture with the new prompt, and of the
  edited region, which is the edited picture times the mask, on black, with the whole new prompt.
* **Structure distance** between source and edited picture, over the whole picture, as published and corrected (see
  `renoise.evaluation.structure`).
"""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor

from renoise.evaluation.networks import Networks
from renoise.evaluation.run_lengths import Mask
from renoise.images import to_tensor
from renoise.judge import Judge

__all__ = ["BACKGROUND", "CLIP", "COLUMNS", "JUDGE", "STRUCTURE", "background", "judged", "scores"]

BACKGROUND = ("psnr_background", "ssim_background", "mse_background", "lpips_background")
CLIP = ("clip_source", "clip_whole", "clip_edited")
STRUCTURE = ("structure_published", "structure_corrected")
JUDGE = ("judge_source", "judge_whole", "judge_hit")
COLUMNS = (*STRUCTURE, *BACKGROUND, *CLIP, *JUDGE)

Found = dict[str, float]


def scores(
    source: Image.Image, edited: Image.Image, mask: Mask, source_prompt: str, target_prompt: str, networks: Networks
) -> Found:
    """Every metric of one picture for which there are networks, by column.

    Background metrics are missing where the mask covers the whole picture.

    Args:
        source: the picture before the edit, RGB.
        edited: the picture after it, RGB.
        mask: True where the picture is to be edited, [height, width]; this is the size at which pictures are compared.
        source_prompt: what the picture shows.
        target_prompt: what it shall show.
        networks: those that are to be had.
    """
    before, after = _at(source, mask), _at(edited, mask)
    region = torch.from_numpy(mask).float()
    found = background(before, after, region, networks)
    if networks.clip is not None:
        shown = torch.cat([before, after, after * region])
        values = networks.clip(shown, [source_prompt, target_prompt, target_prompt])
        found |= dict(zip(CLIP, values.tolist(), strict=True))
    if networks.structure is not None:
        device = next(networks.structure.parameters()).device
        for name, published in zip(STRUCTURE, (True, False), strict=True):
            found[name] = networks.structure(before.to(device), after.to(device), published=published).item()
    return found


def background(before: Tensor, after: Tensor, region: Tensor, networks: Networks) -> Found:
    """PSNR, SSIM, MSE and LPIPS of what is not to be edited; nothing if everything is.

    Args:
        before: the picture before the edit, [1, 3, height, width] in [0, 1].
        after: the picture after it, likewise.
        region: what is to be edited, [height, width], 1 there and 0 elsewhere.
        networks: for LPIPS.
    """
    from torchmetrics.functional import mean_squared_error
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

    if bool((region == 1).all()):
        return {}
    a, b = before * (1 - region), after * (1 - region)
    values: tuple[Any, ...] = (
        peak_signal_noise_ratio(b, a, data_range=1.0),
        structural_similarity_index_measure(b, a, data_range=1.0),
        mean_squared_error(b, a),
    )
    found = {name: float(value) for name, value in zip(BACKGROUND, values, strict=False)}
    if networks.lpips is not None:
        device = next(networks.lpips.parameters()).device
        found[BACKGROUND[-1]] = networks.lpips((a * 2 - 1).to(device), (b * 2 - 1).to(device)).item()
    return found


def judged(source: Image.Image, edited: Image.Image, source_prompt: str, target_prompt: str, judge: Judge) -> Found:
    """What the judge of the embedded models says, which stands in for CLIP where pictures are emoji.

    `judge_source` and `judge_whole` are 100 times the cosine of source and edited picture with their prompts;
    `judge_hit` is 1 if the edited picture fits the new prompt better than the old one.
    """
    likely = judge.scores(to_tensor([source]), [source_prompt])[0]
    after = judge.scores(to_tensor([edited]), [source_prompt, target_prompt])[0]
    scale = 100 / judge.towers.log_scale.detach().exp().item()
    values = (float(likely[0]) * scale, float(after[1]) * scale, float(after[1] > after[0]))
    return dict(zip(JUDGE, values, strict=True))


def _at(image: Image.Image, mask: Mask) -> Tensor:
    """A picture [1, 3, height, width] in [0, 1] at the size of a mask."""
    height, width = mask.shape
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    return to_tensor([image])
