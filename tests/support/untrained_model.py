"""A small detector with random weights: to try inputs, outputs and speed before training."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import torch
from mmengine.config import Config

from lungdet_mmdet.apis.model_file import ModelFile
from lungdet_mmdet.evaluation.trained_checkpoint import config_as_data

# Width and height of sigmoid(-2.5), about a twelfth of the slab: the size of large nodules.
BOX_SIZE_BIAS = -2.5


def untrained_config(prep_spacing_zyx_mm: tuple[float, float, float] = (2.5, 1.4, 1.4)) -> Config:
    """Return the config of a Deformable-DETR that runs in a second, on coarse slabs."""
    attention = {"embed_dims": 32, "num_heads": 4, "num_levels": 2}
    feed_forward = {"embed_dims": 32, "feedforward_channels": 64}
    meta_keys = ("img_id", "img_shape", "ori_shape", "scale_factor")
    return Config(
        {
            "prep_pipeline": [
                {"type": "LoadCTScan"},
                {"type": "ResampleScan", "spacing_zyx_mm": prep_spacing_zyx_mm},
                {"type": "OtsuLungMask"},
                {"type": "DropPeripheralSlices"},
                {"type": "CropToLungs"},
                {"type": "WindowHU"},
                {"type": "CLAHE"},
                {"type": "MIPSlabs", "thickness_mm": 7.5},
            ],
            "test_pipeline": [
                {"type": "LoadImageFromFile"},
                {"type": "Resize", "scale_factor": 1.0, "keep_ratio": True},
                {"type": "PackDetInputs", "meta_keys": meta_keys},
            ],
            "model": {
                "type": "DeformableDETR",
                "num_queries": 12,
                "num_feature_levels": 2,
                "data_preprocessor": {
                    "type": "DetDataPreprocessor",
                    "mean": [110.0] * 3,
                    "std": [58.0] * 3,
                    "pad_size_divisor": 32,
                },
                "backbone": {
                    "type": "ResNet",
                    "depth": 18,
                    "num_stages": 2,
                    "strides": (1, 2),
                    "dilations": (1, 1),
                    "out_indices": (1,),
                },
                "neck": {
                    "type": "ChannelMapper",
                    "in_channels": [128],
                    "kernel_size": 1,
                    "out_channels": 32,
                    "norm_cfg": {"type": "GN", "num_groups": 4},
                    "num_outs": 2,
                },
                "encoder": {
                    "num_layers": 1,
                    "layer_cfg": {
                        "self_attn_cfg": {**attention, "batch_first": True},
                        "ffn_cfg": feed_forward,
                    },
                },
                "decoder": {
                    "num_layers": 1,
                    "return_intermediate": True,
                    "post_norm_cfg": None,
                    "layer_cfg": {
                        "self_attn_cfg": {"embed_dims": 32, "num_heads": 4, "batch_first": True},
                        "cross_attn_cfg": {**attention, "batch_first": True},
                        "ffn_cfg": feed_forward,
                    },
                },
                "positional_encoding": {"num_feats": 16, "normalize": True, "offset": -0.5},
                "bbox_head": {
                    "type": "DeformableDETRHead",
                    "num_classes": 1,
                    "embed_dims": 32,
                    "loss_cls": {"type": "FocalLoss", "use_sigmoid": True},
                },
                "test_cfg": {"max_per_img": 12},
            },
        }
    )


def untrained_weights(config: Config, *, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return random weights for a config's model; the same seed gives the same."""
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules
    from mmengine.registry import DefaultScope

    register_all_modules(init_default_scope=False)
    with torch.random.fork_rng(devices=[]), DefaultScope.overwrite_default_scope("mmdet"):
        torch.manual_seed(seed)
        model = MODELS.build(copy.deepcopy(config.model))
        # mmdet leaves this one parameter as it finds it in memory.
        torch.nn.init.normal_(model.level_embed)
    weights = model.state_dict()
    for name, value in weights.items():
        if re.fullmatch(r"bbox_head\.reg_branches\.\d+\.4\.bias", name):
            value[2:] = BOX_SIZE_BIAS
    return weights


def untrained_model(*, seed: int = 0) -> ModelFile:
    """Return a small model that has learnt nothing; ``write_model_file`` makes a file of it."""
    config = untrained_config()
    return ModelFile(
        name="untrained",
        sha256="",
        config=config_as_data(config, source="untrained"),
        state_dict=untrained_weights(config, seed=seed),
        data={"name": "nothing: random weights"},
    )


def write_training_checkpoint(path: Path, *, seed: int = 0) -> None:
    """Write a checkpoint as training does: a pickle that carries its config as Python text."""
    config = untrained_config()
    content = {
        "meta": {"cfg": config.pretty_text, "epoch": 1, "iter": 10},
        "state_dict": untrained_weights(config, seed=seed),
        "optimizer": {},
    }
    torch.save(content, path)
