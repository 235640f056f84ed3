"""Codecs against the stock pipelines' own decoding, and against the auto-encoder by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from diffusers import AutoencoderTiny

from renoise.pipelines import codecs
from renoise.pipelines.adapter import Adapter
from renoise.pipelines.families import FAMILIES, family
from tests.helpers import tiny, tiny_flow, tiny_transformers
from tests.helpers.kinds import inverted, settings

STATISTICS: dict[str, Any] = {"latents_mean": [0.5, -1.0, 2.0, 0.1], "latents_std": [0.5, 2.0, 1.5, 0.7]}

PIPELINES: dict[str, Callable[[], Any]] = {
    "sd": tiny.sd,
    "lcm": tiny.lcm,
    "sdxl": tiny.sdxl,
    "sdxl with statistics": lambda: tiny.sdxl(vae=tiny.vae(**STATISTICS)),
    "sd with statistics": lambda: tiny.sd(vae=tiny.vae(**STATISTICS, shift_factor=0.3)),  # stock ignores them
}


def encode(pipe: Any, pixels: torch.Tensor) -> torch.Tensor:
    return Adapter(pipe).codec.encode(pixels)


def decode(pipe: Any, latents: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return Adapter(pipe).codec.decode(latents, size)


@pytest.fixture(params=PIPELINES)
def pipe(request: pytest.FixtureRequest) -> Any:
    return PIPELINES[request.param]()


def pixels(batch: int = 2, height: int = 24, width: int = 40) -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_decode_is_the_stock_pipelines_decoding(pipe: Any) -> None:
    latents = torch.randn(2, 4, 6, 10, generator=torch.Generator().manual_seed(0))
    call = {"prompt": ["cat", "dog"], "latents": latents, "height": 24, "width": 40, "num_inference_steps": 1}
    final = pipe(**call, output_type="latent", generator=torch.Generator().manual_seed(1)).images
    stock = pipe(**call, output_type="pt", generator=torch.Generator().manual_seed(1)).images
    ours = decode(pipe, final, (4 * final.shape[2], 4 * final.shape[3]))
    assert ours.shape == (2, 3, 24, 40)
    assert ours.dtype == torch.float32
    assert torch.equal(ours, stock)
    assert ours.min() >= 0
    assert ours.max() <= 1
    assert ours.std() > 0.01


def test_encode_is_the_mode_of_the_encoder_and_decode_undoes_its_scaling(pipe: Any) -> None:
    picture = pixels()
    with torch.no_grad():
        mode = pipe.vae.encode(picture * 2 - 1).latent_dist.mode()
        back = (pipe.vae.decode(mode).sample / 2 + 0.5).clamp(0, 1)
    latents = encode(pipe, picture)
    assert latents.shape == (2, 4, 6, 10)
    assert latents.dtype == torch.float32
    assert torch.equal(latents, encode(pipe, picture))  # nothing is drawn
    torch.testing.assert_close(decode(pipe, latents, (24, 40)), back, rtol=0, atol=2e-6)


def test_encode_scales_by_the_configuration() -> None:
    picture = pixels()
    plain = encode(tiny.sd(vae=tiny.vae(scaling_factor=1.0)), picture)
    torch.testing.assert_close(encode(tiny.sd(vae=tiny.vae(scaling_factor=0.25)), picture), plain / 4)
    mean, std = (torch.tensor(STATISTICS[name]).view(1, 4, 1, 1) for name in ("latents_mean", "latents_std"))
    scaled = encode(tiny.sdxl(vae=tiny.vae(scaling_factor=0.25, **STATISTICS)), picture)
    torch.testing.assert_close(scaled, (plain - mean) / std / 4)


def test_a_batch_is_its_pictures_one_by_one(pipe: Any) -> None:
    picture = pixels()
    one_by_one = torch.cat([encode(pipe, picture[:1]), encode(pipe, picture[1:])])
    torch.testing.assert_close(encode(pipe, picture), one_by_one, rtol=0, atol=1e-5)


def test_no_gradients_and_no_change_to_what_is_handed_in(pipe: Any) -> None:
    picture = pixels()
    state = torch.random.get_rng_state()
    latents = encode(pipe, picture)
    before = latents.clone()
    assert not latents.requires_grad
    assert not decode(pipe, latents, (24, 40)).requires_grad
    assert torch.equal(picture, pixels())
    assert torch.equal(latents, before)
    assert torch.equal(torch.random.get_rng_state(), state)


# ---------------------------------------------------------------- precision


class Spy:
    """Records the dtypes that an auto-encoder runs in."""

    def __init__(self, vae: Any, fail: bool = False) -> None:
        self.seen: list[torch.dtype] = []
        self.fail = fail
        for part in (vae.encoder, vae.decoder):
            part.register_forward_pre_hook(self._look)

    def _look(self, module: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        self.seen.append(arguments[0].dtype)
        assert next(module.parameters()).dtype == arguments[0].dtype
        if self.fail:
            raise RuntimeError("out of memory")


def test_a_half_precision_auto_encoder_that_overflows_runs_in_float32() -> None:
    dtype = torch.float16
    pipe = tiny.sdxl(vae=tiny.vae(force_upcast=True).to(dtype=dtype).to(memory_format=torch.channels_last))
    weights = {name: value.clone() for name, value in pipe.vae.state_dict().items()}
    strides = {name: value.stride() for name, value in pipe.vae.state_dict().items()}
    spy = Spy(pipe.vae)
    decoded = decode(pipe, encode(pipe, pixels()), (24, 40))
    assert spy.seen == [torch.float32, torch.float32]
    assert decoded.dtype == torch.float32
    after = pipe.vae.state_dict()
    assert all(torch.equal(after[name], weight) and after[name].dtype == dtype for name, weight in weights.items())
    assert {name: value.stride() for name, value in after.items()} == strides


def test_the_change_of_precision_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    pipe = tiny.sdxl(vae=tiny.vae(force_upcast=True).to(dtype=torch.float16))
    caplog.clear()
    decode(pipe, torch.zeros(1, 4, 6, 10), (24, 40))
    assert not caplog.records


@pytest.mark.parametrize(
    ("make", "dtype", "force_upcast"),
    [
        (tiny.sd, torch.float16, True),
        (tiny.sd, torch.bfloat16, True),
        (tiny.sdxl, torch.bfloat16, True),
        (tiny.sdxl, torch.float16, False),
        (tiny.lcm, torch.float16, True),
    ],
)
def test_other_auto_encoders_run_in_their_own_precision_as_in_the_stock_pipeline(
    make: Any, dtype: torch.dtype, force_upcast: bool
) -> None:
    pipe = make(vae=tiny.vae(force_upcast=force_upcast).to(dtype=dtype))
    spy = Spy(pipe.vae)
    latents = encode(pipe, pixels())
    assert latents.dtype == decode(pipe, latents, (24, 40)).dtype == torch.float32
    assert spy.seen == [dtype, dtype]
    exact = encode(tiny.sd(), pixels())
    assert 0 < (latents - exact).abs().max() < 0.05 * exact.std()


def test_an_auto_encoder_with_layerwise_casting_is_left_to_its_hooks() -> None:
    pipe = tiny.sd(vae=tiny.vae(force_upcast=True))
    pipe.vae.enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)
    before = {name: value.dtype for name, value in pipe.vae.state_dict().items()}
    assert torch.bfloat16 in before.values()
    decode(pipe, encode(pipe, pixels()), (24, 40))
    assert {name: value.dtype for name, value in pipe.vae.state_dict().items()} == before


@pytest.mark.parametrize("driver", ["direct", "pipeline"])
@pytest.mark.parametrize("kind", ["block_level", "leaf_level"])
def test_group_offload_changes_no_bit(kind: str, driver: Any) -> None:
    """From the CPU to the CPU; with streams it asks for a GPU."""
    plain, pipe = inverted(tiny.sd(), settings(2, 1), driver=driver), tiny.sd()
    blocks: dict[str, Any] = {"offload_type": kind, "num_blocks_per_group": 1}
    for network in (pipe.unet, pipe.vae):
        network.enable_group_offload(onload_device=torch.device("cpu"), offload_device=torch.device("cpu"), **blocks)
    offloaded = inverted(pipe, settings(2, 1), driver=driver)
    assert torch.equal(offloaded.latents, plain.latents)
    assert [one.tobytes() for one in offloaded.edit("a dog")] == [one.tobytes() for one in plain.edit("a dog")]


def test_a_decoded_picture_that_is_not_finite_is_refused() -> None:
    pipe = tiny.sd(vae=tiny.vae().to(dtype=torch.float16))
    pipe.vae.decoder.conv_out.bias.data.fill_(torch.inf)
    with pytest.raises(ValueError, match=r"decoded pixels are not finite .* float16: it overflows; do pipe.vae.to"):
        decode(pipe, torch.zeros(1, 4, 6, 10), (24, 40))


def test_the_precision_comes_back_after_a_failure() -> None:
    pipe = tiny.sdxl(vae=tiny.vae(force_upcast=True).to(dtype=torch.float16))
    Spy(pipe.vae, fail=True)
    with pytest.raises(RuntimeError, match="out of memory"):
        encode(pipe, pixels())
    assert pipe.vae.dtype == torch.float16
    with pytest.raises(RuntimeError, match="out of memory"):
        decode(pipe, torch.zeros(1, 4, 6, 10), (24, 40))
    assert pipe.vae.dtype == torch.float16


def test_tiny_auto_encoders_without_a_distribution() -> None:
    blocks = {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4}
    vae = AutoencoderTiny(**blocks, num_encoder_blocks=(1,) * 4, num_decoder_blocks=(1,) * 4).eval()
    pipe = tiny.sd(vae=vae)
    with torch.no_grad():
        expected = vae.encode(pixels() * 2 - 1).latents
    assert torch.equal(encode(pipe, pixels()), expected)
    assert decode(pipe, expected, (24, 40)).shape == (2, 3, 24, 40)


# ---------------------------------------------------------------- refusals


def other_pipeline(pipe: Any, name: str) -> Any:
    """A pipeline of another class from the same components."""
    kind = getattr(diffusers, name)
    keys, _ = kind._get_signature_keys(kind)
    return kind(**{key: pipe.components.get(key) for key in keys})


def test_other_pipelines_are_refused_with_advice_that_works() -> None:
    other = other_pipeline(tiny.lcm(), "LatentConsistencyModelImg2ImgPipeline")
    for use in (lambda: encode(other, pixels()), lambda: decode(other, pixels(), (24, 40)), lambda: family(other)):
        with pytest.raises(TypeError, match="LatentConsistencyModelImg2ImgPipeline is not supported") as caught:
            use()
    advice = str(caught.value).split(" by ")[-1]
    pipe = eval(advice, {**vars(diffusers), "pipe": other})
    assert family(pipe) == "lcm"
    assert encode(pipe, pixels()).shape == (2, 4, 6, 10)
    with pytest.raises(TypeError, match="NoneType is not supported"):
        family(None)


ADVICE = [
    (tiny.lcm, "LatentConsistencyModelImg2ImgPipeline", "LatentConsistencyModelPipeline"),
    (tiny_flow.sd3, "StableDiffusion3Img2ImgPipeline", "StableDiffusion3Pipeline"),
    (tiny_flow.flux, "FluxImg2ImgPipeline", "FluxPipeline"),
    (tiny_flow.flux, "FluxKontextInpaintPipeline", "FluxKontextPipeline"),
    (tiny_flow.qwen, "QwenImageImg2ImgPipeline", "QwenImagePipeline"),
    (tiny_transformers.qwen_edit, "QwenImageEditInpaintPipeline", "QwenImageEditPipeline"),
    (tiny_flow.z_image, "ZImageImg2ImgPipeline", "ZImagePipeline"),
    (tiny_transformers.chroma, "ChromaImg2ImgPipeline", "ChromaPipeline"),
    (tiny_transformers.flux_controlnet, "FluxControlNetImg2ImgPipeline", "FluxControlNetPipeline"),
    (tiny_flow.controlnet, "StableDiffusionControlNetImg2ImgPipeline", "StableDiffusionControlNetPipeline"),
    (tiny.sd, "StableDiffusionPAGInpaintPipeline", "StableDiffusionPAGPipeline"),
]


@pytest.mark.parametrize(("make", "name", "fitting"), ADVICE, ids=[name for _, name, _ in ADVICE])
def test_the_class_that_fits_is_named(make: Any, name: str, fitting: str) -> None:
    other = other_pipeline(make(), name)
    with pytest.raises(TypeError, match=rf"are made one by {fitting}\.from_pipe\(pipe, dtype=pipe\.dtype\)$"):
        family(other)
    assert family(getattr(diffusers, fitting).from_pipe(other, dtype=other.dtype)) in FAMILIES


def test_none_is_named_where_none_fits() -> None:
    fill = tiny_flow.flux(transformer=tiny_flow.flux_transformer(in_channels=24, out_channels=16))
    for other in (other_pipeline(fill, "FluxFillPipeline"), None, tiny.vae()):
        with pytest.raises(TypeError, match=r"is not supported; `renoise models` lists what is, and .*register_family"):
            family(other)


def test_encode_says_what_it_needs() -> None:
    pipe = tiny.sd()
    for wrong in (pixels()[0], pixels()[:, :1], (pixels() * 255).byte()):
        with pytest.raises(ValueError, match="encode takes floats"):
            encode(pipe, wrong)
    for wrong in (pixels() * 2 - 1, pixels() * 255, pixels() * torch.nan):
        with pytest.raises(ValueError, match=r"encode takes \[0, 1\]"):
            encode(pipe, wrong)
    with pytest.raises(ValueError, match=r"\[24, 38\] must be multiples of 4"):
        encode(pipe, pixels(width=38))
    with pytest.raises(ValueError, match=r"at 24 x 40 this auto-encoder decodes \[2, 4, 6, 10\], not \[2, 3, 24, 40\]"):
        decode(pipe, pixels(), (24, 40))


def test_names_are_sorted() -> None:
    assert codecs.__all__ == sorted(codecs.__all__)
    assert all(hasattr(codecs, name) for name in codecs.__all__)
