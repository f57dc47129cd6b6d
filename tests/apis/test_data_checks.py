"""Leaks and foreign pipelines are found however a config wraps its datasets."""

import json

import pytest
from mmengine.config import Config

from lungdet_mmdet.apis.config_file import check_config_leaks, check_data, check_prep_pipeline
from lungdet_mmdet.errors import LungDetError

STEPS = [{"type": "LoadCTScan"}, {"type": "MIPSlabs", "thickness_mm": 7.5}]


def write_part(root, name, series):
    folder = root / "annotations"
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "info": {"protocol": "strict"},
        "images": [],
        "annotations": [],
        "categories": [{"id": 1, "name": "nodule"}],
        "series": series,
        "nodules": [],
        "patients": {},
    }
    (folder / name).write_text(json.dumps(content))


def part(root, name):
    return {"type": "LUNA16SlabDataset", "data_root": str(root), "ann_file": f"annotations/{name}"}


def wrapped(*parts):
    repeated = [{"type": "RepeatDataset", "times": 2, "dataset": one} for one in parts]
    return {"type": "ConcatDataset", "datasets": repeated}


def config_of(train, val):
    return Config(
        {
            "prep_pipeline": STEPS,
            "train_dataloader": {"dataset": train},
            "val_dataloader": {"dataset": val},
        }
    )


def test_a_leak_is_found_inside_dataset_wrappers(tmp_path):
    for name, series in (("one", ["a"]), ("two", ["b"]), ("val", ["b"])):
        write_part(tmp_path, f"{name}.json", series)
    val = part(tmp_path, "val.json")
    clean = config_of(wrapped(part(tmp_path, "one.json")), val)
    assert check_config_leaks(clean) == ()
    leaking = config_of(wrapped(part(tmp_path, "one.json"), part(tmp_path, "two.json")), val)
    with pytest.raises(LungDetError, match=r"1 series on several sides: b \(train and val\)"):
        check_config_leaks(leaking)
    (warning,) = check_config_leaks(leaking, allow=True)
    assert "b (train and val)" in warning


def test_joined_training_files_may_share_series(tmp_path):
    for name, series in (("one", ["a"]), ("two", ["a"]), ("val", ["b"])):
        write_part(tmp_path, f"{name}.json", series)
    train = wrapped(part(tmp_path, "one.json"), part(tmp_path, "two.json"))
    assert check_config_leaks(config_of(train, part(tmp_path, "val.json"))) == ()


def test_every_prepared_folder_behind_a_wrapper_is_compared(tmp_path):
    other = [STEPS[0], {"type": "MIPSlabs", "thickness_mm": 5.0}]
    for name, steps in (("same", STEPS), ("other", other)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(json.dumps({"pipeline": steps}))
    val = part(tmp_path, "val.json")
    same, foreign = part(tmp_path / "same", "train.json"), part(tmp_path / "other", "train.json")
    assert check_prep_pipeline(config_of(wrapped(same), val)) == ()
    with pytest.raises(LungDetError, match=r"other.manifest\.json: .*only in the data's: .*5\.0"):
        check_prep_pipeline(config_of(wrapped(same, foreign), val))
    (warning,) = check_prep_pipeline(config_of(wrapped(part(tmp_path, "train.json")), val))
    assert "nobody can tell" in warning


def test_the_mask_method_may_differ(tmp_path):
    mask = {"type": "OtsuLungMask", "method": "luna16"}
    (tmp_path / "manifest.json").write_text(json.dumps({"pipeline": [mask]}))
    config = config_of(part(tmp_path, "train.json"), part(tmp_path, "val.json"))
    config.prep_pipeline = [{"type": "OtsuLungMask"}]
    assert check_prep_pipeline(config) == ()


def test_a_part_without_a_slab_is_told_before_anything_is_built(tmp_path):
    for name in ("train", "val"):
        write_part(tmp_path, f"{name}.json", ["a"])
    config = config_of(part(tmp_path, "train.json"), part(tmp_path, "val.json"))
    with pytest.raises(
        LungDetError, match=r"train\.json: holds no slab; prepare more scans"
    ) as told:
        check_data(config, ("train", "val"))
    assert f"lungdet split {tmp_path} " in str(told.value)
