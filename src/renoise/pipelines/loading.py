"""Load a diffusers pipeline by name, in a precision, with a scheduler of one's choice."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from renoise.core.checks import shown
from renoise.pipelines.names import check_scheduler_name, unknown_scheduler

__all__ = [
    "DTYPES",
    "complete",
    "half_precision",
    "load",
    "load_embedded",
    "load_lora",
    "network_dtype",
    "quieten",
    "scheduler_class",
]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Precisions of networks by name."""

_LOADING = threading.RLock()


def network_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """A floating dtype from its name.

    Raises:
        ValueError: not one of float32, bfloat16 and float16.
    """
    found = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or found not in DTYPES.values():
        raise ValueError(f"dtype={shown(dtype)} is not a network precision; choose one of {', '.join(DTYPES)}")
    return found


def scheduler_class(name: str) -> Any:
    """A scheduler's class from its name.

    Raises:
        ValueError: diffusers has no such scheduler.
    """
    check_scheduler_name(name)
    import diffusers

    kind = getattr(diffusers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)):
        raise unknown_scheduler(name)
    return kind


def half_precision(name: str) -> str:
    """The half precision that suits a pipeline on a GPU: float16 where there are files in it, otherwise bfloat16.

    Args:
        name: the folder of a pipeline, or its name on the hub.
    """
    if Path(name).is_dir():
        files = [str(path) for path in Path(name).rglob("*.fp16.safetensors")]
    else:
        from huggingface_hub import list_repo_files
        from huggingface_hub.errors import HfHubHTTPError

        try:
            files = [file for file in list_repo_files(name) if file.endswith(".fp16.safetensors")]
        except (OSError, HfHubHTTPError):  # no network: files that are in the cache will do
            files = []
    return "float16" if files else "bfloat16"


def load(name: str, dtype: torch.dtype) -> Any:
    """A pipeline from a folder, or from the hub as owner/name; float16 files are taken for float16, where there are.

    Raises:
        OSError: no such pipeline on the hub.
        ValueError: a folder that holds no whole pipeline.
    """
    import diffusers

    _check_index(Path(name))
    variant = "fp16" if dtype == torch.float16 and half_precision(name) == "float16" else None
    try:
        with complete():
            return diffusers.DiffusionPipeline.from_pretrained(name, dtype=dtype, variant=variant)
    except (AttributeError, KeyError, TypeError, ImportError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{name!r} cannot be loaded as a diffusers pipeline ({reason})") from error


def _check_index(folder: Path) -> None:
    """Refuses, by ValueError, a folder whose model_index.json names no pipeline of diffusers."""
    import diffusers

    file = folder / "model_index.json"
    if not file.is_file():
        return
    try:
        index = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is not JSON ({error})") from error
    named = index.get("_class_name") if isinstance(index, dict) else None
    if not isinstance(named, str) or not isinstance(getattr(diffusers, named, None), type):
        raise ValueError(f"{file} names no pipeline of diffusers: its _class_name is {named!r}")


def load_embedded(folder: Path, parts: Mapping[str, Path]) -> Any:
    """A `StableDiffusionPipeline` from a folder, offline, with its UNet or scheduler from folders of their own."""
    import diffusers

    # low_cpu_mem_usage=True, the default, asks for accelerate
    files: dict[str, Any] = {"local_files_only": True, "low_cpu_mem_usage": False}
    made: dict[str, Any] = {}
    with complete():
        if "unet" in parts:
            made["unet"] = diffusers.UNet2DConditionModel.from_pretrained(parts["unet"], **files)
        if "scheduler" in parts:
            config = json.loads((parts["scheduler"] / "scheduler_config.json").read_text())
            made["scheduler"] = scheduler_class(config["_class_name"]).from_config(config)
        return diffusers.StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, **files, **made)


def load_lora(pipe: Any, folder: Path, name: str) -> None:
    """Loads a LoRA by diffusers' own call, offline, as the adapter of that name; in the precision of its network.

    It is one of the UNet alone, so that diffusers warns of none for the text encoder is not passed on.

    Raises:
        ValueError: the file does not fit the pipeline's UNet.
    """
    log = logging.getLogger("diffusers.loaders.lora_base")
    log.addFilter(_not_of_text)
    try:
        pipe.load_lora_weights(
            folder, weight_name="pytorch_lora_weights.safetensors", adapter_name=name, local_files_only=True
        )
    except RuntimeError as error:
        raise ValueError(f"the LoRA in {folder} was made for another network ({error})") from error
    finally:
        log.removeFilter(_not_of_text)


def _not_of_text(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("No LoRA keys associated to CLIPTextModel")


@contextmanager
def complete() -> Iterator[None]:
    """Inside, a network whose files lack some of its weights is refused, and not given random ones in their place.

    Both libraries fill such weights in and say so in their logs at most.

    Raises:
        ValueError: names the network and the first of the weights.
    """
    from diffusers import ModelMixin
    from transformers import PreTrainedModel

    kinds: tuple[Any, ...] = (ModelMixin, PreTrainedModel)
    with _LOADING:  # two at once would leave each other's methods behind
        yield from _checking(kinds)


def _checking(kinds: tuple[Any, ...]) -> Iterator[None]:
    """Has `from_pretrained` of these classes look for missing weights until it is resumed."""
    stock = {kind: kind.__dict__["from_pretrained"] for kind in kinds}

    def checked(method: Any) -> Any:
        def from_pretrained(cls: Any, source: Any, *arguments: Any, **keywords: Any) -> Any:
            if keywords.pop("output_loading_info", False):  # somebody else looks
                return method.__get__(None, cls)(source, *arguments, output_loading_info=True, **keywords)
            network, told = method.__get__(None, cls)(source, *arguments, output_loading_info=True, **keywords)
            missing = sorted(map(str, told["missing_keys"]))
            if missing:
                raise ValueError(
                    f"{len(missing)} weights of {cls.__name__} are not in its files in {source}, one is {missing[0]}: "
                    "the files are not complete, or these versions of diffusers and transformers read them wrongly "
                    "(transformers 5.0 to 5.5 does so); upgrade to transformers>=5.6"
                )
            return network

        return classmethod(from_pretrained)

    for kind, method in stock.items():
        kind.from_pretrained = checked(method)
    try:
        yield
    finally:
        for kind, method in stock.items():
            kind.from_pretrained = method


def quieten() -> None:
    """Keeps the loading bars of the libraries off the screen; diffusers still says where a prompt is too long."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
