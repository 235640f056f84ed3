"""Parity end to end: the pipeline that the reference numbers were recorded on, through both drivers, in float64.

`golden/tiny_sdxl` is that pipeline, data as well; what `test_golden` replays from a recording is computed here.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from renoise.core.loop import invert
from renoise.core.query import Job
from renoise.core.trajectory import Trajectory
from renoise.pipelines.adapter import Adapter
from renoise.pipelines.stand_in import Measure
from renoise.record import Driver, Scene
from tests.helpers.golden import CASES, error, load, pipeline

PROMPT = "a lion in the field"
GUIDANCE = {"sdxl_ddim10_K1_cfg3": 3.0}


@pytest.fixture(scope="module")
def pipe() -> Any:
    return pipeline().to(torch.float64)


@pytest.mark.parametrize("driver", ["direct", "pipeline"])
@pytest.mark.parametrize(
    "name", ["sdxl_euler4_K0", "sdxl_euler4_K4", "sdxl_ddim10_K0", "sdxl_ddim10_K1_cfg3", "sdxl_lcm4_K4"]
)
def test_a_recorded_inversion_comes_out_again(name: str, driver: Driver, pipe: Any) -> None:
    case, guidance = CASES[name], GUIDANCE.get(name, 1.0)
    tensors, pipe.scheduler = load(name)
    steps = len(set(tensors["step"].tolist()))

    def begin(measure: Measure) -> Job[Trajectory]:
        table = measure()
        return Job(invert(table, tensors["z_0"], settings=case.settings, noises=tensors.get("noises")), table, 100)

    adapter = Adapter(pipe)
    call = adapter.call(Scene((PROMPT,), None, guidance, {}), steps, (64, 64))
    found = adapter.run(begin, [call], driver=driver, stage="invert")
    assert found.passes == case.passes // (2 if guidance > 1 else 1) - case.dropped
    assert error(found.z_T, tensors["z_T"]) < (1e-6 if driver == "direct" else 1e-5)
