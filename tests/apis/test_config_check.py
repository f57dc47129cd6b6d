"""A config from a stranger's file can ask for known parts only."""

import copy

import pytest
from mmengine.config import Config

from lungdet_mmdet.apis.model_file import check_config
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.evaluation.trained_checkpoint import config_as_data
from tests.support.untrained_model import untrained_config


@pytest.fixture
def config():
    return copy.deepcopy(config_as_data(untrained_config(), source="x"))


def test_a_published_config_passes(config):
    check_config(config, source="m.pth")


def test_every_config_of_this_package_passes(repository):
    paths = sorted((repository / "configs").glob("lung_*.py"))
    assert len(paths) >= 2
    for path in paths:
        check_config(config_as_data(Config.fromfile(path), source=path.name), source=path.name)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        # mmengine imports a type with dots in it and calls it with the other keys.
        (("model", "backbone"), {"type": "os.system", "command": "touch /tmp/x"}),
        # mmcv evaluates the type of an NMS setting as Python.
        (("model", "test_cfg"), {"nms": {"type": "__import__('os').system('true')"}}),
        # Weights from anywhere; nothing needs them.
        (("model", "backbone"), {"init_cfg": {"type": "Pretrained", "checkpoint": "http://x/y"}}),
        (("model", "teacher_config"), "/etc/config.py"),
        (("model", "neck"), {"_scope_": "evil_package"}),
        (("model", "neck"), {"type": "mmdet.FPN"}),
        (("model", "neck"), {"type": ["FPN"]}),
        (("model", "neck"), {"num_outs": 1j}),
        (("model", "neck"), {1: 2}),
        (("test_pipeline",), [{"type": "LoadMultiChannelImageFromFiles"}]),
        (("prep_pipeline",), [{"type": "LoadImageFromFile"}]),
        (("prep_pipeline",), [{"type": "LoadCTScan", "scan_path": "../../secret.mhd"}]),
    ],
)
@pytest.mark.reliability("hostile model files and configs")
def test_anything_else_is_refused(config, place, value):
    *parents, last = place
    target = config
    for key in parents:
        target = target[key]
    if isinstance(value, dict) and last in target:
        target[last].update(value)
    else:
        target[last] = value
    with pytest.raises(LungDetError, match=r"m\.pth: config\..*--trust-checkpoint"):
        check_config(config, source="m.pth")


@pytest.mark.reliability("hostile model files and configs")
def test_bottomless_configs_are_refused(config):
    deep = []
    for _ in range(200):
        deep = [deep]
    config["model"]["neck"]["start_level"] = deep
    with pytest.raises(LungDetError, match="nested"):
        check_config(config, source="m.pth")


@pytest.mark.parametrize("part", ["prep_pipeline", "test_pipeline", "model"])
def test_a_missing_part_is_named(config, part):
    del config[part]
    with pytest.raises(LungDetError, match=f"has no {part}"):
        check_config(config, source="m.pth")
