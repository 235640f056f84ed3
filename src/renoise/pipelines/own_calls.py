"""Calls of the user's own that replay an inversion: keywords that could not mean there what they mean elsewhere.

The loop of such a call has a round more than there are steps, since the first is discarded, and its steps and its
latents are those of the inversion.  So what counts rounds would act a step early, and what asks for other steps or
other latents would not be heard.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from renoise.core.checks import shown
from renoise.pipelines.keywords import COUNTING

__all__ = ["checked_calls"]

_HEARD = {"callback_on_step_end"}  # counts rounds, and may: it changes nothing by that
_NOT_HEARD = {
    "latents": "it starts from those of the inversion",
    "denoising_end": "it goes to the end of the steps of the inversion",
    "num_images_per_prompt": "it makes each picture of the inversion once",
}
# What the yielded keywords decide; the pipeline's own default counts where they leave it out.
_FIXED = ("height", "width", "eta", "mu", "original_inference_steps")


_yielded: WeakKeyDictionary[Any, Mapping[str, Any]] = WeakKeyDictionary()  # for every pipeline that replays
_own: dict[Any, Any] = {}  # the `__call__` of each class that replays, None for an inherited one
_classes = threading.Lock()


@contextmanager
def checked_calls(pipe: Any, yielded: Mapping[str, Any]) -> Iterator[None]:
    """Has calls of a pipeline inside refuse such keywords, by ValueError.

    The class of the pipeline has another `__call__` meanwhile, which does nothing for other pipelines.

    Args:
        pipe: the pipeline.
        yielded: the keywords that the user was handed for the call.
    """
    kind = type(pipe)
    with _classes:
        if not _replaying(kind):
            _own[kind] = kind.__dict__.get("__call__")
            kind.__call__ = _checked(kind.__call__)
        _yielded[pipe] = yielded
    try:
        yield
    finally:
        with _classes:
            del _yielded[pipe]
            if not _replaying(kind):
                if (stock := _own.pop(kind)) is None:  # inherited
                    del kind.__call__
                else:
                    kind.__call__ = stock


def _replaying(kind: type) -> bool:
    return any(type(pipe) is kind for pipe in _yielded)


def _checked(stock: Any) -> Any:
    signature = inspect.signature(stock)
    usual = {name: parameter.default for name, parameter in signature.parameters.items()}

    @functools.wraps(stock)
    def call(self: Any, *arguments: Any, **keywords: Any) -> Any:
        yielded = _yielded.get(self)
        if yielded is not None:
            for name, value in signature.bind(self, *arguments, **keywords).arguments.items():
                _check(name, value, usual.get(name), yielded)
        return stock(self, *arguments, **keywords)

    return call


def _check(name: str, value: Any, default: Any, yielded: Mapping[str, Any]) -> None:
    said = f"{name}={shown(value)} while an inversion is replayed"
    if name in COUNTING.keys() - _HEARD and not COUNTING[name][0](value):
        raise ValueError(
            f"{said}: it counts the rounds of the pipeline's loop, of which the first is discarded here, so it would "
            f"act a step early; {COUNTING[name][1]}"
        )
    if name in _NOT_HEARD and value is not None and not _equal(value, default):
        raise ValueError(f"{said}: {_NOT_HEARD[name]}, so leave it out")
    if name in _FIXED and value is not None and not _equal(value, yielded.get(name, default)):
        raise ValueError(
            f"{said} of {name}={shown(yielded.get(name, default))}: call the pipeline with the keywords that "
            "replaying() yields, and leave it out"
        )


def _equal(a: Any, b: Any) -> bool:
    try:
        return bool(a == b)
    except (RuntimeError, TypeError, ValueError):  # arrays and tensors of several numbers
        return False
