import json

import pytest
from mmengine.config import Config

from lungdet_mmdet.apis.config_file import check_data, read_config
from lungdet_mmdet.errors import LungDetError


@pytest.fixture
def config_path(repository, monkeypatch):
    # Set and taken back, so that read_config's own setting ends with the test.
    monkeypatch.setenv("LUNGDET_DATA", "elsewhere")
    return repository / "configs" / "lung_deform_detr.py"


def test_the_data_folder_reaches_every_part(config_path, tmp_path):
    config = read_config(config_path, data=tmp_path)
    for part in ("train", "val", "test"):
        assert config[f"{part}_dataloader"].dataset.data_root == str(tmp_path)
        evaluators = config[f"{part}_evaluator"] if part != "train" else []
        for evaluator in evaluators if isinstance(evaluators, list) else [evaluators]:
            assert evaluator.ann_file == f"{tmp_path}/annotations/{part}.json"


def test_the_environment_names_the_data_folder(config_path):
    assert read_config(config_path).data_root == "elsewhere"


def test_overrides_come_last(config_path):
    config = read_config(config_path, cfg_options={"train_dataloader.batch_size": 2})
    assert config.train_dataloader.batch_size == 2


def test_fewer_queries_than_boxes_are_refused_before_anything_is_built(config_path):
    with pytest.raises(LungDetError, match=r"max_per_img asks for 100 .* proposes 30; set"):
        read_config(config_path, cfg_options={"model.num_queries": 30})
    options = {"model.num_queries": 30, "model.test_cfg.max_per_img": 30}
    assert read_config(config_path, cfg_options=options).model.num_queries == 30


def test_the_work_folder_is_named_after_the_config(config_path, tmp_path):
    assert read_config(config_path).work_dir.endswith("work_dirs/lung_deform_detr")
    assert read_config(config_path, work_dir=tmp_path).work_dir == str(tmp_path)


def test_a_missing_config_is_named(tmp_path):
    with pytest.raises(LungDetError, match="absent.py: no such config"):
        read_config(tmp_path / "absent.py")


def test_missing_annotations_name_the_commands(config_path, tmp_path):
    config = read_config(config_path, data=tmp_path)
    (tmp_path / "annotations").mkdir()
    split = {
        "info": {},
        "images": [{"id": 1, "seriesuid": "1.2"}],
        "annotations": [],
        "nodules": [],
        "series": [],
    }
    (tmp_path / "annotations" / "train.json").write_text(json.dumps(split))
    check_data(config, ("train",))
    with pytest.raises(LungDetError, match="val.json: no prepared data here"):
        check_data(config, ("train", "val"))


def test_annotations_inside_dataset_wrappers_are_checked(tmp_path):
    part = {"type": "LUNA16SlabDataset", "data_root": str(tmp_path), "ann_file": "absent.json"}
    repeated = {"type": "RepeatDataset", "times": 2, "dataset": part}
    joined = {"type": "ConcatDataset", "datasets": [repeated]}
    config = Config({"train_dataloader": {"dataset": joined}})
    with pytest.raises(LungDetError, match="absent.json"):
        check_data(config, ("train",))


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("train_cfg.max_epoch", "train_cfg.max_epochs"),
        ("randomnes.seed", "randomness.seed"),
        ("optim_wrapper.clip_grads.max_norm", "optim_wrapper.clip_grad.max_norm"),
        ("custom_hook", "custom_hooks"),
    ],
)
def test_a_misspelt_override_is_told_with_the_nearest_key(config_path, key, nearest):
    with pytest.raises(LungDetError, match=f"{key}: the config has no .* nearest is {nearest};"):
        read_config(config_path, cfg_options={key: 1})


def test_an_override_that_is_no_part_of_a_run_is_refused(config_path):
    with pytest.raises(LungDetError, match="has no 'foo' there, there are .*train_dataloader"):
        read_config(config_path, cfg_options={"foo": 1})


@pytest.mark.parametrize(
    "key", ["default_hooks.checkpoint.published_keys", "load_from", "model.backbone.frozen_stages"]
)
def test_overrides_may_add_what_a_part_takes(config_path, key):
    config = read_config(config_path, cfg_options={key: 3})
    for word in key.split("."):
        config = config[word]
    assert config == 3


def test_an_override_beyond_a_list_is_told(config_path):
    with pytest.raises(LungDetError, match="param_scheduler.7.end: .*no '7' there, there are 0"):
        read_config(config_path, cfg_options={"param_scheduler.7.end": 1})
