"""A detector trained on COCO's 80 classes is a start for one class."""

import pytest
import torch

from lungdet_mmdet.errors import LungDetError


def coco_checkpoint(config_path, path):
    """The tiny detector with 80 classes, all weights 0.125."""
    from mmdet.registry import MODELS

    from lungdet_mmdet.apis.config_file import read_config

    config = read_config(config_path)
    config.model.bbox_head.num_classes = 80
    state = MODELS.build(config.model).state_dict()
    state = {key: torch.full_like(value, 0.125) for key, value in state.items()}
    torch.save({"meta": {}, "state_dict": state}, path)


def test_what_fits_is_taken_and_the_rest_logged(tiny_config, tmp_path):
    from mmengine.runner import Runner

    from lungdet_mmdet.apis.config_file import read_config
    from lungdet_mmdet.engine.run_setup import start_from

    path = tiny_config()
    coco_checkpoint(path, tmp_path / "coco.pth")
    config = read_config(path, work_dir=tmp_path / "run")
    start_from(config, str(tmp_path / "coco.pth"))
    assert config.model.backbone.init_cfg is None
    runner = Runner.from_cfg(config)
    runner.load_or_resume()
    weights = runner.model.state_dict()
    assert torch.all(weights["encoder.layers.0.ffn.layers.1.weight"] == 0.125)
    assert torch.all(weights["bbox_head.reg_branches.0.0.weight"] == 0.125)
    head = weights["bbox_head.cls_branches.0.weight"]
    assert head.shape == (1, 256)
    assert not torch.any(head == 0.125)
    (log,) = (tmp_path / "run").glob("*/*.log")
    assert "cls_branches.0.weight: (80, 256) in the file, (1, 256) here" in log.read_text()


def test_the_coco_config_names_mmdets_checkpoint_and_fits_it(read_tiny):
    config = read_tiny("lung_deform_detr_coco.py")
    assert config.load_from.startswith("https://download.openmmlab.com/mmdetection/v3.0/")
    assert [h.type for h in config.custom_hooks].count("FitCheckpointHook") == 1


def test_missing_checkpoints_are_named(read_tiny, monkeypatch, tmp_path):
    from lungdet_mmdet.engine.run_setup import start_from

    config = read_tiny("lung_deform_detr_coco.py")
    with pytest.raises(LungDetError, match=r"none\.pth \(no such file\); give the path"):
        start_from(config, str(tmp_path / "none.pth"))
    monkeypatch.setenv("LUNGDET_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(LungDetError, match="LUNGDET_OFFLINE is set"):
        start_from(config, config.load_from)
