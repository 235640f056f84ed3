"""The sharpening stage: where it moves a student, that it goes on after a stop, and that diffusers loads its LoRA."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextModel

from tests.helpers import tiny
from training import rollouts, sharpen
from training.export import write_lora
from training.loop import Run
from training.rollouts import Prompts, level
from training.tokenizer import LENGTH

ROWS = [{"label": label, "style": style} for label in ("cat", "dog", "cat dog") for style in ("noto", "blob")]


def tiny_student(seed: int = 0) -> Any:
    return tiny.unet(seed).to(memory_format=torch.channels_last)


def randomised(student: Any) -> Any:
    """A student whose LoRA changes something, and is the same in 16 bit."""
    generator = torch.Generator().manual_seed(1)
    for p in student.parameters():
        if p.requires_grad:
            p.data.copy_((0.3 * torch.randn(p.shape, generator=generator)).half())
    return student


def predicted(unet: Any) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    z, states = (torch.randn(shape, generator=generator) for shape in ((2, 4, 8, 6), (2, 5, tiny.WIDTH)))
    with torch.no_grad():
        answer: Tensor = unet(z, torch.tensor([749, 20]), states).sample
    return answer


@pytest.mark.parametrize("shift", [0.5, 30.0])
def test_the_direction_leads_from_what_is_drawn_to_what_should_be(shift: float) -> None:
    """Two Gaussians of standard deviation 1 in each of 12 numbers, whose clean estimates are known in closed form."""
    generator = torch.Generator().manual_seed(0)
    wanted, drawn = torch.tensor([shift, -2 * shift, 0.0]), torch.zeros(3)
    mean = {name: value.view(1, 3, 1, 1) for name, value in (("real", wanted), ("fake", drawn))}
    clean = torch.randn(64, 3, 2, 2, generator=generator).requires_grad_()
    z, t, _ = sharpen.noised(clean.detach(), generator)
    alpha, sigma = level(t)
    believed = {name: m + alpha / (alpha**2 + sigma**2) * (z - alpha * m) for name, m in mean.items()}
    loss = sharpen.matching_loss(clean, believed["real"], believed["fake"])
    (gradient,) = torch.autograd.grad(loss, clean)
    assert torch.nn.functional.cosine_similarity(-gradient.mean((0, 2, 3)), wanted, dim=0) > 0.999
    assert (-(gradient * mean["real"]).sum((1, 2, 3)) > 0).all()  # of every picture, at every level


def test_the_direction_is_nothing_where_both_believe_the_same_and_does_not_depend_on_the_scale() -> None:
    clean, real, fake = torch.randn(3, 2, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    gradients: list[Tensor] = []
    for factor, other in ((1.0, fake), (100.0, fake), (1.0, real)):
        moved = (factor * clean).requires_grad_()
        gradients += torch.autograd.grad(sharpen.matching_loss(moved, factor * real, factor * other), moved)
    torch.testing.assert_close(gradients[1], gradients[0])
    assert not gradients[2].any()


def test_pictures_are_noised_to_the_levels_that_are_meant() -> None:
    clean = torch.ones(4_000, 1, 1, 2)
    z, t, noise = sharpen.noised(clean, torch.Generator().manual_seed(0))
    assert (int(t.min()), int(t.max())) == sharpen.NOISED
    alpha, sigma = level(t)
    torch.testing.assert_close((z - sigma * noise) / alpha, clean, atol=1e-4, rtol=0)


def test_the_lora_changes_nothing_at_first_and_is_all_that_learns() -> None:
    student = tiny_student()
    before = predicted(student)
    sharpen.add_lora(student, rank=3)
    torch.testing.assert_close(predicted(student), before, rtol=0, atol=0)
    assert {"lora" in name for name, p in student.named_parameters() if p.requires_grad} == {True}
    kinds = {name.split(".lora_")[0].split(".")[-1] for name, p in student.named_parameters() if p.requires_grad}
    assert {"conv_in", "conv1", "to_q", "linear_1", "conv_shortcut"} <= kinds


def test_diffusers_own_call_loads_the_lora_that_is_written(tmp_path: Path, offline: None) -> None:
    student = randomised(sharpen.add_lora(tiny_student(), rank=3))
    file = write_lora(student, tmp_path)
    assert {value.dtype for value in load_file(file).values()} == {torch.float16}
    assert len(load_file(file)) == len(get_peft_model_state_dict(student))
    pipe = tiny.sd(unet=tiny_student())
    base = predicted(pipe.unet)
    pipe.load_lora_weights(tmp_path)
    pipe.unet.float()
    torch.testing.assert_close(predicted(pipe.unet), predicted(student), rtol=0, atol=1e-5)
    assert (predicted(pipe.unet) - base).abs().max() > 0.1
    pipe.unload_lora_weights()
    torch.testing.assert_close(predicted(pipe.unet), base, rtol=0, atol=0)


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(
    tmp_path: Path, signals: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four steps, in the first of which the fake learns alone; stopped by a signal after the second."""
    config = tiny.text_config()
    config.max_position_embeddings = LENGTH
    with tiny.seeded(1):
        text = CLIPTextModel(config).eval().requires_grad_(False)
    prompts = Prompts(ROWS, text, tiny.tokenizer())

    def go(folder: str) -> Any:
        with tiny.seeded(3):  # the first weights of a LoRA
            student = sharpen.add_lora(tiny_student(), rank=2)
        run = Run(tmp_path / folder, images=12, batch=3, learning_rate=1e-2, warmup=2, average=0.98, weight_decay=0.0)
        teacher = tiny.unet(4).requires_grad_(False).to(memory_format=torch.channels_last)
        sharpen.sharpen(run, student, teacher, prompts, guidance=4.0, alone=1)
        return student

    at_once = go("whole")

    def stopping(student: Any, prompts: Prompts, step: int, shape: tuple[int, int, int, int]) -> Any:
        if step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return rollouts.reached(student, prompts, step, shape)

    monkeypatch.setattr(sharpen, "reached", stopping)
    with pytest.raises(SystemExit, match="stopped after 2 of 4 steps"):
        go("halved")
    monkeypatch.setattr(sharpen, "reached", rollouts.reached)
    resumed = go("halved")

    one, other = (load_file(tmp_path / folder / "checkpoint.safetensors") for folder in ("whole", "halved"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(predicted(at_once), predicted(resumed))
    assert (predicted(resumed) - predicted(tiny_student())).abs().max() > 1e-3
    assert any(name.startswith("companion.first.fake.") for name in one)


def test_a_lora_is_not_trained_on_upon_another_student(tmp_path: Path) -> None:
    sharpen.check_base(tmp_path, tiny_student())
    sharpen.check_base(tmp_path, tiny_student())
    with pytest.raises(SystemExit, match="was begun on another emoji-turbo"):
        sharpen.check_base(tmp_path, tiny_student(seed=1))
