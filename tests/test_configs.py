"""The paper's recipe, number by number, in the objects that the configs build."""

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS, TRANSFORMS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, DefaultScope

import lungdet_mmdet.plugin  # noqa: F401
from lungdet_mmdet.engine.run_setup import fall_back_from_amp


@pytest.fixture(scope="module")
def config(repository) -> Config:
    return Config.fromfile(repository / "configs" / "lung_deform_detr.py")


@pytest.fixture(scope="module")
def model(config):
    settings = config.model.copy()
    settings.backbone = {**settings.backbone, "init_cfg": None}  # no download
    with DefaultScope.overwrite_default_scope("mmdet"):
        return MODELS.build(settings)


@pytest.fixture
def optim_wrapper(config, model, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    plain = Config(config.to_dict())
    fall_back_from_amp(plain)
    return build_optim_wrapper(model, plain.optim_wrapper)


def build_steps(steps) -> dict:
    with DefaultScope.overwrite_default_scope("mmdet"):
        return {step["type"]: TRANSFORMS.build(dict(step)) for step in steps}


def test_backbone_is_a_resnet_50_with_imagenet_weights_by_url(config, model):
    assert type(model.backbone).__name__ == "ResNet"
    assert model.backbone.depth == 50
    # Three, four, six and three blocks: ResNet-50 itself, not only its name.
    assert [len(getattr(model.backbone, f"layer{i}")) for i in (1, 2, 3, 4)] == [3, 4, 6, 3]
    assert config.model.backbone.init_cfg.type == "Pretrained"
    url = config.model.backbone.init_cfg.checkpoint
    assert url.startswith("https://download.pytorch.org/models/resnet50-")


def test_the_encoder_sees_c3_to_c5(model):
    # C2 is output 0.
    assert tuple(model.backbone.out_indices) == (1, 2, 3)
    with torch.no_grad():
        features = model.backbone(torch.zeros(1, 3, 64, 64))
    assert [tuple(f.shape[1:]) for f in features] == [(512, 8, 8), (1024, 4, 4), (2048, 2, 2)]


def test_transformer_has_six_and_six_layers_and_a_sine_encoding(model):
    assert len(model.encoder.layers) == 6
    assert len(model.decoder.layers) == 6
    assert type(model).__name__ == "DeformableDETR"
    assert type(model.positional_encoding).__name__ == "SinePositionalEncoding"
    assert not list(model.positional_encoding.parameters())


def test_there_is_one_class_with_focal_loss_gamma_2_alpha_a_quarter(model):
    assert model.bbox_head.num_classes == 1
    assert model.bbox_head.cls_out_channels == 1
    assert all(branch.out_features == 1 for branch in model.bbox_head.cls_branches)
    loss = model.bbox_head.loss_cls
    assert type(loss).__name__ == "FocalLoss"
    assert (loss.gamma, loss.alpha, loss.use_sigmoid) == (2.0, 0.25, True)
    # Loss of one slab by hand: a logit of 0 is p = 0.5; -0.25 * 0.5^2 * ln 0.5 * weight 2.
    value = loss(torch.zeros(1, 1), torch.tensor([0]))
    assert value.item() == pytest.approx(2 * 0.25 * 0.25 * np.log(2), rel=1e-5)


def test_matching_uses_the_same_focal_parameters(model):
    (focal,) = [
        cost
        for cost in model.bbox_head.assigner.match_costs
        if type(cost).__name__ == "FocalLossCost"
    ]
    assert (focal.gamma, focal.alpha) == (2, 0.25)


def test_every_parameter_has_the_papers_learning_rate_and_weight_decay(model, optim_wrapper):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert type(optim_wrapper.optimizer) is torch.optim.AdamW
    seen = {"backbone": set(), "rest": set()}
    for group in optim_wrapper.optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.requires_grad:
                room = "backbone" if names[id(parameter)].startswith("backbone.") else "rest"
                seen[room].add((group["lr"], group["weight_decay"]))
    (backbone,), (rest,) = seen["backbone"], seen["rest"]
    assert backbone == pytest.approx((1e-5, 1e-4))
    assert rest == pytest.approx((1e-4, 1e-4))


def test_gradients_are_accumulated_over_6_and_clipped_at_a_tenth(optim_wrapper):
    assert optim_wrapper._accumulative_counts == 6
    assert optim_wrapper.clip_grad_kwargs["max_norm"] == 0.1
    assert optim_wrapper.clip_grad_kwargs.get("norm_type", 2) == 2


def test_training_is_15_epochs_of_batches_of_6_in_fp16(config):
    assert config.train_cfg.type == "EpochBasedTrainLoop"
    assert config.train_cfg.max_epochs == 15
    assert config.train_dataloader.batch_size == 6
    assert config.optim_wrapper.type == "AmpOptimWrapper"
    assert config.optim_wrapper.dtype == "float16"


def test_the_learning_rate_drops_to_a_tenth_at_epoch_10(config, optim_wrapper):
    (settings,) = config.param_scheduler
    assert (settings.type, settings.step_size, settings.gamma) == ("StepLR", 10, 0.1)
    assert settings.by_epoch
    with DefaultScope.overwrite_default_scope("mmdet"):
        scheduler = PARAM_SCHEDULERS.build({**settings, "optimizer": optim_wrapper})
    rates = []
    for _ in range(config.train_cfg.max_epochs):
        rates.append(max(group["lr"] for group in optim_wrapper.optimizer.param_groups))
        optim_wrapper.step()  # no gradients: nothing moves
        scheduler.step()
    assert rates == pytest.approx([1e-4] * 10 + [1e-5] * 5)


def test_augmentations_are_the_papers(config):
    steps = build_steps(config.train_pipeline)
    assert list(steps) == [
        "LoadImageFromFile",
        "LoadAnnotations",
        "RandomFlip",
        "RandomSlabRotate",
        "RandomSlabBrightness",
        "RandomSlabNoise",
        "PackSlab",
    ]
    flip = steps["RandomFlip"]
    chance = dict(zip(flip.direction, flip.prob, strict=True))
    assert chance["horizontal"] + chance["diagonal"] == 0.5
    assert chance["vertical"] + chance["diagonal"] == 0.5
    assert (steps["RandomSlabRotate"].max_angle_deg, steps["RandomSlabRotate"].prob) == (15.0, 1.0)
    assert steps["RandomSlabBrightness"].max_change == 0.15
    assert steps["RandomSlabNoise"].sd_percent == (0.001, 0.18)


def test_the_loaders_use_these_pipelines(config):
    assert config.train_dataloader.dataset.pipeline == config.train_pipeline
    assert config.val_dataloader.dataset.pipeline == config.test_pipeline
    assert config.test_dataloader.dataset.pipeline == config.test_pipeline
    assert not config.train_dataloader.dataset.filter_cfg.filter_empty_gt


def test_preparation_follows_the_order_of_the_paper(config):
    steps = build_steps(config.prep_pipeline)
    assert list(steps) == [
        "LoadCTScan",
        "ResampleScan",
        "OtsuLungMask",
        "DropPeripheralSlices",
        "CropToLungs",
        "WindowHU",
        "CLAHE",
        "MIPSlabs",
    ]
    assert steps["MIPSlabs"].thickness_mm == 7.5
    assert steps["MIPSlabs"].stride_mm is None
    assert steps["ResampleScan"].spacing_zyx_mm == (1.25, 0.7, 0.7)
    assert (steps["WindowHU"].level_hu, steps["WindowHU"].width_hu) == (-600, 1500)
    assert steps["WindowHU"].apply_mask
    assert (steps["CLAHE"].clip_limit, steps["CLAHE"].tiles_yx) == (2.0, (8, 8))


def test_grey_slabs_are_not_colour_swapped(model):
    assert not model.data_preprocessor._channel_conversion


@pytest.mark.parametrize("name", ["lung_deform_detr.py", "lung_deform_detr_phantom.py"])
def test_configs_name_the_plugin_and_build(repository, name):
    config = Config.fromfile(repository / "configs" / name)
    assert "lungdet_mmdet.plugin" in config.custom_imports.imports
    assert not config.custom_imports.allow_failed_imports
    settings = config.model
    settings.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope("mmdet"):
        built = MODELS.build(settings)
    assert built.bbox_head.num_classes == 1
    assert build_steps(config.train_pipeline)
    assert build_steps(config.prep_pipeline)


@pytest.mark.parametrize("name", ["lung_retinanet.py", "lung_faster_rcnn.py", "lung_mask_rcnn.py"])
def test_grazed_and_excluded_findings_are_no_background(repository, name):
    train_cfg = Config.fromfile(repository / "configs" / name).model.train_cfg
    parts = [train_cfg] if "assigner" in train_cfg else [train_cfg.rpn, train_cfg.rcnn]
    assert [part.assigner.ignore_iof_thr for part in parts] == [0.5] * len(parts)
