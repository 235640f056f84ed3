"""Inversions of ComfyUI's latents: found, replayed by stock samplers, edited, kept in files."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from comfyui import archive, edit, report, stock
from comfyui.answers import answered
from comfyui.inversion import Inversion, invert
from renoise import ArchiveError
from renoise.core.query import Job, Query
from renoise.edit_controls import words
from tests.helpers import comfy_stub as stub

SOURCE: Any = ([(1, {})], None)
TARGET: Any = ([(2, {})], None)
PLAIN = words(None, None, 0.0, 0.0, 0)
LEVELS = {"noise": [14.6, 4.0, 1.5, 0.7, 0.0], "flow": [1.0, 0.9, 0.75, 0.5, 0.0]}


def latent(batch: int = 2, seed: int = 0) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {"samples": torch.randn(batch, 4, 5, 7, generator=draw) * 2}


def found(kind: str = "noise", sampler: str = "euler_ancestral", **given: Any) -> tuple[stub.Model, Inversion]:
    model = stub.Model(kind)
    options: dict[str, Any] = {"latent": latent(), "sigmas": torch.tensor(LEVELS[kind]), "scene": SOURCE} | given
    made = invert(
        model,
        options.pop("scene"),
        options.pop("latent"),
        stub.ksampler(sampler),
        options.pop("sigmas"),
        disable_pbar=True,
        **options,
    )
    return model, made


def stock_replay(model: stub.Model, inversion: Inversion, samples: Tensor, prompt: int = 1) -> Tensor:
    guider = stub.CFGGuider(model)
    guider.set_conds([(prompt, {})], None)
    noise = stock.ReplayNoise(inversion).generate_noise({"samples": samples})
    return guider.sample(noise, samples, stock.replay_sampler(inversion), inversion.sigmas)


@pytest.mark.parametrize("kind", ["noise", "flow"])
@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "lcm"])
def test_an_inversion_comes_back_by_our_replay_and_by_the_stock_sampler(kind: str, sampler: str) -> None:
    model, inversion = found(kind, sampler)
    ours = edit.reconstruct(model, inversion, disable_pbar=True).samples
    assert bool((report.latent_decibels(inversion, ours) > 35).all())
    for samples in (latent()["samples"], torch.zeros(2, 4, 5, 7)):
        torch.testing.assert_close(stock_replay(model, inversion, samples), ours, rtol=1e-5, atol=1e-5)


def test_the_rescaled_end_of_a_schedule_with_zero_terminal_snr() -> None:
    model = stub.Model(sigma_max=4518.76)
    sigmas = torch.tensor([4518.76, 5.4, 1.8, 0.7, 0.0])
    for sampler in ("euler", "euler_ancestral", "lcm"):
        inversion = invert(model, SOURCE, latent(), stub.ksampler(sampler), sigmas, disable_pbar=True)
        ours = edit.reconstruct(model, inversion, disable_pbar=True).samples
        assert bool((report.latent_decibels(inversion, ours) > 35).all())


def test_a_batch_equals_its_pictures_one_by_one() -> None:
    _, both = found()
    for number in range(2):
        _, one = found(latent={"samples": latent()["samples"][number : number + 1]})
        torch.testing.assert_close(one.trajectory.z_T, both.trajectory.z_T[number : number + 1])


def test_a_film_of_one_frame_is_inverted_as_the_picture_that_it_is() -> None:
    _, flat = found()
    model, film = found(latent={"samples": latent()["samples"].unsqueeze(2)})
    torch.testing.assert_close(film.trajectory.z_T, flat.trajectory.z_T)
    assert edit.reconstruct(model, film, disable_pbar=True).samples.shape == (2, 4, 1, 5, 7)
    assert stock.ReplayNoise(film).generate_noise({"samples": film.samples}).shape == (2, 4, 1, 5, 7)


def test_passes_are_those_asked_for_and_every_one_is_told() -> None:
    told: list[tuple[int, int]] = []

    def prepare(passes: int) -> Any:
        return lambda step, clean, x, total: told.append((step, total))

    _, inversion = found(passes=7, prepare=prepare)
    assert inversion.trajectory.passes == len(stub.State.asked) == 7
    assert told == [(step, 7) for step in range(7)]


def test_every_block_of_a_query_is_asked_of_its_own_scene() -> None:
    model = stub.Model()
    guiders = [stub.CFGGuider(model) for _ in range(2)]
    for number, guider in enumerate(guiders, start=1):
        guider.set_conds([(number, {})], None)
    table = found()[1].table
    points = torch.randn(6, 4, 5, 7, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def ask() -> Generator[Query, Tensor, Tensor]:
        m = yield Query(points, 1, scenes=(0, 1, 0))
        return m

    sigma = table.sigma[1]
    m = answered(
        guiders, latent()["samples"], torch.tensor(LEVELS["noise"]), lambda z: Job(ask(), table, 3), disable_pbar=True
    )
    for block, prompt in enumerate((1, 2, 1)):
        z = points[2 * block : 2 * block + 2]
        clean = model.clean(z.float(), sigma.float() * torch.ones(2), prompt).double()
        torch.testing.assert_close(m[2 * block : 2 * block + 2], (z - clean) / float(sigma), rtol=1e-6, atol=1e-6)


def test_cancel_stops_before_the_next_pass() -> None:
    stub.State.cancel_after = 3
    with pytest.raises(stub.Interrupted):
        found()
    assert len(stub.State.asked) == 3


def test_guidance_needs_a_negative_conditioning_and_asks_it() -> None:
    with pytest.raises(ValueError, match="needs a negative conditioning"):
        found(cfg=2.0)
    _, guided = found(cfg=2.0, scene=([(1, {})], [(3, {})]))
    assert not torch.equal(guided.trajectory.z_T, found()[1].trajectory.z_T)
    with pytest.raises(ValueError, match="below 1"):
        found(cfg=0.5)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"latent": {"samples": torch.zeros(1, 4, 5, 7)}}, "latent is empty.*VAE Encode"),
        ({"latent": {"samples": torch.ones(1, 16, 5, 7)}}, "16 channels and the model takes 4"),
        ({"passes": 3}, "passes=3 for 4 steps"),
        ({"preset": "best"}, "preset='best'"),
    ],
)
def test_what_cannot_be_inverted_is_refused_before_the_model_is_asked(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        found(**given)
    assert not stub.State.asked


def test_a_plain_edit_is_the_stock_replay_under_the_other_prompt() -> None:
    model, inversion = found()
    made = edit.edit(model, inversion, TARGET, PLAIN, edit.MaskWords(), disable_pbar=True)
    again = stock_replay(model, inversion, inversion.samples, prompt=2)
    torch.testing.assert_close(made.samples, again, rtol=1e-5, atol=1e-5)
    assert made.passes == 4
    assert (made.samples - inversion.samples).square().mean() > 0.1


def test_a_mask_keeps_what_is_beyond_it_and_an_automatic_one_is_found() -> None:
    model, inversion = found()
    mask = torch.zeros(1, 40, 56)
    mask[..., :24] = 1  # three columns of latents
    made = edit.edit(model, inversion, TARGET, PLAIN, edit.MaskWords(mask), disable_pbar=True)
    change = (made.samples - inversion.samples).abs()
    assert change[..., 3:].max() < 1e-5 < change[..., :3].max()
    noted = replace(inversion, mask=mask)
    torch.testing.assert_close(
        edit.edit(model, noted, TARGET, PLAIN, edit.MaskWords(), disable_pbar=True).samples, made.samples
    )
    auto = edit.edit(model, inversion, TARGET, PLAIN, edit.MaskWords(auto=True), disable_pbar=True)
    assert auto.mask.shape == (2, 40, 56)
    assert auto.passes == 8
    with pytest.raises(ValueError, match="black everywhere"):
        edit.edit(model, inversion, TARGET, PLAIN, edit.MaskWords(torch.zeros(1, 9, 9)), disable_pbar=True)
    with pytest.raises(ValueError, match="3 masks for 2 pictures"):
        edit.edit(model, inversion, TARGET, PLAIN, edit.MaskWords(torch.ones(3, 9, 9)), disable_pbar=True)


def test_strength_edits_the_last_steps_only() -> None:
    model, inversion = found()
    stub.State.asked = []
    weak = words(None, 0.5, 0.0, 0.0, 0)
    edit.edit(model, inversion, TARGET, weak, edit.MaskWords(), disable_pbar=True)
    assert [level for _, level, _ in stub.State.asked] == pytest.approx([1.5, 0.7])


def test_guidance_away_from_the_source_asks_both_prompts_at_the_same_levels() -> None:
    model, inversion = found()
    stub.State.asked = []
    away = words(None, None, 1.0, 0.0, 0)
    made = edit.edit(model, inversion, TARGET, away, edit.MaskWords(), disable_pbar=True)
    assert made.passes == len(stub.State.asked)
    prompts = {prompt: [level for one, level, _ in stub.State.asked if one == prompt] for prompt in (1, 2)}
    assert prompts[1] == prompts[2][1:]  # at the first step both latents are the same, and the source's is known
    plain = edit.edit(model, inversion, TARGET, PLAIN, edit.MaskWords(), disable_pbar=True)
    far, near = ((one.samples - inversion.samples).square().mean() for one in (made, plain))
    assert far > near


def test_a_gate_brings_the_guidance_that_goes_with_it() -> None:
    model, inversion = found()
    asked = words(0.6, None, None, 0.0, 0)
    made = edit.edit(model, inversion, TARGET, asked, edit.MaskWords(), disable_pbar=True)
    same = edit.edit(model, inversion, TARGET, words(0.6, None, 1.0, 0.0, 0), edit.MaskWords(), disable_pbar=True)
    assert torch.equal(made.samples, same.samples)
    assert made.passes == 7  # one for each of four steps, and one more for each but the first


def test_fresh_noise_depends_on_its_seed_alone() -> None:
    model, inversion = found()
    one, same, other = (
        edit.edit(model, inversion, TARGET, words(None, None, 0.0, 0.5, seed), edit.MaskWords(), disable_pbar=True)
        for seed in (1, 1, 2)
    )
    assert torch.equal(one.samples, same.samples)
    assert not torch.equal(one.samples, other.samples)


def test_another_kind_of_model_is_refused() -> None:
    _, inversion = found()
    for model, reason in (
        (stub.Model("flow"), "prediction is flow, not noise"),
        (stub.Model(sigma_max=80.0), "noise levels end at 80, not 14.6"),
    ):
        with pytest.raises(ValueError, match=reason):
            edit.reconstruct(model, inversion, disable_pbar=True)


def test_the_stock_sampler_refuses_other_latents_and_other_sigmas() -> None:
    _, inversion = found()
    noise = stock.ReplayNoise(inversion)
    with pytest.raises(ValueError, match="another picture"):
        noise.generate_noise(latent(seed=1))
    with pytest.raises(ValueError, match="size and batch"):
        noise.generate_noise(latent(batch=1))
    sampler = stock.replay_sampler(inversion)
    with pytest.raises(ValueError, match="sigma=9 is no noise level"):
        sampler.extra_options["noise_sampler"](torch.tensor(9.0), torch.tensor(1.0))


def test_a_file_gives_back_every_bit(tmp_path: Path) -> None:
    model, inversion = found("flow", latent=latent() | {"noise_mask": torch.ones(1, 5, 7)})
    archive.save(inversion, tmp_path / "a" / "x.safetensors")
    loaded = archive.load(tmp_path / "a" / "x.safetensors")
    assert archive.dumps(loaded) == archive.dumps(inversion)
    assert loaded.source is None
    assert loaded.settings == inversion.settings
    assert loaded.table.difference(inversion.table) is None
    again = edit.reconstruct(model, loaded, SOURCE, disable_pbar=True).samples
    assert torch.equal(again, edit.reconstruct(model, inversion, disable_pbar=True).samples)
    with pytest.raises(ValueError, match="wire source"):
        edit.edit(model, loaded, TARGET, words(None, None, 1.0, 0.0, 0), edit.MaskWords(), disable_pbar=True)


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    data = bytearray(archive.dumps(found()[1]))
    data[-5] ^= 1
    with pytest.raises(ArchiveError, match="damaged"):
        archive.loads(bytes(data))
    for cut in (0, 7, 100, len(data) - 9):
        with pytest.raises(ArchiveError):
            archive.loads(bytes(data[:cut]))
    with pytest.raises(ArchiveError, match="another program"):
        archive.loads(save({"x": torch.ones(1)}))
    with pytest.raises(ArchiveError, match="diffusers pipeline"):
        archive.loads(save({"x": torch.ones(1)}, {"renoise": "{}"}))
    with pytest.raises(ArchiveError, match="does not exist"):
        archive.load(tmp_path / "none")


def test_the_report_tells_steps_noise_and_decibels() -> None:
    model, inversion = found()
    ours = edit.reconstruct(model, inversion, disable_pbar=True).samples
    told = report.text(inversion, ours, torch.tensor([40.0, 41.0]))
    assert "16 network passes" in told
    assert "40.0, 41.0 dB" in told
    assert len(told.splitlines()) == 11
    assert report.picture(inversion).width == 640
    pixels = torch.rand(2, 16, 16, 3)
    picture, decibels = report.panels(pixels, pixels * 0.9)
    assert picture.width > 500
    assert decibels.shape == (2,)
    with pytest.raises(ValueError, match="wire the latent"):
        report.text(inversion, ours[:1])


def test_start_is_that_of_the_stock_sampler() -> None:
    full, half = found()[1], found(sigmas=torch.tensor([1.5, 0.7, 0.0]))[1]
    assert full.start == pytest.approx((float((1 + torch.tensor(14.6) ** 2).sqrt()), 1.0))
    assert half.start == pytest.approx((1.5, 1.0))
    assert found("flow")[1].start == pytest.approx((1.0, 0.0))


def test_models_are_described_by_their_kind() -> None:
    from comfyui.inversion import described

    assert described(stub.Model("flow")).prediction == "flow"
    assert described(stub.Model()).prediction == "noise"
    other = stub.Model()
    other.levels = SimpleNamespace(sigma_max=14.6)  # type: ignore[assignment]
    assert described(other).prediction == "other"
