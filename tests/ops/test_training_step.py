"""mmdet's detectors train a step with nothing but the pure PyTorch ops."""

import sys

import pytest
import torch

from lungdet_mmdet.ops.attention_choice import attention_replaced, mmcv_attention


def tiny_deformable_detr():
    attention = {"embed_dims": 32, "num_heads": 4, "num_levels": 2, "dropout": 0.0}
    feed_forward = {"embed_dims": 32, "feedforward_channels": 32, "ffn_drop": 0.0}
    cross = {**attention, "batch_first": True}
    own = {"embed_dims": 32, "num_heads": 4, "dropout": 0.0, "batch_first": True}
    return {
        "type": "DeformableDETR",
        "num_queries": 10,
        "num_feature_levels": 2,
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
            "layer_cfg": {"self_attn_cfg": cross, "ffn_cfg": feed_forward},
        },
        "decoder": {
            "num_layers": 1,
            "return_intermediate": True,
            "post_norm_cfg": None,
            "layer_cfg": {
                "self_attn_cfg": own,
                "cross_attn_cfg": cross,
                "ffn_cfg": feed_forward,
            },
        },
        "positional_encoding": {"num_feats": 16, "normalize": True, "offset": -0.5},
        "bbox_head": {
            "type": "DeformableDETRHead",
            "num_classes": 1,
            "embed_dims": 32,
            "loss_cls": {"type": "FocalLoss", "use_sigmoid": True},
            "loss_bbox": {"type": "L1Loss"},
            "loss_iou": {"type": "GIoULoss"},
        },
        "train_cfg": {
            "assigner": {
                "type": "HungarianAssigner",
                "match_costs": [
                    {"type": "FocalLossCost"},
                    {"type": "BBoxL1Cost", "box_format": "xywh"},
                    {"type": "IoUCost", "iou_mode": "giou"},
                ],
            }
        },
        "test_cfg": {"max_per_img": 5},
    }


def one_image_batch(boxes):
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    sample = DetDataSample(
        metainfo={
            "img_shape": (64, 64),
            "ori_shape": (64, 64),
            "batch_input_shape": (64, 64),
            "scale_factor": (1.0, 1.0),
        }
    )
    labels = torch.zeros(len(boxes), dtype=torch.long)
    sample.gt_instances = InstanceData(bboxes=torch.tensor(boxes).view(-1, 4), labels=labels)
    image = torch.linspace(-1, 1, 3 * 64 * 64).view(1, 3, 64, 64)
    return image, [sample]


def step(model, boxes):
    """Total loss and the gradients by parameter name of one training step."""
    losses = model.loss(*one_image_batch(boxes))
    total = torch.stack(list(losses.values())).sum()
    model.zero_grad()
    total.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return total.detach(), gradients


@pytest.fixture
def detr(mmcv_ops):
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MODELS.build(tiny_deformable_detr())
        model.init_weights()
        # A new model samples exactly at pixel centres, where the bilinear slope jumps and rounding
        # decides between its two values.
        for name, parameter in model.named_parameters():
            if "sampling_offsets.bias" in name:
                parameter.data += torch.rand_like(parameter) * 0.5 + 0.2
    return model.train()


@pytest.mark.parametrize("boxes", [[[10.0, 10.0, 30.0, 34.0]], []])
def test_deformable_detr_trains_the_same_through_the_stand_in(detr, monkeypatch, boxes):
    module = sys.modules["mmcv.ops.multi_scale_deform_attn"]
    with attention_replaced(mmcv_attention()):
        loss, gradients = step(detr, boxes)
    calls = []

    def through_the_op(value, shapes, locations, weights):
        calls.append(value.shape)
        areas = shapes.prod(dim=1)
        starts = areas.cumsum(0) - areas
        return module.MultiScaleDeformableAttnFunction.apply(
            value, shapes, starts, locations, weights, 64
        )

    monkeypatch.setattr(module, "multi_scale_deformable_attn_pytorch", through_the_op)
    loss_op, gradients_op = step(detr, boxes)
    assert len(calls) == 2
    assert loss.isfinite()
    torch.testing.assert_close(loss_op, loss)
    assert gradients_op.keys() == gradients.keys()
    assert gradients["encoder.layers.0.self_attn.sampling_offsets.weight"].abs().max() > 0
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradients_op[name], gradient, rtol=1e-3, atol=1e-4, msg=name)
