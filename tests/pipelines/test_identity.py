"""What counts as the same weights: other precisions do, changes of whichever parameter do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from torchao.quantization import Int8WeightOnlyConfig, quantize_

from renoise import archive
from renoise.pipelines.identity import _nine, difference, identity
from tests.helpers import golden, tiny, tiny_flow

MAKERS: dict[str, Callable[[], Any]] = {"sd": tiny.sd, "sdxl": tiny.sdxl, "flux": tiny_flow.flux}
UNET = [name for name, _ in tiny.unet().named_parameters()]


def scaled(pipe: Any, part: str, name: str, factor: float) -> Any:
    with torch.no_grad():
        getattr(pipe, part).get_parameter(name).mul_(factor)
    return pipe


@pytest.mark.parametrize("one", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("two", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", MAKERS)
def test_the_same_weights_in_another_precision_are_the_same(name: str, one: torch.dtype, two: torch.dtype) -> None:
    pipe = MAKERS[name]()
    made_with = identity(pipe.to(one))
    assert difference(made_with, MAKERS[name]().to(two)) is None
    assert not made_with.quantised


@contextmanager
def changed(weight: torch.Tensor) -> Iterator[torch.Tensor]:
    """A weight that is as before afterwards."""
    before = weight.detach().clone()
    with torch.no_grad():
        yield weight
        weight.copy_(before)


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)])
def test_any_parameter_that_is_scaled_by_three_percent_is_noticed(dtype: torch.dtype) -> None:
    made_with, pipe = identity(tiny.sd()), tiny.sd().to(dtype)
    for name, weight in pipe.unet.named_parameters():
        with changed(weight):
            weight *= 1.03
            assert difference(made_with, pipe) or not bool(weight.any()), name
    assert difference(made_with, pipe) is None


@pytest.mark.parametrize("change", ["conv_out", "bias", "norm", "text", "one bias", "one norm"])
def test_what_was_missed_before_is_noticed(change: str) -> None:
    pipe = tiny.sd()
    made_with = identity(pipe)
    with torch.no_grad():
        if change == "conv_out":
            pipe.unet.conv_out.weight *= 2
        if change == "bias":
            for name, weight in pipe.unet.named_parameters():
                weight += 0.01 * name.endswith("bias")
        if change == "norm":
            pipe.unet.conv_norm_out.weight *= 1.1
        if change == "text":
            pipe.text_encoder.get_parameter("final_layer_norm.weight").mul_(1.1)
        if change == "one bias":
            pipe.unet.conv_in.bias[3] += 0.1
        if change == "one norm":
            pipe.unet.conv_norm_out.weight[5] *= 2
    part = "text_encoder" if change == "text" else "unet"
    assert f"other weights in {part}" in str(difference(made_with, pipe))


@pytest.mark.parametrize("value", [float("nan"), pytest.param(float("inf"), marks=pytest.mark.slow)])
def test_nan_in_any_parameter_is_noticed(value: float) -> None:
    made_with, pipe = identity(tiny.sd()), tiny.sd()
    for name, weight in pipe.unet.named_parameters():
        with changed(weight):
            weight.view(-1)[-1] = value
            assert "other weights in unet" in str(difference(made_with, pipe)), name
    with torch.no_grad():
        pipe.unet.conv_out.bias[0] = value
    assert "other weights in unet" in str(difference(identity(pipe), tiny.sd()))


@pytest.mark.parametrize("size", [0.02, 0.002])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fused_lora_of_rank_1_is_noticed(size: float, dtype: torch.dtype) -> None:
    """Of a share of the weight's norm, in the attention layers alone."""
    pipe = tiny.sd()
    made_with = identity(pipe)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in pipe.unet.named_parameters():
            if "to_q" in name or "to_v" in name:
                moved = torch.outer(*(torch.randn(side, generator=draw) for side in weight.shape))
                weight += size * weight.norm() / moved.norm() * moved
    assert "other weights in unet" in str(difference(made_with, pipe.to(dtype)))


def test_a_live_lora_is_noticed_until_it_is_unloaded() -> None:
    from peft import LoraConfig

    pipe = tiny.sd()
    made_with = identity(pipe)
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
    assert "other weights in unet" in str(difference(made_with, pipe))
    pipe.unload_lora_weights()
    assert difference(made_with, pipe) is None


def test_eight_bits_of_the_same_weights_are_the_same_and_others_are_not() -> None:
    made_with = identity(tiny.sd())
    pipe, other = tiny.sd(), tiny.sd(unet=tiny.unet(seed=5))
    for which in (pipe, other):
        quantize_(which.unet, Int8WeightOnlyConfig())
    assert identity(pipe).quantised == ("unet",)
    assert difference(made_with, pipe) is None
    assert difference(identity(pipe), tiny.sd()) is None
    assert "other weights in unet" in str(difference(made_with, other))
    assert "other weights in unet" in str(difference(identity(pipe), scaled(tiny.sd(), "unet", "conv_out.weight", 2)))
    cast = tiny.sd()
    cast.unet.enable_layerwise_casting(torch.float8_e4m3fn, torch.float32)
    assert difference(made_with, cast) is None


def test_offloaded_weights_are_read_from_where_they_are() -> None:
    made_with, pipe = identity(tiny.sd()), tiny.sd()
    for network in (pipe.unet, pipe.vae, pipe.text_encoder):
        cpu_offload(network, torch.device("cpu"))
    assert all(weight.is_meta for weight in pipe.unet.parameters())
    assert identity(pipe) == made_with
    assert all(weight.is_meta for weight in pipe.unet.parameters())


def test_layouts_and_compiled_networks_are_the_same() -> None:
    made_with, pipe = identity(tiny.sd()), tiny.sd()
    pipe.unet.to(memory_format=torch.channels_last)
    assert difference(made_with, pipe) is None


def test_identities_of_format_1_are_understood() -> None:
    record = archive.loads((Path(__file__).parents[1] / "data/format-1.safetensors").read_bytes())
    assert record.identity.sampling == 1
    assert archive.loads(archive.dumps(record)).identity == record.identity
    pipe = golden.pipeline(tiny.euler_ancestral())
    assert difference(record.identity, pipe) is None
    assert difference(record.identity, golden.pipeline(tiny.euler_ancestral()).to(torch.bfloat16)) is None
    with torch.no_grad():
        for weight in pipe.unet.parameters():
            weight *= 1.1
    assert "other weights in unet" in str(difference(record.identity, pipe))


def test_large_weights_are_not_read_wholly() -> None:
    """Ten billion numbers, of which a pass over all would take many seconds; all are one number in memory."""
    numbers = torch.cat(list(_nine(torch.tensor(2.0).expand(100_000, 100_000))))
    assert numbers.tolist() == [2.0] * 9
