import subprocess
import sys

import pytest

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.preparation.prep_pipeline import (
    build_prep_pipeline,
    override_mask_method,
    prep_imports,
    prep_steps,
    run_steps,
)


def test_steps_become_plain_lists_and_dicts():
    config = {"prep_pipeline": [{"type": "ResampleScan", "spacing_zyx_mm": (1, 2, 3)}]}
    assert prep_steps(config, source="x") == [{"type": "ResampleScan", "spacing_zyx_mm": [1, 2, 3]}]


def test_a_config_without_prep_pipeline_is_named():
    with pytest.raises(LungDetError, match=r"my\.py: the config has no prep_pipeline"):
        prep_steps({}, source="my.py")


def test_own_modules_are_imported_and_the_whole_plugin_is_not():
    config = {"custom_imports": {"imports": ["lungdet_mmdet.plugin", "my_steps"]}}
    assert prep_imports(config) == ("my_steps",)
    assert prep_imports({}) == ()


def test_the_mask_method_is_set_in_its_step_only():
    steps = [{"type": "LoadCTScan"}, {"type": "OtsuLungMask", "method": "otsu"}]
    assert override_mask_method(steps, "luna16") == [
        {"type": "LoadCTScan"},
        {"type": "OtsuLungMask", "method": "luna16"},
    ]
    assert steps[1]["method"] == "otsu"


def test_a_mask_method_without_mask_step_is_refused():
    with pytest.raises(LungDetError, match="has no OtsuLungMask"):
        override_mask_method([{"type": "LoadCTScan"}], "luna16")


@pytest.mark.parametrize("step", [{"type": "NoSuchStep"}, {"type": "WindowHU", "depth": 3}])
def test_a_step_that_cannot_be_built_is_named(step):
    with pytest.raises(LungDetError, match=step["type"]):
        build_prep_pipeline([step])


def test_building_the_steps_imports_no_data_sets_of_mmdet(repository):
    code = (
        "import sys\n"
        "from lungdet_mmdet.preparation.prep_pipeline import build_prep_pipeline\n"
        "build_prep_pipeline([{'type': 'LoadCTScan'}, {'type': 'MIPSlabs', 'thickness_mm': 7.5}])\n"
        "print([name for name in sys.modules if name.startswith('mmdet.datasets')])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_module_that_cannot_be_imported_is_named():
    with pytest.raises(LungDetError, match="no_such_module"):
        build_prep_pipeline([{"type": "LoadCTScan"}], imports=("no_such_module",))


def test_steps_are_timed_and_shown_in_order():
    class Pipeline:
        transforms = (dict.copy, dict.copy)

    shown = []
    results, seconds = run_steps(
        Pipeline, {"a": 1}, after_step=lambda name, results: shown.append((name, results))
    )
    assert results == {"a": 1}
    assert shown == [("method_descriptor", {"a": 1})] * 2
    assert list(seconds) == ["method_descriptor"]
    assert seconds["method_descriptor"] >= 0


PURE_PYTHON = """
from collections import OrderedDict
from lungdet_mmdet.datasets.transforms import LoadCTScan, OtsuLungMask

prep_pipeline = [
    dict(type=LoadCTScan), dict(type=OtsuLungMask, method='luna16'), dict(type=OrderedDict)
]
"""


@pytest.mark.parametrize("data", [None, "somewhere"])
def test_steps_may_be_classes(tmp_path, monkeypatch, data):
    from lungdet_mmdet.engine.by_name import config_from_file

    monkeypatch.delenv("LUNGDET_DATA", raising=False)
    if data:
        monkeypatch.setenv("LUNGDET_DATA", data)
    path = tmp_path / "pure.py"
    path.write_text(PURE_PYTHON)
    config = config_from_file(path, import_custom_modules=False)
    assert prep_steps(config, source="pure.py") == [
        {"type": "LoadCTScan"},
        {"type": "OtsuLungMask", "method": "luna16"},
        {"type": "OrderedDict"},
    ]
    assert prep_imports(config) == ("collections",)  # where a class of others comes from
