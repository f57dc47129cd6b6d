"""The variants of the phantom study: built, and different from its detector in one thing each."""

import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper

MAIN = "phantom/main.py"


@pytest.mark.parametrize("name", ["detr", "ce"])
def test_a_variant_trains_a_step_and_detects(read_tiny, name):
    config = read_tiny(f"phantom/{name}.py")
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    model.init_weights()
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    dataset = DATASETS.build(config.train_dataloader.dataset)
    losses = model.train().train_step(pseudo_collate([dataset[0], dataset[1]]), wrapper)
    assert losses["loss"].isfinite()
    dataset = DATASETS.build(config.val_dataloader.dataset)
    with torch.no_grad():
        (found,) = model.eval().test_step(pseudo_collate([dataset[0]]))
    assert len(found.pred_instances) > 0
    assert found.pred_instances.scores.isfinite().all()


@pytest.mark.parametrize("thickness", [0, 5, 10, 15])
def test_slab_variants_change_the_thickness_alone(read_tiny, thickness):
    config, main = read_tiny(f"phantom/mip{thickness}.py"), read_tiny(MAIN)
    assert config.prep_pipeline[-1] == {"type": "MIPSlabs", "thickness_mm": thickness}
    assert config.prep_pipeline[:-1] == main.prep_pipeline[:-1]
    assert config.model == main.model


def test_detr_and_cross_entropy_change_the_detector_alone(read_tiny):
    main, detr, ce = (read_tiny(name) for name in (MAIN, "phantom/detr.py", "phantom/ce.py"))
    for config in (detr, ce):
        assert config.prep_pipeline == main.prep_pipeline
        assert config.optim_wrapper == main.optim_wrapper
        assert config.train_dataloader == main.train_dataloader
    assert detr.model.type == "DETR"
    assert {**detr.model.backbone, "out_indices": 0} == {**main.model.backbone, "out_indices": 0}
    assert main.model.bbox_head.loss_cls.type == "FocalLoss"
    assert ce.model.bbox_head.loss_cls.type == "CrossEntropyLoss"
    assert ce.model.encoder == main.model.encoder
