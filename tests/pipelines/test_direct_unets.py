"""The direct driver against recordings of the stock pipelines, and which prompt meets which row."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.configuration_utils import FrozenDict
from torch import Tensor

from renoise.core.loop import drive, replay
from renoise.core.query import Query
from renoise.core.table import StepTable
from renoise.pipelines.adapter import Adapter
from renoise.pipelines.direct import DirectDenoiser
from renoise.pipelines.measure import measure
from renoise.record import Scene
from tests.helpers import tiny

PROMPTS = ["a cat", "dogs in the rain"]
NEGATIVES = ["blurry", "ugly cat"]
STEPS = 3


def table_of(pipe: Any, steps: int = STEPS) -> StepTable:
    scheduler = copy.deepcopy(pipe.scheduler)
    scheduler.set_timesteps(steps)
    return measure(scheduler)


def direct(
    pipe: Any, prompts: Sequence[str], negatives: Sequence[str] | None, guidance: float, table: StepTable
) -> DirectDenoiser:
    adapter = Adapter(pipe)
    scene = Scene(tuple(prompts), None if negatives is None else tuple(negatives), guidance, {})
    call = adapter.call(scene, len(table), (24, 40))
    return adapter.denoiser(adapter.rehearsals([call]), table)


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    """As `drive` asks."""
    with torch.no_grad():
        yield


@dataclass
class Recording:
    """What a stock pipeline hands to its network and to its scheduler, step by step."""

    inputs: list[dict[str, Any]] = field(default_factory=list)
    predictions: list[Tensor] = field(default_factory=list)  # guided
    latents: list[Tensor] = field(default_factory=list)  # z_t, loop space
    final: Tensor = field(default_factory=lambda: torch.empty(0))


def network_inputs(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> dict[str, Any]:
    added = keywords.get("added_cond_kwargs") or {}
    names = ("encoder_hidden_states", "timestep_cond")
    shown = dict(zip(("sample", "timestep"), arguments, strict=False)) or {
        name: keywords[name] for name in ("sample", "timestep")
    }
    return {**shown, **{name: keywords.get(name) for name in names}, **added}


class Listening:
    """Collects the inputs of a network while it is open."""

    def __init__(self, network: torch.nn.Module) -> None:
        self.network, self.inputs = network, list[dict[str, Any]]()

    def __enter__(self) -> list[dict[str, Any]]:
        def listen(module: torch.nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            self.inputs.append(network_inputs(arguments, keywords))

        self.hook = self.network.register_forward_pre_hook(listen, with_kwargs=True)
        return self.inputs

    def __exit__(self, *error: object) -> None:
        self.hook.remove()


def record(pipe: Any, **call: Any) -> Recording:
    """Run the stock pipeline and write down what happens."""
    recording = Recording()
    scheduler = copy.deepcopy(pipe.scheduler)
    real = scheduler.step

    @functools.wraps(real)  # pipelines read the signature
    def step(model_output: Tensor, timestep: Tensor, sample: Tensor, **options: Any) -> Any:
        recording.predictions.append(model_output)
        recording.latents.append(sample)
        return real(model_output, timestep, sample, **options)

    scheduler.step = step
    pipe.scheduler, kept = scheduler, pipe.scheduler
    with Listening(pipe.unet) as inputs:
        recording.final = pipe(output_type="latent", num_inference_steps=STEPS, **call).images
    pipe.scheduler = kept
    recording.inputs = inputs
    return recording


def assert_same_inputs(ours: dict[str, Any], stock: dict[str, Any], tolerance: float) -> None:
    assert ours.keys() == stock.keys()
    for name, expected in stock.items():
        if expected is None:
            assert ours[name] is None, name
            continue
        assert (ours[name].dtype, ours[name].shape) == (expected.dtype, expected.shape), name
        exact = name != "sample" or tolerance == 0
        if exact:
            assert torch.equal(ours[name], expected), name
        else:
            torch.testing.assert_close(ours[name], expected, rtol=tolerance, atol=tolerance)


# Euler divides by a float32 number, the table multiplies by its float64 inverse; all the rest is bit-exact
SCHEDULERS: dict[str, tuple[Callable[[], Any], float]] = {
    "DDIM": (tiny.ddim, 0.0),
    "EulerAncestral": (tiny.euler_ancestral, 1e-6),
    "LCM": (tiny.lcm_scheduler, 0.0),
}
PIPELINES: dict[str, Callable[..., Any]] = {
    "sd": tiny.sd,
    "sdxl": tiny.sdxl,
    "lcm": tiny.lcm,
    "sd, embedded guidance": lambda scheduler: tiny.sd(scheduler, unet=tiny.unet(time_cond_proj_dim=8)),
}


@pytest.mark.parametrize("guidance", [1.0, 4.5])
@pytest.mark.parametrize(
    ("kind", "scheduler"),
    [(kind, scheduler) for kind in PIPELINES for scheduler in SCHEDULERS if kind != "lcm" or scheduler == "LCM"],
)
def test_the_answers_are_those_of_the_stock_pipeline(kind: str, scheduler: str, guidance: float) -> None:
    make, tolerance = SCHEDULERS[scheduler]
    pipe = PIPELINES[kind](make())
    embedded = pipe.unet.config.time_cond_proj_dim is not None
    negatives = {} if embedded else {"negative_prompt": NEGATIVES}
    seed = torch.Generator().manual_seed(5)
    recording = record(pipe, prompt=PROMPTS, height=24, width=40, guidance_scale=guidance, generator=seed, **negatives)
    denoise = direct(pipe, PROMPTS, None if embedded else NEGATIVES, guidance, table_of(pipe))
    for step in range(STEPS):
        with Listening(pipe.unet) as inputs:
            m = denoise(Query(recording.latents[step], step))
        assert_same_inputs(inputs[0], recording.inputs[step], tolerance)
        assert m.dtype == torch.float32
        if tolerance == 0:
            assert torch.equal(m, recording.predictions[step])
        else:
            torch.testing.assert_close(m, recording.predictions[step], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_no_negative_prompt_is_the_pipelines_default(kind: str) -> None:
    pipe = PIPELINES[kind](tiny.ddim())
    recording = record(pipe, prompt=PROMPTS, height=24, width=40, guidance_scale=3.0)
    denoise = direct(pipe, PROMPTS, None, 3.0, table_of(pipe))
    assert torch.equal(denoise(Query(recording.latents[0], 0)), recording.predictions[0])
    empty = direct(pipe, PROMPTS, ["", ""], 3.0, table_of(pipe))(Query(recording.latents[0], 0))
    assert torch.equal(empty, recording.predictions[0]) == (kind == "sd")  # SDXL: zeros, not the empty prompt


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
@pytest.mark.parametrize("scheduler", ["DDIM", "EulerAncestral"])
def test_replay_through_the_driver_is_the_stock_pipelines_generation(kind: str, scheduler: str) -> None:
    pipe = PIPELINES[kind](SCHEDULERS[scheduler][0]())
    table = table_of(pipe)
    recording = record(
        pipe, prompt=PROMPTS, height=24, width=40, guidance_scale=3.0, generator=torch.Generator().manual_seed(5)
    )
    draws = torch.Generator().manual_seed(5)
    shape = recording.final.shape
    torch.randn(shape, generator=draws)  # the pipeline's initial latents come first
    noises = torch.stack([torch.randn(shape, generator=draws) for _ in range(STEPS)]) if table.stochastic else None
    denoise = direct(pipe, PROMPTS, None, 3.0, table)
    final = drive(replay(table, recording.latents[0], noises), denoise)
    largest = recording.latents[0].abs().max()
    torch.testing.assert_close(final / largest, recording.final / largest, rtol=0, atol=1e-5)


# ---------------------------------------------------------------- rows


class Witness(torch.nn.Module):
    """A network that answers every row with a number that tells which prompt the row met."""

    def __init__(self, xl: bool) -> None:
        super().__init__()
        self.config = FrozenDict(time_cond_proj_dim=None, addition_time_embed_dim=4, in_channels=4)
        self.dtype, self.device = torch.float32, torch.device("cpu")
        self.xl = xl
        self.add_embedding = SimpleNamespace(linear_1=SimpleNamespace(in_features=tiny.WIDTH + 6 * 4))
        self.rows = list[tuple[float, float]]()

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        timestep_cond: None = None,
        cross_attention_kwargs: None = None,
        added_cond_kwargs: Any = None,
        return_dict: bool = False,
    ) -> tuple[Tensor]:
        assert len(sample) == len(encoder_hidden_states)
        told = encoder_hidden_states[:, 1, 0]  # a mean would be that of a layer norm, which is 0
        if self.xl:
            assert len(sample) == len(added_cond_kwargs["text_embeds"]) == len(added_cond_kwargs["time_ids"])
            told = told + added_cond_kwargs["text_embeds"].mean(dim=1)
        # the latent's own number, so that rows of latents are seen to keep their order too
        self.rows += [(float(z.flatten()[0]), float(t)) for z, t in zip(sample, told, strict=True)]
        return (told.view(-1, 1, 1, 1).expand_as(sample),)


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("guidance", [1.0, 7.0])
def test_every_row_meets_its_own_prompts(kind: str, copies: int, guidance: float) -> None:
    prompts, negatives = ["cat", "dog", "a tree"], ["red", "green", "very blue"]
    pipe = PIPELINES[kind](tiny.ddim())
    table = table_of(pipe)
    pipe.unet = Witness(kind == "sdxl")

    def told(prompt: str) -> float:
        return float(direct(pipe, [prompt], None, 1.0, table)(Query(torch.zeros(1, 4, 6, 10), 0))[0, 0, 0, 0])

    c, u = [told(prompt) for prompt in prompts], [told(prompt) for prompt in negatives]
    assert len(set(c + u)) == 6
    pipe.unet.rows.clear()

    z = torch.arange(3.0 * copies).view(-1, 1, 1, 1).expand(-1, 4, 6, 10)
    m = direct(pipe, prompts, negatives, guidance, table)(Query(z, 0, (0,) * copies))
    assert m.shape == z.shape
    expected = [u[r % 3] + guidance * (c[r % 3] - u[r % 3]) if guidance > 1 else c[r % 3] for r in range(3 * copies)]
    torch.testing.assert_close(m[:, 0, 0, 0], torch.tensor(expected))
    groups = [u, c] if guidance > 1 else [c]
    met = [(float(r), pytest.approx(texts[r % 3], rel=1e-6, abs=1e-6)) for texts in groups for r in range(3 * copies)]
    assert pipe.unet.rows == met


@pytest.mark.parametrize("kind", ["sd", "sdxl", "lcm"])
def test_a_batch_is_its_latents_one_by_one_and_copies_are_alike(kind: str) -> None:
    pipe = PIPELINES[kind](tiny.lcm_scheduler())
    table = table_of(pipe)
    negatives = None if kind == "lcm" else NEGATIVES
    z = torch.randn(2, 4, 6, 10, generator=torch.Generator().manual_seed(0))
    denoise = direct(pipe, PROMPTS, negatives, 2.0, table)
    m = denoise(Query(z, 1))
    for row in range(2):
        alone = direct(pipe, PROMPTS[row : row + 1], negatives and negatives[row : row + 1], 2.0, table)
        torch.testing.assert_close(alone(Query(z[row : row + 1], 1))[0], m[row], rtol=1e-5, atol=1e-5)
    other = torch.randn(2, 4, 6, 10, generator=torch.Generator().manual_seed(1))
    both = denoise(Query(torch.cat([other, z]), 1, scenes=(0, 0)))
    torch.testing.assert_close(both[2:], m, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(both[:2], denoise(Query(other, 1)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["sd", "sdxl", "lcm"])
def test_the_network_does_not_see_images_that_nobody_waits_for(kind: str) -> None:
    pipe = PIPELINES[kind](tiny.lcm_scheduler())
    z = torch.randn(2, 4, 6, 10, generator=torch.Generator().manual_seed(0))
    denoise = direct(pipe, PROMPTS, None, 2.0, table_of(pipe))
    seen: list[int] = []
    hook = pipe.unet.register_forward_pre_hook(
        lambda _, positional, named: seen.append(len(named["sample"])), with_kwargs=True
    )
    whole = denoise(Query(z, 1))
    m = denoise(Query(z, 1, waiting=torch.tensor([False, True])))
    hook.remove()
    assert seen[0] == 2 * seen[1]
    torch.testing.assert_close(m[1], whole[1], rtol=1e-5, atol=1e-5)
    assert m[0].isnan().all()


# ---------------------------------------------------------------- precision and side effects


@pytest.mark.parametrize("kind", ["sd", "sdxl", "lcm"])
@pytest.mark.parametrize(
    ("network", "text", "answer"),
    [
        (torch.bfloat16, torch.bfloat16, torch.float32),
        (torch.float32, torch.bfloat16, torch.float32),
        (torch.bfloat16, torch.float32, torch.float32),
        (torch.float64, torch.float32, torch.float64),
    ],
)
def test_networks_and_text_encoders_of_other_precisions(
    kind: str, network: torch.dtype, text: torch.dtype, answer: torch.dtype
) -> None:
    pipe = PIPELINES[kind](tiny.lcm_scheduler())
    z = torch.randn(2, 4, 6, 10, generator=torch.Generator().manual_seed(0))
    exact = direct(pipe, PROMPTS, None, 2.0, table_of(pipe))(Query(z, 0))
    torch.nn.Module.to(pipe.unet, network)  # diffusers' own logs a warning
    for name in ("text_encoder", "text_encoder_2"):
        if hasattr(pipe, name):
            getattr(pipe, name).to(text)
    denoise = direct(pipe, PROMPTS, None, 2.0, table_of(pipe))
    with Listening(pipe.unet) as inputs:
        m = denoise(Query(z, 0))
    assert m.dtype == answer
    for name in ("sample", "encoder_hidden_states", "timestep_cond", "text_embeds"):
        assert inputs[0].get(name) is None or inputs[0][name].dtype == network, name
    coarse = torch.bfloat16 in (network, text)
    assert (m - exact).abs().max() < (0.2 if coarse else 1e-4) * exact.std()


def test_guidance_is_computed_in_float32_from_half_precision_answers() -> None:
    pipe = tiny.sd()
    torch.nn.Module.to(pipe.unet, torch.bfloat16)
    z = torch.randn(2, 4, 6, 10, generator=torch.Generator().manual_seed(0))
    m, c, u = (
        direct(pipe, prompts, NEGATIVES, guidance, table_of(pipe))(Query(z, 0))
        for prompts, guidance in ((PROMPTS, 5.0), (PROMPTS, 1.0), (NEGATIVES, 1.0))
    )
    torch.testing.assert_close(m, u + 5 * (c - u), rtol=0, atol=0.02)  # batch sizes differ: not bit-exact
    assert not torch.equal(m, m.bfloat16().float())


def test_nothing_is_changed_and_nothing_drawn() -> None:
    pipe = tiny.sdxl()
    table = table_of(pipe)
    z = torch.randn(2, 4, 6, 10)
    before, state, configuration = z.clone(), torch.random.get_rng_state(), dict(pipe.config)
    timesteps, attributes = pipe.scheduler.timesteps.clone(), set(vars(pipe))
    prompts = list(PROMPTS)
    denoise = direct(pipe, prompts, NEGATIVES, 2.0, table)
    prompts.reverse()  # the caller's list, not the driver's
    m = denoise(Query(z, 0))
    assert torch.equal(z, before)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert dict(pipe.config) == configuration
    assert set(vars(pipe)) == attributes
    assert torch.equal(pipe.scheduler.timesteps, timesteps)
    assert torch.equal(m, denoise(Query(z, 0)))


def test_prompts_are_encoded_once() -> None:
    pipe = tiny.sd()
    calls = list[int]()
    pipe.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    denoise = direct(pipe, PROMPTS, NEGATIVES, 2.0, table_of(pipe))
    encoded = len(calls)
    for step in range(STEPS):
        denoise(Query(torch.zeros(2, 4, 6, 10), step))
    assert len(calls) == encoded == 2


def test_prompts_may_be_tuples() -> None:
    pipe = tiny.sd()
    z = torch.randn(2, 4, 6, 10, generator=torch.Generator().manual_seed(0))
    listed = direct(pipe, PROMPTS, NEGATIVES, 2.0, table_of(pipe))(Query(z, 0))
    assert torch.equal(direct(pipe, tuple(PROMPTS), tuple(NEGATIVES), 2.0, table_of(pipe))(Query(z, 0)), listed)


# ---------------------------------------------------------------- refusals


def test_prompts_are_as_many_as_latents() -> None:
    pipe = tiny.sd()
    denoise = direct(pipe, ["a cat"], None, 1.0, table_of(pipe))
    with pytest.raises(ValueError, match="2 pictures and 1 prompts"):
        denoise(Query(torch.zeros(2, 4, 6, 10), 0))
    with pytest.raises(ValueError, match=r"1\.5 pictures and 1 prompts"):
        denoise(Query(torch.zeros(3, 4, 6, 10), 0, scenes=(0, 0)))


@pytest.mark.parametrize("kind", ["lcm", "sd, embedded guidance"])
def test_negative_prompts_where_none_can_work(kind: str) -> None:
    pipe = PIPELINES[kind](tiny.lcm_scheduler())
    with pytest.raises(ValueError, match=rf"{type(pipe).__name__} takes no negative prompt here: leave out 'ugly'"):
        direct(pipe, PROMPTS, ["", "ugly"], 4.0, table_of(pipe))
