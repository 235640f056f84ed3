"""The checks.  Every one runs through ComfyUI's HTTP API and its own executor."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import renoise
from comfyui.proof import graphs
from comfyui.proof.graphs import Graph
from comfyui.proof.server import Failed, Server
from renoise import metrics

__all__ = ["CHECKS", "PICTURES", "Results"]

SOURCE, TARGET = "red apple, blob style", "green apple, blob style"
PICTURES = ("apple.png", "mirrored.png", "turned.png", "pale.png")
CLOSE = 1e-5  # largest difference of two replays over the largest value of their latents
ROUGH = 2e-4  # the same where sigma is 4,500: ComfyUI's sampler adds numbers of that size in float32 (4,500 / 2^24)
SAME = 0.1  # dB


@dataclass
class Results:
    """What was checked, with what came out and whether it is as it must be."""

    rows: list[tuple[str, str, bool]] = field(default_factory=list)

    def add(self, what: str, found: str, good: bool) -> None:
        """One line, shown at once."""
        found = " ".join(found.split())
        self.rows.append((what, found, good))
        print(f"{'ok  ' if good else 'FAIL'} {what}: {found}", flush=True)

    def section(self, title: str, versions: str) -> str:
        """All lines as a section of a page."""
        lines = [f"## {title}", "", versions, "", "| what | found | |", "|---|---|---|"]
        lines += [f"| {what} | {found} | {'as it must be' if good else '**not**'} |" for what, found, good in self.rows]
        return "\n".join(lines) + "\n"


def distance(a: Tensor, b: Tensor) -> float:
    """Largest difference over the largest value."""
    return ((a - b).abs().max() / a.abs().max()).item()


def decibels(a: Tensor, wanted: Tensor) -> str:
    """Mean PSNR of latents, whose range counts as the peak."""
    peak = wanted.flatten(1).amax(1) - wanted.flatten(1).amin(1)
    return f"{(10 * torch.log10(peak**2 / (a - wanted).square().flatten(1).mean(1))).mean().item():.1f} dB"


def check_package(server: Server, results: Results) -> None:
    """The shipped model: ComfyUI's reconstruction against the package's own, and stock replays, in one batch."""
    pictures = [server.base / "input" / name for name in PICTURES]
    for sampler, scheduler, kwargs in (
        ("euler_ancestral", None, {}),
        ("lcm", "LCMScheduler", {"timesteps": [999, 749, 499, 249]}),  # the levels of ComfyUI's "simple" schedule
    ):
        pipe = renoise.models.load("emoji-turbo", scheduler=scheduler)
        pipe.set_progress_bar_config(disable=True)
        for preset in ("few-step", "fast"):
            own = renoise.invert(pipe, list(pictures), SOURCE, preset=preset, num_inference_steps=4, pipe_kwargs=kwargs)
            ceiling = own.round_trip()
            theirs = metrics.psnr(own.regenerate(own.scene), ceiling)
            graph = Graph()
            of = graphs.emoji(graph, list(PICTURES), SOURCE, sampler_name=sampler, preset=preset)
            empty = graph.add("EmptyLatentImage", width=128, height=128, batch_size=len(PICTURES))
            again = graphs.edited(graph, of, None)
            stock, from_empty = graphs.replays(graph, of), graphs.replays(graph, of, empty)
            found = server.latents(graph, ours=again, stock=stock, empty=from_empty, went_in=of["latent"])
            ours = metrics.psnr(_decode(pipe, found["ours"]), ceiling)
            worst = (ours - theirs).abs().max().item()
            what = f"emoji-turbo, {sampler}, preset {preset}, {len(PICTURES)} pictures in a batch"
            results.add(
                f"{what}: dB to the round trip, ComfyUI against the package",
                f"{ours.mean():.3f} against {theirs.mean():.3f}, furthest apart {worst:.4f}",
                worst < SAME,
            )
            far = max(distance(found["ours"], found[name]) for name in ("stock", "empty"))
            results.add(f"{what}: SamplerCustomAdvanced against our replay", f"{far:.1e}", far < CLOSE)


def _decode(pipe: Any, latents: Tensor) -> Tensor:
    with torch.no_grad():
        pixels = pipe.vae.decode(latents, return_dict=False)[0]
    wanted: Tensor = (pixels * 0.5 + 0.5).clamp(0, 1)
    return wanted


def check_tiny(server: Server, results: Results) -> None:
    """Random weights of other kinds: reconstruction, and stock replay against ours, batch of 2 of 64 x 96 pixels."""
    cases: list[tuple[str, tuple[str, ...], dict[str, Any]]] = [
        (kind, (), {"sampler_name": name})
        for kind in ("tiny-sd", "tiny-sd3")
        for name in ("euler", "ddim", "euler_ancestral", "lcm", "ddpm")
    ]
    cases += [
        ("tiny-sd", ("v, zero terminal SNR",), {"sampler_name": name}) for name in ("euler", "euler_ancestral", "lcm")
    ]
    cases += [
        ("tiny-sd", (), {"steps": 20, "scheduler": "karras"}),
        ("tiny-sd", (), {"cfg": 2.0, "sampler_name": "euler_ancestral"}),
        ("tiny-sd", (), {"denoise": 0.5, "steps": 6}),
        ("tiny-sd3", (), {"steps": 20}),
        ("tiny-sd3", (), {"cfg": 2.0}),
        ("tiny-sd", ("LoRA",), {"sampler_name": "euler_ancestral"}),
        ("tiny-sd", ("ControlNet",), {"sampler_name": "euler_ancestral", "cfg": 2.0}),
        ("tiny-sd", ("attention patch",), {"sampler_name": "euler_ancestral"}),
    ]
    plain: Tensor | None = None
    for kind, patches, words in cases:
        graph = Graph()
        of = graphs.tiny(graph, kind, patches=patches, **words)
        again = graphs.edited(graph, of, None)
        cfg = words.get("cfg", 1.0)
        stock = graphs.replays(graph, of, negative=of["negative"], cfg=cfg)
        noise = graph.add("RandomNoise", noise_seed=5)
        sampler = graph.add("RenoiseReplaySampler", inversion=of["inversion"])
        guider = graph.add("BasicGuider", model=of["model"], conditioning=of["positive"])
        drawn = graph.add(
            "SamplerCustomAdvanced",
            noise=noise,
            guider=guider,
            sampler=sampler.out(0),
            sigmas=sampler.out(1),
            latent_image=of["latent"],
        )
        found = server.latents(graph, ours=again, stock=stock, went_in=of["latent"], drawn=drawn)
        far, ours = distance(found["went_in"], found["ours"]), found["ours"]
        what = f"{kind}, {', '.join([*patches, *(f'{key} {value}' for key, value in words.items())])}"
        close = distance(found["ours"], found["stock"])
        results.add(
            what,
            f"reconstructed to {decibels(ours, found['went_in'])}; stock sampler against our replay {close:.1e}",
            close < (ROUGH if "zero terminal SNR" in what else CLOSE) and far < 1,
        )
        if (kind, patches, words) == ("tiny-sd", (), {"sampler_name": "euler_ancestral"}):
            plain = found["drawn"]
        if patches and patches[0] in ("LoRA", "ControlNet", "attention patch"):
            assert plain is not None
            changed = distance(plain, found["drawn"])
            results.add(f"{what}: what it draws from noise differs without", f"by {changed:.2f}", changed > 0.01)


def check_edits(server: Server, results: Results) -> None:
    """Edits on the shipped model: what each control must do."""
    graph = Graph()
    of = graphs.emoji(graph, list(PICTURES[:2]), SOURCE)
    mask = graph.add("LoadImageMask", image="left-half.png", channel="red")
    again = graphs.edited(graph, of, None)
    cases = {
        "plain": graphs.edited(graph, of, TARGET),
        "same": graphs.edited(graph, of, SOURCE),
        "weak": graphs.edited(graph, of, TARGET, strength=0.25),
        "faithful": graphs.edited(graph, of, TARGET, preserve=0.6, source_guidance=0.0),
        "masked": graphs.edited(graph, of, TARGET, mask=mask),
        "auto": graphs.edited(graph, of, TARGET, auto_mask=True),
        "away": graphs.edited(graph, of, TARGET, source_guidance=1.0),
        "random": graphs.edited(graph, of, TARGET, randomness=0.5, seed=3),
        "random_again": graphs.edited(graph, of, TARGET, randomness=0.5, seed=3),
        "random_other": graphs.edited(graph, of, TARGET, randomness=0.5, seed=4),
    }
    found = server.latents(graph, again=again, went_in=of["latent"], **cases)
    moved = {name: (found[name] - found["went_in"]).square().mean().sqrt().item() for name in (*cases, "again")}
    results.add(
        "edit with the prompt of the inversion is the replay",
        f"{distance(found['same'], found['again']):.1e}",
        distance(found["same"], found["again"]) < CLOSE,
    )
    told = f"RMS {moved['plain']:.3f}; strength .25 {moved['weak']:.3f}, preserve .6 {moved['faithful']:.3f}"
    results.add(
        "edits move the latents, less under strength and preserve",
        told,
        0 < moved["weak"] < moved["plain"] and moved["faithful"] < moved["plain"],
    )
    right = (found["masked"] - found["went_in"])[..., 9:].abs().max().item()
    left = (found["masked"] - found["went_in"])[..., :8].abs().max().item()
    results.add(
        "a mask of the left half: largest change in the right half, in the left half",
        f"{right:.1e}, {left:.2f}",
        right < 1e-4 < left,
    )
    results.add("automatic mask changes less than none", f"RMS {moved['auto']:.3f}", 0 < moved["auto"] < moved["plain"])
    results.add(
        "guidance away from the source moves further", f"RMS {moved['away']:.3f}", moved["away"] > moved["plain"]
    )
    one, two = distance(found["random"], found["random_again"]), distance(found["random"], found["random_other"])
    results.add("fresh noise: same seed, other seed", f"{one:.1e}, {two:.2f}", one == 0 and two > 0.05)


def check_files(server: Server, results: Results) -> None:
    """Save, load, and edit what was loaded."""
    graph = Graph()
    of = graphs.emoji(graph, [PICTURES[0]], SOURCE)
    graph.add("RenoiseSaveInversion", inversion=of["inversion"], filename_prefix="inversions/proof")
    before = server.latents(graph, edited=graphs.edited(graph, of, TARGET, source_guidance=1.0))
    file = "output: inversions/proof_00001.renoise.safetensors"
    for source in (True, False):
        graph = Graph()
        of = graphs.emoji(graph, [PICTURES[0]], SOURCE)
        of["inversion"] = graph.add("RenoiseLoadInversion", file=file)
        words = {"source": of["positive"]} if source else {}
        try:
            after = server.latents(graph, edited=graphs.edited(graph, of, TARGET, source_guidance=1.0, **words))
            far = distance(before["edited"], after["edited"])
            results.add("edit of a loaded inversion against that of before", f"{far:.1e}", source and far == 0)
        except Failed as error:
            results.add(
                "the same without its source prompt is refused", str(error), not source and "wire source" in str(error)
            )
    try:
        graph = Graph()
        graph.add("RenoiseReport", inversion=graph.add("RenoiseLoadInversion", file="output: ../x"))
        server.run(graph)
        results.add("a path out of the folders", "was read", False)
    except Failed as error:
        good = "is not in the output" in str(error)
        results.add("a path out of the folders is refused", "by the list" if good else str(error), good)


def check_refusals(server: Server, results: Results) -> None:
    """What cannot be inverted, in words."""
    for sampler in ("dpmpp_2m", "heun", "dpmpp_sde", "euler_cfg_pp", "uni_pc", "res_multistep_ancestral"):
        graph = Graph()
        chosen = graph.add("KSamplerSelect", sampler_name=sampler)
        of = graphs.emoji(graph, [PICTURES[0]], SOURCE, sampler=chosen)
        _refused(server, results, sampler, graph, of, "Use euler")
    graph = Graph()
    of = graphs.tiny(graph, "tiny-sd", latent=graph.add("EmptyLatentImage", width=64, height=64, batch_size=1))
    _refused(server, results, "an empty latent", graph, of, "VAE Encode")
    graph = Graph()
    of = graphs.tiny(graph, "tiny-sd")
    of["model"] = graph.add("ModelSamplingDiscrete", model=of["model"], sampling="v_prediction", zsnr=True)
    _refused(server, results, "a model of another prediction in the edit", graph, of, "wire the model of then")


def _refused(server: Server, results: Results, what: str, graph: Graph, of: dict[str, Any], words: str) -> None:
    try:
        server.latents(graph, ours=graphs.edited(graph, of, None))
        results.add(f"{what} is refused", "it was not", False)
    except Failed as error:
        text = str(error).strip().splitlines()[0]
        results.add(f"{what} is refused", text, words in text)


def check_manners(server: Server, results: Results) -> None:
    """Progress, Cancel, and the report."""
    graph = Graph()
    of = graphs.emoji(graph, [PICTURES[0]], SOURCE, steps=500, sampler_name="euler")
    graph.add("RenoiseReport", inversion=of["inversion"])
    number = server.queue(graph)
    time.sleep(3)
    started = time.monotonic()
    server.post("/interrupt", {})
    try:
        server.wait(number, 60)
        results.add("Cancel", "it ran on", False)
    except Failed as error:
        results.add(
            "Cancel stops between two passes",
            f"{error} after {time.monotonic() - started:.1f} s",
            "interrupted" in str(error),
        )
    graph = Graph()
    of = graphs.emoji(graph, [PICTURES[0]], SOURCE)
    graph.add("RenoiseReport", inversion=of["inversion"], reconstruction=graphs.edited(graph, of, None), vae=of["vae"])
    told = server.run(graph)["outputs"]
    text = next(out["text"][0] for out in told.values() if "text" in out)
    results.add("after it the next workflow runs, and the report tells PSNR", text.splitlines()[4], "dB" in text)


CHECKS: dict[str, Callable[[Server, Results], None]] = {
    "package": check_package,
    "tiny": check_tiny,
    "edits": check_edits,
    "files": check_files,
    "refusals": check_refusals,
    "manners": check_manners,
}
