"""What users put on their pipelines works unchanged: LoRA, IP-Adapters, half precision, quantisation, offload."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from diffusers import EulerDiscreteScheduler, FirstBlockCacheConfig
from peft import LoraConfig
from torchao.quantization import Int8Tensor, Int8WeightOnlyConfig, quantize_
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

import renoise
from renoise.core.settings import Region, Settings
from renoise.pipelines.families import denoiser
from tests.helpers import tiny, tiny_flow

SHORT = Settings((Region(iterations=6),), num_inference_steps=20)  # short steps, which contract for random networks
Y, X = np.mgrid[0:1:32j, 0:1:48j]
PICTURE = (127 * np.stack([np.sin(3 * X), np.cos(4 * Y), X * Y], -1) + 128).astype(np.uint8)


def unit_vae() -> Any:
    """Latents of order 1: on small ones group norms magnify any change."""
    return tiny.vae(scaling_factor=4.0)


def sd() -> Any:
    return tiny.sd(vae=unit_vae())


def inverted(pipe: Any, **arguments: Any) -> renoise.Inversion:
    given = {"prompt": "a cat", "preset": SHORT, "strength": 0.2, "size": (32, 48), **arguments}
    return renoise.invert(pipe, PICTURE, **given)


def error(inversion: renoise.Inversion) -> float:
    return (inversion.regenerate(inversion.scene) - inversion.round_trip()).abs().max().item()


def add_lora(pipe: Any) -> None:
    """A LoRA on the attention of the UNet, with weights that are not zero."""
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights="gaussian"))
    draw = torch.Generator().manual_seed(0)
    for name, weight in pipe.unet.named_parameters():
        if "lora" in name:
            weight.data = torch.randn(weight.shape, generator=draw) * 0.3


@pytest.mark.parametrize("driver", ["direct", "pipeline"])
@pytest.mark.parametrize("make", [tiny.sd, tiny.sdxl], ids=["sd", "sdxl"])
def test_a_lora_takes_part(make: Any, driver: str) -> None:
    pipe = make(tiny.ddim(), vae=unit_vae())
    without = inverted(pipe, driver=driver)
    add_lora(pipe)
    with_it = inverted(pipe, driver=driver)
    assert error(with_it) < 0.02
    assert (with_it.latents - without.latents).abs().max() > 1e-3
    pipe.unet.disable_adapters()
    torch.testing.assert_close(inverted(pipe, driver=driver).latents, without.latents, rtol=1e-4, atol=1e-4)


def add_ip_adapter(pipe: Any) -> None:
    """An IP-Adapter of the smallest size, with random weights, loaded as diffusers loads a file of one."""
    draw = torch.Generator().manual_seed(1)
    width, cross = 16, pipe.unet.config.cross_attention_dim

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draw) * 0.2

    attention = {}
    for number, name in enumerate(pipe.unet.attn_processors):
        if name.endswith("attn2.processor"):
            inner = pipe.unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
            attention[f"{number}.to_k_ip.weight"] = random(inner, cross)
            attention[f"{number}.to_v_ip.weight"] = random(inner, cross)
    projection = {"proj.weight": random(4 * cross, width), "proj.bias": random(4 * cross)}
    projection |= {"norm.weight": torch.ones(cross), "norm.bias": torch.zeros(cross)}
    pipe.unet._load_ip_adapter_weights([{"image_proj": projection, "ip_adapter": attention}])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = CLIPVisionConfig(
            hidden_size=width,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=32,
            patch_size=16,
            projection_dim=width,
        )
        pipe.register_modules(image_encoder=CLIPVisionModelWithProjection(config).eval())


CHANGES: dict[str, Any] = {
    "a LoRA added": (False, add_lora, "the adapters"),
    "a LoRA switched off": (True, lambda pipe: pipe.unet.disable_adapters(), "the adapters"),
    "a LoRA made weaker": (True, lambda pipe: pipe.unet.set_adapters(["default"], [0.5]), "the adapters"),
    "a LoRA fused": (True, lambda pipe: pipe.unet.fuse_lora(), "the adapters"),
    "weights loaded": (False, lambda pipe: pipe.unet.load_state_dict(tiny.unet(1).state_dict()), "the weights"),
    "text encoder": (
        False,
        lambda pipe: [weight.data.mul_(1.1) for weight in pipe.text_encoder.parameters()],
        "the weights of its text_encoder",
    ),
}


@pytest.mark.parametrize("driver", ["direct", "pipeline"])
@pytest.mark.parametrize("name", CHANGES)
def test_networks_that_changed_since_the_inversion_are_said_once(name: str, driver: str) -> None:
    with_lora, change, message = CHANGES[name]
    pipe = sd()
    if with_lora:
        add_lora(pipe)
    inversion = inverted(pipe, driver=driver, **BRIEF)
    inversion.edit("a dog")  # nothing has changed, and a warning fails a test
    change(pipe)
    with pytest.warns(UserWarning, match=f"{message}.* changed since the inversion") as said:
        inversion.edit("a dog")
    assert len(said) == 1
    inversion.edit("a dog")
    inverted(pipe, driver=driver, **BRIEF).edit("a dog")


def test_another_precision_or_offload_is_no_change() -> None:
    pipe = sd()
    inversion = inverted(pipe, **BRIEF)
    pipe.to(torch.bfloat16)
    inversion.edit("a dog")
    offloaded(pipe)
    inversion.edit("a dog")


def test_an_ip_adapters_picture_goes_through() -> None:
    pipe = sd()
    add_ip_adapter(pipe)
    looks = [torch.randn(1, 1, 16, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    first, second = (inverted(pipe, pipe_kwargs={"ip_adapter_image_embeds": [look]}) for look in looks)
    assert first.record.driver == "pipeline"
    assert error(first) < 0.02
    assert (first.latents - second.latents).abs().max() > 1e-3
    edited = first.edit("a cat", pipe_kwargs={"ip_adapter_image_embeds": [looks[1]]})
    assert edited.tobytes() != first.reconstruct().tobytes()


@pytest.mark.parametrize("driver", ["direct", "pipeline"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_networks_keep_a_float32_state(dtype: torch.dtype, driver: str) -> None:
    pipe = sd().to(dtype)
    inversion = inverted(pipe, driver=driver)
    assert inversion.latents.dtype == torch.float32
    assert inversion.latents.to(dtype).float().ne(inversion.latents).any()
    assert pipe.unet.dtype == pipe.vae.dtype == dtype
    assert error(inversion) < 0.1


@pytest.mark.parametrize("driver", ["direct", "pipeline"])
def test_an_overflowing_network_is_named_at_its_step(driver: str) -> None:
    pipe = sd()

    def overflow(module: Any, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> Any:
        timestep = arguments[1] if len(arguments) > 1 else keywords["timestep"]
        return tuple(part * torch.inf for part in output) if float(timestep) > 100 else output

    pipe.unet.register_forward_hook(overflow, with_kwargs=True)
    with pytest.raises(ValueError, match="prediction at step 1 is not finite"):
        inverted(pipe, driver=driver)


def test_an_overflowing_auto_encoder_is_named() -> None:
    pipe = sd()
    pipe.vae.register_forward_hook(lambda *_: None)
    pipe.vae.encoder.conv_out.bias.data.fill_(torch.inf)
    with pytest.raises(ValueError, match="the picture's latents are not finite"):
        inverted(pipe)


def test_eta_and_custom_schedules_go_through() -> None:
    pipe = sd()
    noisy = inverted(pipe, pipe_kwargs={"eta": 0.5})
    assert noisy.table.stochastic
    assert noisy.trajectory.noises is not None
    assert error(noisy) < 0.02
    pipe = tiny.sd(EulerDiscreteScheduler(**tiny.TRAINING), vae=unit_vae())
    custom = inverted(pipe, pipe_kwargs={"timesteps": [301, 201, 101, 1]}, strength=1.0)
    assert custom.table.timesteps.tolist() == [301, 201, 101, 1]
    assert error(custom) < 0.2


@pytest.mark.parametrize("driver", ["direct", "pipeline"])
def test_a_step_cache_is_refused(driver: str) -> None:
    pipe = tiny_flow.flux()
    inversion = inverted(pipe, driver=driver, prompt=None, pipe_kwargs=tiny_flow.embeds(pipe, 1), **BRIEF)
    pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1))
    with pytest.raises(ValueError, match=r"FluxPipeline has a step cache.*disable_cache\(\) first"):
        inversion.reconstruct()
    pipe.transformer.disable_cache()
    inversion.reconstruct()


# ---------------------------------------------------------------- offload


def offloaded(pipe: Any) -> Any:
    """With accelerate's own hooks, which here take the networks from one place to the same place."""
    pipe.enable_model_cpu_offload(device="cpu")
    return pipe


@contextmanager
def given_back(pipe: Any, times: int) -> Iterator[None]:
    """Inside, the networks go back to where they wait that often: each time the pipeline gets new hooks."""
    seen, hooks = 0, pipe._all_hooks
    kind = type(pipe)

    class Watching(kind):  # type: ignore[misc, valid-type]
        def maybe_free_model_hooks(self) -> None:
            nonlocal seen, hooks
            super().maybe_free_model_hooks()
            assert self._all_hooks is not hooks
            seen, hooks = seen + 1, self._all_hooks

    pipe.__class__ = Watching
    try:
        yield
    finally:
        pipe.__class__ = kind
    assert seen == times


OFFLOADED: dict[str, Any] = {"sd": tiny.sd, "sd3": tiny_flow.sd3}
BRIEF: dict[str, Any] = {"preset": Settings((Region(),), num_inference_steps=2), "strength": 1.0}


@pytest.mark.parametrize("driver", ["direct", "pipeline"])
@pytest.mark.parametrize("name", OFFLOADED)
def test_offloaded_networks_answer_alike_and_are_given_back(name: str, driver: str) -> None:
    plain = inverted(OFFLOADED[name](), driver=driver, **BRIEF)
    pipe = offloaded(OFFLOADED[name]())
    stock = driver == "pipeline"  # which gives them back after its call too
    with given_back(pipe, 2 + stock):  # the auto-encoder, then the inversion
        inversion = inverted(pipe, driver=driver, **BRIEF)
    assert torch.equal(inversion.latents, plain.latents)
    with given_back(pipe, 2 + stock):
        edited = inversion.edit("a dog")
    assert edited.tobytes() == plain.edit("a dog").tobytes()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("driver", ["direct", "pipeline"])
@pytest.mark.parametrize("name", OFFLOADED)
def test_offloaded_networks_are_given_back_after_a_failure(name: str, driver: str, error: type[BaseException]) -> None:
    pipe = offloaded(OFFLOADED[name]())

    def fail(*_: Any) -> None:
        raise error("stop")

    inversion = inverted(pipe, driver=driver, **BRIEF)
    for network, given in ((denoiser(pipe), 2), (pipe.vae.encoder, 1)):
        hook = network.register_forward_hook(fail)
        with given_back(pipe, given), pytest.raises(error):
            inverted(pipe, driver=driver, **BRIEF)
        hook.remove()
    hook = pipe.vae.decoder.register_forward_hook(fail)
    with given_back(pipe, 2 + (driver == "pipeline")), pytest.raises(error):
        inversion.reconstruct()
    hook.remove()
    assert torch.equal(inverted(pipe, driver=driver, **BRIEF).latents, inversion.latents)


@pytest.mark.parametrize("make", [sd, lambda: tiny_flow.sd3(vae=tiny_flow.vae(scaling_factor=4.0))], ids=["sd", "sd3"])
def test_a_quantised_network_takes_part_by_both_drivers(make: Any) -> None:
    pipe = make()
    whole = inverted(pipe)
    quantize_(denoiser(pipe), Int8WeightOnlyConfig())
    direct, through = inverted(pipe, driver="direct"), inverted(pipe, driver="pipeline")
    assert direct.latents.equal(through.latents)
    assert not direct.latents.equal(whole.latents), "eight bits a weight are not the same network"
    assert any(isinstance(weight, Int8Tensor) for weight in denoiser(pipe).parameters()), "still quantised afterwards"
    assert error(direct) < 1e-3


@pytest.mark.parametrize("kind", ["offloaded", "quantised"])
def test_inversions_of_networks_whose_weights_are_not_at_hand_can_be_kept(kind: str, tmp_path: Path) -> None:
    pipe = tiny.sd()
    if kind == "offloaded":  # as enable_sequential_cpu_offload does, which asks for a GPU
        for network in (pipe.unet, pipe.vae, pipe.text_encoder):
            cpu_offload(network, torch.device("cpu"))
        assert all(weight.is_meta for weight in pipe.unet.parameters())
    else:
        quantize_(pipe.unet, Int8WeightOnlyConfig())
    inversion = inverted(pipe, **BRIEF)
    inversion.save(tmp_path / "kept.safetensors")
    again = renoise.load(tmp_path / "kept.safetensors", pipe)
    assert again.reconstruct().tobytes() == inversion.reconstruct().tobytes()
    assert renoise.load(tmp_path / "kept.safetensors", tiny.sd()).latents.equal(inversion.latents)
