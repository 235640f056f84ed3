"""The nodes as ComfyUI sees them: schemas, arguments, files of the pack, example workflows."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

import comfyui
from comfyui import file_nodes, nodes
from tests.helpers import comfy_stub as stub

PACK = Path(__file__).parents[2] / "comfyui"
FOLDERS: Any = sys.modules["folder_paths"]
EXAMPLES = sorted((PACK / "example_workflows").glob("*.json"))


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("output", "input"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(FOLDERS, f"get_{name}_directory", lambda name=name: str(tmp_path / name), raising=False)

    def save_path(prefix: str, folder: str) -> Any:
        path = Path(folder) / prefix
        return str(path.parent), path.name, 1, "", prefix

    monkeypatch.setattr(FOLDERS, "get_save_image_path", save_path, raising=False)
    return tmp_path


def all_nodes() -> list[Any]:
    async def ask() -> list[Any]:
        extension = await comfyui.comfy_entrypoint()
        found: list[Any] = await extension.get_node_list()
        return found

    return asyncio.run(ask())


@pytest.mark.usefixtures("folders")
def test_every_node_takes_what_its_schema_says() -> None:
    schemas = {node: node.define_schema() for node in all_nodes()}
    assert len({schema.node_id for schema in schemas.values()}) == len(schemas) == 8
    for node, schema in schemas.items():
        assert schema.display_name.startswith("ReNoise ")
        assert schema.category == "renoise"
        assert schema.description
        parameters = inspect.signature(node.execute).parameters
        assert set(parameters) == {each.id for each in schema.inputs}
        for each in schema.inputs:
            given = parameters[each.id].default is not inspect.Parameter.empty
            assert given == each.optional, (node, each.id)
            if each.type in ("Int", "Float"):
                assert each.min <= each.default <= each.max
            if each.id == "seed":  # otherwise the editor draws a new one for every run
                assert each.control_after_generate is False


def test_invert_and_edit_run_on_their_defaults(folders: Path) -> None:
    model = stub.Model()
    picture = {"samples": torch.randn(1, 4, 5, 7, generator=torch.Generator().manual_seed(0))}
    words = {each.id: each.default for each in nodes.Invert.define_schema().inputs if hasattr(each, "default")}
    inversion, told = nodes.Invert.execute(model=model, positive=[(1, {})], latent=picture, **words).args
    assert "25 steps" in told
    words = {each.id: each.default for each in nodes.Edit.define_schema().inputs if hasattr(each, "default")}
    again, mask = nodes.Edit.execute(model=model, inversion=inversion, **words).args
    assert (again["samples"] - picture["samples"]).square().mean() < 1e-3
    assert mask.shape == (1, 40, 56)
    edited, _ = nodes.Edit.execute(model=model, inversion=inversion, positive=[(2, {})], **words).args
    assert (edited["samples"] - picture["samples"]).square().mean() > 0.1
    (path,) = file_nodes.Save.execute(inversion, "inversions/x").args
    (second,) = file_nodes.Save.execute(inversion, "inversions/x").args
    assert path != second
    (name, _) = file_nodes.Load.define_schema().inputs[0].options
    assert name == "output: inversions/x_00001.renoise.safetensors"
    assert file_nodes.Load.validate_inputs(name) is True
    assert "is not in" in str(file_nodes.Load.validate_inputs("output: ../x"))
    assert file_nodes.Load.fingerprint_inputs(name)[1] > 0
    (loaded,) = file_nodes.Load.execute(name).args
    assert torch.equal(loaded.trajectory.z_T, inversion.trajectory.z_T)


def test_denoise_inverts_the_end_of_a_longer_schedule() -> None:
    model = stub.Model()
    picture = {"samples": torch.ones(1, 4, 5, 7)}
    words = {each.id: each.default for each in nodes.Invert.define_schema().inputs if hasattr(each, "default")}
    words |= {"steps": 3, "denoise": 0.5}
    inversion, _ = nodes.Invert.execute(model=model, positive=[(1, {})], latent=picture, **words).args
    torch.testing.assert_close(inversion.sigmas, stub.calculate_sigmas(model.levels, "simple", 6)[-4:])


def test_the_nodes_need_neither_diffusers_nor_transformers() -> None:
    code = (
        "import sys; sys.modules |= dict.fromkeys(('diffusers', 'transformers', 'accelerate')); "
        "from tests.helpers import comfy_stub; comfy_stub.install(); "
        "import comfyui.nodes, comfyui.replay_nodes, comfyui.file_nodes"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PACK.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_pack_is_ready_for_the_registry() -> None:
    told = tomllib.loads((PACK / "pyproject.toml").read_text())
    project, comfy = told["project"], told["tool"]["comfy"]
    assert "comfyui" not in project["name"].lower()
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert any(each.startswith("renoise") for each in project["dependencies"])
    assert {"PublisherId", "DisplayName", "Icon", "requires-comfyui"} <= comfy.keys()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
@pytest.mark.usefixtures("folders")
def test_example_workflows_use_nodes_as_they_are(path: Path) -> None:
    """Both formats name our nodes and all of their required inputs; the wide one has a value for every widget."""
    schemas = {schema.node_id: schema for schema in (node.define_schema() for node in all_nodes())}
    graph = json.loads(path.read_text())
    if "nodes" not in graph:
        for node in graph.values():
            schema = schemas.get(node["class_type"])
            if schema:
                needed = {each.id for each in schema.inputs if not each.optional}
                assert needed <= node["inputs"].keys() <= {each.id for each in schema.inputs}
        return
    assert path.with_suffix(".png").is_file()
    for node in graph["nodes"]:
        schema = schemas.get(node["type"])
        if schema:
            widgets = [each for each in schema.inputs if each.type in ("Int", "Float", "Combo", "String", "Boolean")]
            assert len(node["widgets_values"]) == len(widgets), node["type"]


def test_there_are_example_workflows_in_both_formats() -> None:
    names = {path.stem for path in EXAMPLES}
    assert len(names) >= 4
    assert {f"{name}-api" for name in names if not name.endswith("-api")} <= names
