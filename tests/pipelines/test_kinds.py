"""The kinds that came later, on tiny pipelines of the real classes: the truth is what the stock pipelines compute.

Each pipeline is built once, and so is each inversion that several tests look at; both are left as they are.  The tests
of `test_stand_in`, `test_direct` and so on run on the first nine kinds, which cover both drivers and all layouts.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import renoise
from renoise.core.loop import replay
from renoise.core.query import Job, Query
from renoise.pipelines.adapter import Adapter
from renoise.pipelines.families import FAMILIES, family
from renoise.pipelines.recorder import recorded
from renoise.pipelines.stand_in import Measure, through
from renoise.record import Scene
from tests.helpers import tiny, tiny_flow, tiny_transformers
from tests.helpers.kinds import (
    EDITING,
    GUIDED,
    KINDS,
    LATER,
    STARTS,
    another,
    call_keywords,
    conditions,
    count_of,
    embeddings,
    inverted,
    pictures,
    scene,
    settings,
    size_of,
)

LIKE_SD = {"sdxl img2img", "sdxl inpaint", "sdxl pag", "sdxl controlnet", "sdxl adapter"}  # the fast tests have those


def asked(*slow: str) -> list[Any]:
    """Each kind with guidance and without; those without, and of the kinds named, are among the slow tests."""
    return [
        pytest.param(
            name,
            guidance,
            id=f"{name}-{guidance}",
            marks=[pytest.mark.slow] if guidance == 1.0 or name in slow else [],
        )
        for name in LATER
        for guidance in (1.0, 2.5)
    ]


DIRECT = [name for name in LATER if name not in GUIDED]


@pytest.fixture(scope="module", autouse=True)
def _small_condition_pictures() -> Iterator[None]:
    with tiny_transformers.small_conditions():
        yield


@functools.cache
def made(name: str) -> Any:
    return LATER[name]()


# ---------------------------------------------------------------- what every kind has to do


@pytest.mark.parametrize(("name", "guidance"), asked())
def test_replay_is_the_stock_pipelines_generation(name: str, guidance: float) -> None:
    pipe = made(name)
    given = scene(pipe, guidance)
    prompts = given["prompt"] and tuple(given["prompt"])
    keywords = call_keywords(pipe, prompts, guidance, given["pipe_kwargs"], size_of(pipe))
    with recorded(pipe) as stock:  # some draw latents of a condition picture, as a call of ours does
        pipe(**keywords, generator=torch.Generator().manual_seed(0), output_type="latent")

    def begin(measure: Measure) -> Job[torch.Tensor]:
        table = measure()
        return Job(replay(table, stock.latents[0].float()), table, len(table))

    ours = through(pipe, begin, keywords)
    assert len(stock.results) == 3
    assert (ours - stock.results[-1]).abs().max() < 1e-5 * stock.results[-1].std().item()


@pytest.mark.parametrize(("name", "guidance"), asked(*LIKE_SD))
def test_renoising_reconstructs_also_from_a_file(name: str, guidance: float, tmp_path: Path) -> None:
    """On two short steps, which contract even for random networks."""
    pipe, errors = made(name), []
    for iterations in (0, 8):
        inversion = inverted(pipe, settings(20, iterations, guidance), strength=0.1, driver="pipeline")
        assert inversion.passes == 2 * (iterations + 1)
        assert inversion.pixels.shape[0] == count_of(pipe)
        inversion.save(tmp_path / "kept.safetensors")
        loaded = renoise.load(tmp_path / "kept.safetensors", pipe, pipe_kwargs=inversion.scene.pipe_kwargs)
        errors.append((loaded.regenerate(loaded.scene) - inversion.round_trip()).abs().max().item())
    assert torch.equal(loaded.latents, inversion.latents)
    assert errors[1] < 0.1 * errors[0]


@pytest.mark.parametrize("guidance", [pytest.param(1.0, marks=pytest.mark.slow), 2.5])
@pytest.mark.parametrize("name", DIRECT)
def test_both_drivers_give_the_same_bits(name: str, guidance: float) -> None:
    """On more passes than there are steps, since some loops count."""
    pipe, wanted = made(name), settings(2, 1, guidance)
    direct, through_pipe = (inverted(pipe, wanted, driver=driver) for driver in ("direct", "pipeline"))
    assert inverted(pipe, settings(2, 0, guidance)).record.driver == "direct"  # by itself
    assert torch.equal(direct.latents, through_pipe.latents)
    other = another(direct.scene) if count_of(pipe) > 1 else direct.scene
    assert torch.equal(direct.regenerate(other), through_pipe.regenerate(other))


def test_every_kind_is_tried() -> None:
    assert {family(made(name)) for name in LATER} | {family(make()) for make in KINDS.values()} == set(FAMILIES)


# ---------------------------------------------------------------- editing models


@pytest.mark.parametrize("name", EDITING)
def test_an_edit_may_show_another_condition_picture(name: str) -> None:
    """Both drivers agree about it; that of the inversion is kept where none is given."""
    pipe = made(name)
    others = {driver: inverted(pipe, settings(2, 1), driver=driver) for driver in ("direct", "pipeline")}
    words = {key: value.flip(-1) for key, value in embeddings(pipe).items() if value.is_floating_point()}
    extras = {"kept": {}, "changed": {"image": conditions(pipe, seed=1)["image"]}}
    made_by = {
        (driver, which): inversion.edit(pipe_kwargs=words | extra)
        for driver, inversion in others.items()
        for which, extra in extras.items()
    }
    bits = {key: [picture.tobytes() for picture in edited] for key, edited in made_by.items()}
    for which in ("kept", "changed"):
        assert bits["direct", which] == bits["pipeline", which]
    assert bits["direct", "kept"] != bits["direct", "changed"]
    assert others["direct"].scene.pipe_kwargs["image"] is not None


def test_flux2_klein_sees_references_too() -> None:
    pipe = tiny_flow.flux2()
    reference = {"image": [Image.new("RGB", (96, 64), "red")]}
    given = scene(pipe, 1.0)["pipe_kwargs"]
    with_it = [inverted(pipe, settings(2, 1), driver=d, pipe_kwargs=given | reference) for d in ("direct", "pipeline")]
    assert torch.equal(with_it[0].latents, with_it[1].latents)
    assert not torch.allclose(with_it[0].latents, inverted(pipe, settings(2, 1)).latents)


@pytest.mark.parametrize(
    ("name", "driver"), [("flux kontext", "direct"), ("flux kontext", "pipeline"), ("flux2 dev", "direct")]
)
def test_condition_pictures_of_two_scenes(name: str, driver: Any) -> None:
    """A query about two scenes is answered as if each were asked about alone."""
    pipe, size = made(name), size_of(made(name))
    first = Scene(None, None, 1.0, scene(pipe, 1.0)["pipe_kwargs"])
    second = Scene(None, None, 1.0, {**first.pipe_kwargs, **conditions(pipe, seed=1)})
    adapter = Adapter(pipe)
    calls = [adapter.call(which, 3, size) for which in (first, second)]
    z = inverted(pipe, settings(2, 0)).latents

    def ask(chosen: list[Any], scenes: tuple[int, ...]) -> torch.Tensor:
        def begin(measure: Measure) -> Job[Any]:
            def queries() -> Any:
                return ((yield Query(torch.cat([z] * len(scenes)), 1, scenes=scenes)),)

            return Job(queries(), measure(), 1)

        answer: torch.Tensor = adapter.run(begin, chosen, driver=driver, stage="ask")[0]
        return answer

    both = ask(calls, (0, 1)).chunk(2)
    for answer, call in zip(both, calls, strict=True):
        torch.testing.assert_close(answer, ask([call], (0,)), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(both[0], both[1])


def test_references_of_all_pictures_are_not_dealt_to_two_scenes() -> None:
    pipe = made("flux2 dev")
    given = scene(pipe, 1.0)["pipe_kwargs"]
    scenes = [Scene(None, None, 1.0, given), Scene(None, None, 1.0, {**given, **conditions(pipe, seed=1)})]
    adapter = Adapter(pipe)
    calls = [adapter.call(which, 3, size_of(pipe)) for which in scenes]
    with pytest.raises(ValueError, match=r"image differs between prompts .* or use driver='direct'"):
        adapter.run(lambda measure: pytest.fail("began"), calls, driver="pipeline", stage="ask")


# ---------------------------------------------------------------- the same networks with another start


@pytest.mark.parametrize("driver", ["direct", "pipeline"])
@pytest.mark.parametrize("name", ["sd img2img", "sdxl img2img", "sd inpaint", "sdxl inpaint"])
def test_another_start_changes_nothing(name: str, driver: str) -> None:
    """They are inverted as the pipeline that makes pictures from words with the same networks."""
    pipe = made(name)
    base = renoise_base(pipe)
    found = [inverted(which, settings(2, 1, 2.5), driver=driver) for which in (pipe, base)]
    assert torch.equal(found[0].latents, found[1].latents)
    with found[0].replaying() as keywords:
        stock = pipe(["a dog", "a cat"], **keywords, output_type="pt").images
    ours = found[0].regenerate(Scene(("a dog", "a cat"), None, 2.5, {}))
    torch.testing.assert_close(stock, ours, rtol=0, atol=1e-5)


def renoise_base(pipe: Any) -> Any:
    """The pipeline for words of the same components."""
    networks = {key: getattr(pipe, key) for key in ("unet", "vae", "text_encoder", "tokenizer")}
    if hasattr(pipe, "text_encoder_2"):
        return tiny.sdxl(pipe.scheduler, **networks, text_encoder_2=pipe.text_encoder_2)
    return tiny.sd(pipe.scheduler, **networks)


def test_an_ancestral_sampler_starts_from_a_picture_too() -> None:
    pipe = STARTS["sd img2img"](tiny.euler_ancestral())
    direct, through_pipe = (inverted(pipe, settings(3, 1), driver=driver) for driver in ("direct", "pipeline"))
    assert torch.equal(direct.latents, through_pipe.latents)


# ---------------------------------------------------------------- perturbed attention, adapters


def test_perturbed_attention_counts_and_leaves_the_network_alone() -> None:
    pipe = made("sd pag")
    before = {name: type(processor) for name, processor in pipe.unet.attn_processors.items()}
    weak, strong = (inverted(pipe, settings(2, 1), pipe_kwargs={"pag_scale": scale}).latents for scale in (0.0, 3.0))
    assert not torch.allclose(weak, strong)
    calls: list[int] = []

    def fail(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    hook = pipe.unet.register_forward_pre_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        inverted(pipe, settings(2, 1))
    hook.remove()
    assert {name: type(processor) for name, processor in pipe.unet.attn_processors.items()} == before


@pytest.mark.parametrize("name", ["sd adapter", "sdxl adapter"])
def test_an_adapter_takes_part_in_every_pass(name: str) -> None:
    pipe, seen = made(name), list[bool]()
    hook = pipe.unet.register_forward_pre_hook(
        lambda _, positional, named: seen.append(named["down_intrablock_additional_residuals"] is not None),
        with_kwargs=True,
    )
    inverted(pipe, settings(2, 2), pipe_kwargs=conditions(pipe) | {"adapter_conditioning_scale": 0.5})
    hook.remove()
    assert len(seen) == 7
    assert all(seen)


# ---------------------------------------------------------------- refusals


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("sd img2img", {"image": 0}, "image in pipe_kwargs: the picture that is inverted takes its place"),
    ("sdxl inpaint", {"mask_image": 0}, "mask_image in pipe_kwargs: the loop of this pipeline pastes the picture back"),
    ("flux kontext", {"max_area": 64}, r"max_area in pipe_kwargs: pass size="),
    (
        "sdxl adapter",
        {"image": 0, "adapter_conditioning_factor": 0.5},
        "adapter_conditioning_factor in pipe_kwargs counts",
    ),
    ("sd adapter", {"image": 0, "callback": print}, "callback in pipe_kwargs counts the rounds"),
    ("lumina2", {"cfg_trunc_ratio": 0.5}, "cfg_trunc_ratio in pipe_kwargs counts"),
    ("sd controlnet", {}, r"StableDiffusionControlNetPipeline needs image: pass pipe_kwargs=\{'image': ...\}"),
    ("sdxl controlnet union", {"control_image": [0]}, "needs control_mode"),
    ("qwen edit", {}, "QwenImageEditPipeline needs image"),
]


@pytest.mark.parametrize(
    ("name", "extra", "message"), REFUSED, ids=[f"{name}-{next(iter(k), '')}" for name, k, _ in REFUSED]
)
def test_what_cannot_work_is_named_before_any_network_runs(name: str, extra: dict[str, Any], message: str) -> None:
    pipe = made(name)
    words = {**scene(pipe, 1.0), "pipe_kwargs": {}}
    if words["prompt"] is None:
        words = scene(pipe, 1.0)
        words["pipe_kwargs"] = {k: v for k, v in words["pipe_kwargs"].items() if k not in conditions(pipe)}
    words["pipe_kwargs"] = words["pipe_kwargs"] | extra
    hook = pipe.vae.register_forward_pre_hook(lambda *_: pytest.fail("ran"))
    with pytest.raises(ValueError, match=message):
        inverted(pipe, settings(2, 0), **words)
    hook.remove()


def test_a_pipeline_of_one_picture_takes_no_batch() -> None:
    pipe = made("qwen edit plus")
    given = {
        key: torch.cat([value] * 2) if torch.is_tensor(value) else value
        for key, value in scene(pipe, 1.0)["pipe_kwargs"].items()
    }
    with pytest.raises(
        ValueError, match="makes one picture at a time, and this is a batch of 2: invert them one by one"
    ):
        renoise.invert(pipe, pictures(size_of(pipe)), size=size_of(pipe), pipe_kwargs=given)


def test_embeddings_of_the_second_text_encoder_are_missed() -> None:
    pipe = made("hunyuan")
    given = scene(pipe, 1.0)["pipe_kwargs"]
    for absent, message in (
        ("prompt_embeds_2", "prompt_embeds without prompt_embeds_2"),
        ("prompt_attention_mask_2", "prompt_embeds_2 without prompt_attention_mask_2"),
    ):
        with pytest.raises(ValueError, match=message):
            inverted(pipe, settings(2, 0), pipe_kwargs={key: value for key, value in given.items() if key != absent})
    with pytest.raises(ValueError, match="prompt_embeds_2 has the shape"):
        inverted(pipe, settings(2, 0), pipe_kwargs=given | {"prompt_embeds_2": given["prompt_embeds_2"][..., :3]})
