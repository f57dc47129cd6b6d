"""Configs by name: paths first, then what the package brings; slips are told."""

import re

import pytest
from mmengine.config import Config

import lungdet_mmdet.plugin  # noqa: F401
from lungdet_mmdet.engine.by_name import SHIPPED_MODEL, find_config, find_weights, own_models
from lungdet_mmdet.errors import LungDetError


@pytest.mark.parametrize(
    "name",
    [
        "lung_deform_detr",
        "lung_deform_detr.py",
        "configs/lung_deform_detr.py",
        "lungdet_mmdet::lung_deform_detr.py",
        "lungdet_mmdet::lung_deform_detr",
    ],
)
def test_a_name_is_a_config_of_the_package(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = find_config(name)
    assert path.parts[-2:] == ("configs", "lung_deform_detr.py")
    assert path.is_file()


def test_a_file_that_is_there_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lung_dino.py").touch()
    assert find_config("lung_dino.py").resolve() == tmp_path / "lung_dino.py"


@pytest.mark.parametrize("name", ["lung_deform_dert.py", "lungdet_mmdet::lung_deform_dert"])
def test_a_slip_is_told_with_the_nearest_name(name):
    with pytest.raises(LungDetError, match=r"no such config.*nearest .* lung_deform_detr\.py"):
        find_config(name)


def test_a_name_leads_nowhere_else(tmp_path):
    with pytest.raises(LungDetError, match="no such config"):
        find_config("lungdet_mmdet::../setup.py")


def test_a_base_may_be_named(tmp_path):
    path = tmp_path / "own.py"
    path.write_text("_base_ = 'lungdet_mmdet::lung_retinanet.py'\nmodel = dict(own=1)\n")
    model = Config.fromfile(path).model
    assert (model.type, model.own) == ("RetinaNet", 1)


def test_names_of_others_are_left_alone():
    assert find_weights("https://a.b/lungdet.pth") == "https://a.b/lungdet.pth"
    assert find_weights(f"lungdet://{SHIPPED_MODEL.name}") == str(SHIPPED_MODEL)


def test_the_index_names_configs_and_weights_that_are_there():
    models = list(own_models())
    assert models
    for model in models:
        assert find_config(model["Config"]).stem == model["Name"]
        assert find_weights(model["Weights"]) == str(SHIPPED_MODEL)
    assert SHIPPED_MODEL.is_file()


def test_the_index_says_what_the_card_says():
    card = SHIPPED_MODEL.with_name("README.md").read_text(encoding="utf-8")
    (model,) = own_models()
    (result,) = model["Results"]
    for name, row in (("CPM", "CPM"), ("AP50", "AP at IoU 0.5")):
        measured = re.search(rf"^\| {re.escape(row)}[^|]*\| ([\d.]+)", card, re.MULTILINE)[1]
        assert result["Metrics"][name] == float(measured)
