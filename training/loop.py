"""The one training loop of all stages: AdamW, warm-up and decay, moving average, checkpoints, log.

A stage hands over its modules and a function that returns the loss of one batch. Everything that is needed
to go on (weights, their moving average, both moments of AdamW, the step) lies in one safetensors file, written to
a temporary name and renamed, so a run can be stopped at any time and the same command resumes it. Where a second
network learns beside them (a `Companion`), its weights and moments lie in the same file.
"""

import ctypes
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm


def cosine(share: float) -> float:
    """The learning rate after a share of the run, as a part of its peak."""
    return 0.5 * (1 + math.cos(math.pi * share))


def late_linear(share: float) -> float:
    """The peak for half of the run, then falling in a straight line."""
    return min(1.0, 2 * (1 - share))


@dataclass(frozen=True)
class Run:
    """Length and step sizes of a stage. ``images`` counts pictures seen, over all sessions."""

    folder: Path
    images: int
    batch: int
    learning_rate: float
    warmup: int = 200
    average: float = 0.999
    weight_decay: float = 0.01
    clip: float = 1.0
    decay: Callable[[float], float] = cosine
    checkpoint_seconds: float = 120.0


@dataclass(frozen=True)
class Companion:
    """Modules that learn beside those of a stage, one step after each of theirs.

    They warm up as these do, and then their rate stays: AdamW's first steps at the full rate would undo what they know.

    ``loss_of(step)`` is called when the stage's own loss of that step has been minimised. Its "loss" is minimised by
    the modules; all its terms go to the log.
    """

    modules: nn.ModuleDict
    loss_of: Callable[[int], dict[str, Tensor]]
    learning_rate: float


def keep_memory() -> None:
    """Tells glibc to keep freed memory, in one arena: returning it costs a third of a training step in page faults."""
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return
    for option, value in ((-3, 1 << 30), (-1, (1 << 31) - 1), (-2, 64 << 20), (-8, 1)):
        libc.mallopt(option, value)


DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def fast_precision() -> Iterator[None]:
    """Autocast to bfloat16 on a GPU or where the processor computes in it; else it is emulated, 500 times slower.

    Attention in plain products is faster in bfloat16 (17 to 30 %), the fused kernel in float32 (6 %).
    """
    if DEVICE.type == "cuda":
        with torch.autocast("cuda", torch.bfloat16):
            yield
        return
    if not torch.cpu._is_avx512_bf16_supported():
        yield
        return
    with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        yield


def save_checkpoint(path: Path, tensors: dict[str, Tensor], step: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    save_file({name: value.detach().contiguous() for name, value in tensors.items()}, part, {"step": str(step)})
    os.replace(part, path)


def load_average(path: Path, modules: nn.Module) -> int:
    """Loads the averaged weights of a checkpoint into the modules; returns its step."""
    with safe_open(path, "pt") as file:
        names = [name for name in file.keys() if name.startswith("average.")]  # noqa: SIM118 - no mapping
        state = {name.removeprefix("average."): file.get_tensor(name) for name in names}
        step = int(file.metadata()["step"])
    modules.load_state_dict(state, strict=False)
    return step


class Learner:
    """Parameters that require a gradient, and the AdamW that moves them."""

    def __init__(self, modules: nn.ModuleDict, rate: float, weight_decay: float) -> None:
        self.named = {name: p for name, p in modules.named_parameters() if p.requires_grad}
        decayed = [p for p in self.named.values() if p.ndim > 1]
        plain = [p for p in self.named.values() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, rate, betas=(0.9, 0.99), fused=True)

    def set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def learn(self, loss: Tensor, clip: float) -> None:
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(self.named.values()), clip)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """Weights and moments by their names in a checkpoint."""
        state = self.optimizer.state
        return {
            f"{prefix}{kind}.{name}": value
            for name, p in self.named.items()
            for kind, value in [
                ("model", p),
                *([("first", state[p]["exp_avg"]), ("second", state[p]["exp_avg_sq"])] if p in state else []),
            ]
        }

    def restore(self, file: Any, prefix: str, step: int) -> None:
        """Moments get the layout of their weight: the fused AdamW of a CPU takes numbers as they lie in memory."""
        for name, p in self.named.items():
            p.data.copy_(file.get_tensor(f"{prefix}model.{name}"))
            self.optimizer.state[p] = {
                "step": torch.tensor(float(step)),
                "exp_avg": torch.empty_like(p.data).copy_(file.get_tensor(f"{prefix}first.{name}")),
                "exp_avg_sq": torch.empty_like(p.data).copy_(file.get_tensor(f"{prefix}second.{name}")),
            }


def train(
    run: Run,
    modules: nn.ModuleDict,
    loss_of: Callable[[int], dict[str, Tensor]],
    evaluate: Callable[[], dict[str, float]] | None = None,
    companion: Companion | None = None,
) -> None:
    """Trains the parameters of ``modules`` that require a gradient and leaves their moving average in them.

    ``loss_of(step)`` returns named terms; "loss" is the one that is minimised. Seeded by the step, a resumed run
    sees the same batches as one that was never stopped.
    """
    keep_memory()
    learners = {"": Learner(modules, run.learning_rate, run.weight_decay)}
    if companion:
        learners["companion."] = Learner(companion.modules, companion.learning_rate, 0.0)
    named = learners[""].named
    average = {name: p.detach().clone() for name, p in named.items()}
    path = run.folder / "checkpoint.safetensors"
    step = 0
    if path.exists():
        with safe_open(path, "pt") as file:
            step = int(file.metadata()["step"])
            for prefix, learner in learners.items():
                learner.restore(file, prefix, step)
            for name, value in average.items():
                value.copy_(file.get_tensor(f"average.{name}"))

    def save() -> None:
        tensors = {f"average.{name}": value for name, value in average.items()}
        for prefix, learner in learners.items():
            tensors |= learner.tensors(prefix)
        save_checkpoint(path, tensors, step)

    stop = False

    def ask_to_stop(*_: object) -> None:
        nonlocal stop
        stop = True

    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGINT, ask_to_stop)
    total = math.ceil(run.images / run.batch)
    run.folder.mkdir(parents=True, exist_ok=True)
    log = (run.folder / "log.jsonl").open("a")
    saved = noted = time.monotonic()
    sums: dict[str, float] = {}
    count = 0
    with tqdm(total=total, initial=step, desc=run.folder.name, mininterval=10) as bar:
        while step < total and not stop:
            warm = min(1.0, (step + 1) / run.warmup)
            learners[""].set_rate(run.learning_rate * (warm * run.decay(step / total) + 1e-3))
            terms = loss_of(step)
            learners[""].learn(terms["loss"], run.clip)
            if companion:
                beside = companion.loss_of(step)
                learners["companion."].set_rate(companion.learning_rate * warm)
                learners["companion."].learn(beside["loss"], run.clip)
                terms |= {f"companion_{name}": value for name, value in beside.items()}
            step += 1
            decay = min(run.average, (1 + step) / (10 + step))
            torch._foreach_lerp_(list(average.values()), [p.detach() for p in named.values()], 1 - decay)
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
            count += 1
            bar.update()
            now = time.monotonic()
            if now - noted > 30 or step == total:
                means = {name: round(value / count, 5) for name, value in sums.items()}
                log.write(
                    json.dumps(
                        {
                            "step": step,
                            "images": step * run.batch,
                            "per_second": round(count * run.batch / (now - noted), 1),
                            **means,
                        }
                    )
                    + "\n"
                )
                log.flush()
                sums, count, noted = {}, 0, now
            if now - saved > run.checkpoint_seconds:
                save()
                saved = time.monotonic()
    save()
    if stop:
        log.close()
        sys.exit(f"stopped after {step} of {total} steps; the same command goes on from {path}")
    for name, p in named.items():
        p.data.copy_(average[name])
    if evaluate is not None:
        scores = evaluate()
        log.write(json.dumps({"step": step, **scores}) + "\n")
        print(scores)
    log.close()
