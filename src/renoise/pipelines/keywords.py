"""The keywords of a pipeline's own call that say what to show, for one scene or for several at once."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from renoise.core.checks import number, scalar
from renoise.pipelines.embeddings import check_embeddings
from renoise.pipelines.families import EMBEDDINGS, TEXTS, Family
from renoise.record import Scene
from renoise.texts import one_each

__all__ = ["COUNTING", "Call", "call_keywords", "joined_keywords", "prompt_count", "rows_of", "same"]

# What `invert` and `edit` decide themselves; handed over in pipe_kwargs, these keywords would contradict them.
_DECIDED = {
    "prompt": "pass it as prompt=",
    "negative_prompt": "pass it as negative_prompt=",
    "height": "pass size=(height, width)",
    "width": "pass size=(height, width)",
    "num_inference_steps": "pass it as num_inference_steps=",
    "guidance_scale": "pass it as guidance_scale= or inversion_guidance_scale=",
    "num_images_per_prompt": "pass the picture as many times as wanted",
    "generator": "pass it as generator=",
    "latents": "the inversion makes them",
    "output_type": "pictures and latents come back as attributes and by methods",
    "return_dict": "the result is no pipeline output",
    "denoising_end": "pass strength= for a part of the schedule",
    "strength": "pass it to invert, as strength=; an edit starts where its inversion ended",
}
_WEAKER = "leave it out, or weaken the ControlNet by controlnet_conditioning_scale"
COUNTING: dict[str, tuple[Callable[[Any], bool], str]] = {
    "control_guidance_start": (lambda value: _each(value, 0.0), _WEAKER),
    "control_guidance_end": (lambda value: _each(value, 1.0), _WEAKER),
    "skip_guidance_layers": (lambda value: value is None, "leave it out"),
    "cfg_truncation": (lambda value: value is None or _each(value, 1.0), "leave it out"),
    "cfg_trunc_ratio": (lambda value: scalar(value) == 1, "leave it out"),
    "adapter_conditioning_factor": (
        lambda value: scalar(value) == 1,
        "leave it out, or weaken the adapter by adapter_conditioning_scale",
    ),
    "callback": (lambda value: value is None, "pass progress=renoise.Progress(...) to follow the passes"),
    "callback_on_step_end": (
        lambda value: value is None,
        "pass progress=renoise.Progress(...) to follow the passes, or call the pipeline yourself inside `with "
        "inv.replaying()`",
    ),
}
"""Keywords that count the rounds of the pipeline's loop: whether a value has no effect, and what to do instead.

A round of the loop is a pass here, and not a step, so any other value would mean something else in each inversion."""
# Keywords that are read here, with what a refusal says.
_NUMBERS = {
    "eta": ": pass the share of fresh noise, a number from 0 (none) to 1",
    "true_cfg_scale": ": pass a number, 1.0 for no guidance",
}
# Keywords that may hold a value for each picture.
_PER_PICTURE = EMBEDDINGS | TEXTS | {"prompt", "negative_prompt", "image", "control_image", "mask_image"}


@dataclass(frozen=True, eq=False)
class Call:
    """A call of a pipeline that shows one scene.

    Attributes:
        keywords: all that the call takes.
        guidance_scale: 1 for none, or more.
        batch: how many pictures it shows.
    """

    keywords: Mapping[str, Any]
    guidance_scale: float
    batch: int


def call_keywords(pipe: Any, family: Family, scene: Scene) -> dict[str, Any]:
    """The part of a call of the pipeline that says what to show; a negative prompt counts under guidance only.

    Args:
        pipe: the pipeline.
        family: its row.
        scene: what to show.

    Raises:
        TypeError: a keyword that the pipeline does not take.
        ValueError: one that is decided elsewhere or counts the rounds of the pipeline's loop, a missing prompt,
            embeddings that do not fit the network, or a negative prompt for a pipeline that takes none.
    """
    kind, extra, prompts = type(pipe).__name__, scene.pipe_kwargs, scene.prompts
    accepted, refused = inspect.signature(pipe.__call__).parameters, family.refused(pipe)
    for keyword in extra:
        if keyword in refused:
            raise ValueError(f"{keyword} in pipe_kwargs: {refused[keyword]}")
        if keyword in _DECIDED:
            raise ValueError(f"{keyword} in pipe_kwargs: {_DECIDED[keyword]}")
        if keyword not in accepted:
            raise TypeError(f"{kind} takes no {keyword!r}, handed over in pipe_kwargs; it takes {', '.join(accepted)}")
        if keyword in _NUMBERS and extra[keyword] is not None:
            number(f"{keyword} in pipe_kwargs", extra[keyword], _NUMBERS[keyword], lambda value: 0 <= value < math.inf)
        if keyword in COUNTING:
            harmless, instead = COUNTING[keyword]
            if not harmless(extra[keyword]):
                raise ValueError(
                    f"{keyword} in pipe_kwargs counts the rounds of the pipeline's loop, and a step of an inversion "
                    f"takes several of them: {instead}"
                )
    if prompts is None and extra.get("prompt_embeds") is None:
        raise ValueError("no prompt: pass prompt=, or its embeddings by pipe_kwargs={'prompt_embeds': ...}")
    if prompts is not None and extra.get("prompt_embeds") is not None:
        raise ValueError(f"a prompt, {prompts[0]!r}, and prompt_embeds in pipe_kwargs: pass one of them")
    guidance = family.guidance(pipe, scene.guidance_scale)
    if "true_cfg_scale" in guidance and "true_cfg_scale" in extra:
        raise ValueError("true_cfg_scale in pipe_kwargs: pass it as guidance_scale= or inversion_guidance_scale=")
    lacking = [keyword for keyword in family.needs if extra.get(keyword) is None]
    if lacking:
        raise ValueError(f"{kind} needs {' and '.join(lacking)}: pass pipe_kwargs={{{lacking[0]!r}: ...}}")
    keywords: dict[str, Any] = {**guidance, **family.keywords}
    if prompts is not None:
        keywords["prompt"] = list(prompts)
    # a number that counts rounds and changes nothing would do so only for as many rounds as there are steps
    keywords |= {
        keyword: value for keyword, value in extra.items() if not (keyword in COUNTING and keyword in keywords)
    }
    keywords |= _negative(pipe, family, scene, accepted, keywords)
    count = prompt_count(keywords)
    if family.one_picture and count > 1:
        raise ValueError(f"{kind} makes one picture at a time, and this is a batch of {count}: invert them one by one")
    check_embeddings(pipe, family, keywords, count)
    return keywords | {
        keyword: list(one_each(keywords[keyword], count, keyword))
        for keyword in TEXTS & keywords.keys()
        if keywords[keyword] is not None
    }


def prompt_count(keywords: Mapping[str, Any]) -> int:
    """How many prompts a call has, by its texts or their embeddings."""
    prompts = keywords.get("prompt") or keywords["prompt_embeds"]
    if not isinstance(prompts, (list, tuple, Tensor)):
        found = type(prompts).__name__
        raise TypeError(f"prompt_embeds holds no floating-point tensors ({found}): pass what encode_prompt returns")
    return len(prompts)


def _negative(
    pipe: Any, family: Family, scene: Scene, accepted: Mapping[str, Any], keywords: Mapping[str, Any]
) -> dict[str, Any]:
    """The negative prompt of a call, where it has one."""
    guided = scene.guidance_scale > 1
    if "true_cfg_scale" in accepted:  # guidance_scale is an embedding, beside which there may be guidance proper
        guided = keywords.get("true_cfg_scale", 1.0) > 1
    if scene.negative_prompts is not None and (guided or scene.guidance_scale > 1):
        text, kind = next(filter(None, scene.negative_prompts), ""), type(pipe).__name__
        embedded = getattr(getattr(pipe, "unet", None), "config", {}).get("time_cond_proj_dim") is not None
        if not guided or "negative_prompt" not in accepted or (embedded and text):
            remedy = ", or pass pipe_kwargs={'true_cfg_scale': 2.0}" if "true_cfg_scale" in accepted else ""
            raise ValueError(f"{kind} takes no negative prompt here: leave out {text!r}{remedy}")
        if "negative_prompt_embeds" in scene.pipe_kwargs:
            raise ValueError(f"a negative prompt, {text!r}, and negative_prompt_embeds: pass one of them")
        return {"negative_prompt": list(scene.negative_prompts)}
    if "negative_prompt_embeds" in scene.pipe_kwargs and "negative_prompt" in accepted:
        return {"negative_prompt": None}  # some pipelines have a text as their default, and refuse both
    if family.negative_needed and guided:
        return {"negative_prompt": [" "] * prompt_count(keywords)}
    return {}


def _each(value: Any, expected: float) -> bool:
    values = value if isinstance(value, (list, tuple)) else [value]
    return all(isinstance(found := scalar(item), (int, float)) and found == expected for item in values)


def joined_keywords(calls: Sequence[Call], together: Sequence[str] = ()) -> dict[str, Any]:
    """The keywords of one call that shows the scenes of several calls, one after the other.

    Prompts, embeddings and control images are put one after the other; everything else has to be the same.

    Args:
        calls: one for each scene, of the same number of pictures.
        together: keywords whose lists are about all pictures of a call.

    Raises:
        ValueError: a keyword that differs between scenes and that one call has for all of its pictures.
    """
    parts, batch = [call.keywords for call in calls], calls[0].batch
    if len(parts) == 1:
        return dict(parts[0])
    joined: dict[str, Any] = {}
    for keyword in dict.fromkeys(key for part in parts for key in part):
        values = [part.get(keyword) for part in parts]
        listed = keyword in together and not all(isinstance(value, Tensor) for value in values)
        if keyword in _PER_PICTURE and not listed and not all(value is None for value in values):
            joined[keyword] = _one_after_the_other(keyword, values, batch)
        elif all(value is values[0] or same(value, values[0]) for value in values):
            joined[keyword] = values[0]
        else:
            raise ValueError(
                f"{keyword} differs between prompts that are asked about together, and the pipeline's own loop has one "
                "value for all of them: make it the same for both, or use driver='direct'"
            )
    return joined


def _one_after_the_other(keyword: str, values: Sequence[Any], batch: int) -> Any:
    import torch

    if any(value is None for value in values):
        raise ValueError(f"{keyword} is given for one of the prompts that are asked about together: give it for all")
    if all(isinstance(value, Tensor) for value in values):
        rows = [value.expand(batch, *value.shape[1:]) if len(value) == 1 else value for value in values]
        if len({value.shape for value in rows}) > 1:
            raise ValueError(f"{keyword} has the shapes {[list(value.shape) for value in values]}: make them alike")
        return torch.cat(rows)
    return [
        item
        for value in values
        for item in (value if isinstance(value, (list, tuple)) and len(value) == batch else [value] * batch)
    ]


def rows_of(pipe_kwargs: Mapping[str, Any], number: int, count: int) -> dict[str, Any]:
    """The keywords for one of `count` pictures: of those that hold a value for each picture, that of this one."""

    def row(keyword: str, value: Any) -> Any:
        each = isinstance(value, (list, tuple, Tensor)) and len(value) == count
        return value[number : number + 1] if keyword in _PER_PICTURE and each else value

    return {keyword: row(keyword, value) for keyword, value in pipe_kwargs.items()}


def same(a: Any, b: Any) -> bool:
    """Whether two values of a keyword or an argument are equal, tensors included."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape and bool((a == b).all())
    if isinstance(a, (list, tuple)) and type(a) is type(b):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and bool(a == b)
