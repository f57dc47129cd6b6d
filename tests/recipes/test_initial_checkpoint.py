"""A detector trained on COCO's 80 classes is a start for one class."""

from pathlib import Path

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


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("lung_deform_detr_coco", "deformable_detr/deformable-detr_r50_16xb2-50e_coco"),
        ("lung_deform_detr_best", "dino/dino-4scale_r50_8xb2-12e_coco"),
        ("lung_detr_coco", "detr/detr_r50_8xb2-150e_coco"),
    ],
)
def test_coco_configs_take_all_of_mmdets_detector_but_its_classes(
    repository, monkeypatch, name, source
):
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.hub import get_config

    monkeypatch.setenv("LUNGDET_DATA", "unused")
    ours = Config.fromfile(repository / "configs" / f"{name}.py")
    theirs = get_config(f"mmdet::{source}.py")
    stem = source.split("/")[1]
    assert ours.load_from.startswith("https://download.openmmlab.com/mmdetection/v3.0/")
    assert Path(ours.load_from).name.startswith(f"{stem}_20")
    assert [hook.type for hook in ours.custom_hooks].count("FitCheckpointHook") == 1
    shapes = []
    for config in (ours, theirs):
        config.model.backbone.init_cfg = None
        with torch.device("meta"):
            model = MODELS.build(config.model)
        shapes.append({key: tuple(value.shape) for key, value in model.state_dict().items()})
    assert shapes[0].keys() == shapes[1].keys()
    anew = [key for key in shapes[0] if shapes[0][key] != shapes[1][key]]
    assert anew
    assert all("cls" in key or "label_embedding" in key for key in anew)


def test_missing_checkpoints_are_named(read_tiny, monkeypatch, tmp_path):
    from lungdet_mmdet.engine.run_setup import start_from

    config = read_tiny("lung_deform_detr_coco.py")
    with pytest.raises(LungDetError, match=r"none\.pth \(no such file\); give the path"):
        start_from(config, str(tmp_path / "none.pth"))
    monkeypatch.setenv("LUNGDET_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(LungDetError, match="LUNGDET_OFFLINE is set"):
        start_from(config, config.load_from)
