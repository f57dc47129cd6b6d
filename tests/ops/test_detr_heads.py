"""Heads in single precision, and targets for a whole batch, against mmdet's own."""

import copy

import pytest
import torch
from mmengine.config import Config

import lungdet_mmdet.plugin  # noqa: F401
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.ops.detr_heads import run_heads_in_full_precision
from tests.ops.test_training_step import one_image_batch, tiny_deformable_detr

METAS = [{"img_shape": (60, 80), "seriesuid": "1.2", "slab_index": i} for i in range(3)]


def build(config):
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MODELS.build(config)
        torch.nn.init.normal_(model.level_embed)
    return model


@pytest.fixture
def detr():
    return build(tiny_deformable_detr())


def truths(counts):
    from mmengine.structures import InstanceData

    draw = torch.Generator().manual_seed(1)
    found = []
    for count in counts:
        corner = torch.rand(count, 2, generator=draw) * 40
        size = torch.rand(count, 2, generator=draw) * 15 + 2
        boxes = torch.cat([corner, corner + size], dim=1)
        found.append(InstanceData(bboxes=boxes, labels=torch.zeros(count, dtype=torch.long)))
    return found


def random_outputs(images, queries):
    draw = torch.Generator().manual_seed(2)
    scores = [torch.randn(queries, 1, generator=draw) for _ in range(images)]
    return scores, [torch.rand(queries, 4, generator=draw) for _ in range(images)]


@pytest.mark.parametrize("counts", [[0, 0, 0], [1, 0, 3], [0, 2, 0], [12, 1, 0]])
def test_targets_of_a_batch_are_those_of_mmdet(detr, counts):
    # Twelve nodules and ten queries: two nodules stay without one.
    scores, boxes = random_outputs(3, 10)
    stock = detr.bbox_head.get_targets(scores, boxes, truths(counts), METAS)
    run_heads_in_full_precision(detr)
    ours = detr.bbox_head.get_targets(scores, boxes, truths(counts), METAS)
    for mine, theirs in zip(ours[:4], stock[:4], strict=True):
        for one, other in zip(mine, theirs, strict=True):
            torch.testing.assert_close(one, other)
    assert ours[4:] == stock[4:]


def test_queries_within_a_region_to_be_ignored_learn_nothing_unless_matched(detr):
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    run_heads_in_full_precision(detr)
    head = detr.bbox_head
    # Of the 60 x 80 pixels: within the region by all, by half and by a quarter of their boxes.
    found = torch.tensor([[15.0, 15, 25, 25], [25, 15, 35, 25], [25, 25, 35, 35], [60, 40, 70, 50]])
    boxes = torch.stack([found[:, [0, 2]].mean(1) / 80, found[:, [1, 3]].mean(1) / 60,
                         torch.full((4,), 10 / 80), torch.full((4,), 10 / 60)], dim=1)  # fmt: skip
    samples = []
    for nodules in (torch.zeros(0, 4), found[:1]):
        sample = DetDataSample(metainfo={"img_shape": (60, 80)})
        sample.gt_instances = InstanceData(bboxes=nodules, labels=torch.zeros(len(nodules)).long())
        sample.ignored_instances = InstanceData(bboxes=torch.tensor([[10.0, 10, 30, 30]]))
        samples.append(sample)
    outputs = torch.zeros(1, 2, 4, 1), boxes.expand(1, 2, 4, 4).clone()
    head.forward = lambda *given: outputs
    seen, get_targets = [], head.get_targets
    head.get_targets = lambda *given: seen.append(get_targets(*given)) or seen[-1]
    head.loss(None, [], None, None, batch_data_samples=samples)
    healthy, positive = seen[0][1]
    assert healthy.tolist() == [0, 0, 1, 1]
    assert positive.tolist() == [1, 0, 1, 1]


def test_a_batch_without_a_nodule_waits_for_nothing_and_with_one_once(detr, monkeypatch):
    waits = []
    to_cpu, nonzero = torch.Tensor.cpu, torch.nonzero
    monkeypatch.setattr(torch.Tensor, "cpu", lambda t: waits.append("cpu") or to_cpu(t))
    monkeypatch.setattr(
        torch, "nonzero", lambda *a, **k: waits.append("nonzero") or nonzero(*a, **k)
    )
    scores, boxes = random_outputs(3, 10)
    detr.bbox_head.get_targets(scores, boxes, truths([1, 0, 2]), METAS)
    assert len(waits) == 2 + 6  # mmdet's: one copy for an image with nodules, two more for each
    run_heads_in_full_precision(detr)
    waits.clear()
    detr.bbox_head.get_targets(scores, boxes, truths([0, 0, 0]), METAS)
    assert waits == []
    detr.bbox_head.get_targets(scores, boxes, truths([1, 0, 2]), METAS)
    assert waits == ["cpu"]


def test_a_logit_at_which_half_precision_costs_are_infinite_trains(detr):
    from mmdet.models.task_modules.assigners import FocalLossCost
    from mmengine.structures import InstanceData

    logits = InstanceData(scores=torch.full((10, 1), 9.0, dtype=torch.float16))
    assert FocalLossCost()(logits, truths([1])[0]).isinf().all()  # what mmdet would match by

    head = detr.bbox_head
    with torch.no_grad():
        head.cls_branches[0].weight.zero_()
        head.cls_branches[0].bias.fill_(9.0)
    run_heads_in_full_precision(detr)
    states, references = torch.randn(1, 1, 10, 32).half(), [torch.rand(1, 10, 2).half()]
    _, samples = one_image_batch([[10.0, 10.0, 30.0, 34.0]])
    with torch.autocast("cpu", dtype=torch.float16):
        losses = head.loss(states, references, None, None, batch_data_samples=samples)
    assert all(loss.isfinite() and loss.dtype == torch.float32 for loss in losses.values())


@pytest.mark.parametrize(
    "name", ["lung_deform_detr.py", "lung_deform_detr_two_stage.py", "lung_dino.py"]
)
def test_boxes_under_bfloat16_are_those_of_single_precision_weights(repository, name):
    """Every step from a hidden state to a box is in single precision."""
    config = Config.fromfile(repository / "configs" / name)
    config.model.backbone.init_cfg = None
    config.model.encoder.num_layers = config.model.decoder.num_layers = 1
    config.model.num_queries = config.model.test_cfg.max_per_img = 20
    model = build(config.model).eval()
    run_heads_in_full_precision(model)
    seen = {}
    decode = type(model).forward_decoder

    def watched(self, **inputs):
        states = decode(self, **inputs)
        seen["references"] = states["references"]
        return states

    type(model).forward_decoder, kept = watched, decode
    try:
        image, samples = one_image_batch([])
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            found = model.predict(image, samples)[0].pred_instances
    finally:
        type(model).forward_decoder = kept
    assert found.bboxes.dtype == torch.float32
    for reference in seen["references"]:
        # Numbers that bfloat16 can hold would be told by their last 16 bits.
        assert (reference != reference.bfloat16().float()).float().mean() > 0.9
    assert (found.bboxes != found.bboxes.bfloat16().float()).any()


def test_a_network_of_nan_stops_with_the_slabs_also_where_one_holds_a_nodule(detr):
    run_heads_in_full_precision(detr)
    scores, boxes = random_outputs(3, 10)
    scores[1].fill_(float("nan"))
    with pytest.raises(LungDetError, match=r"not finite .*1\.2 slab 0; 1\.2 slab 1; 1\.2 slab 2"):
        detr.bbox_head.get_targets(scores, boxes, truths([0, 1, 0]), METAS)


def test_a_copy_of_the_detector_calls_its_own_weights(detr):
    run_heads_in_full_precision(detr)
    keys = list(detr.state_dict())
    average = copy.deepcopy(detr)
    with torch.no_grad():
        for parameter in average.parameters():
            parameter.zero_()
    state = torch.randn(2, 32)
    assert detr.bbox_head.reg_branches[0](state).any()
    assert not average.bbox_head.reg_branches[0](state).any()
    assert list(average.state_dict()) == keys


def test_twice_is_once(detr):
    run_heads_in_full_precision(detr)
    kinds = [type(module) for module in detr.modules()]
    run_heads_in_full_precision(detr)
    assert [type(module) for module in detr.modules()] == kinds


@pytest.mark.parametrize("name", ["lung_faster_rcnn.py", "lung_retinanet.py"])
def test_heads_without_queries_take_their_losses_out_of_autocast(repository, name):
    config = Config.fromfile(repository / "configs" / name)
    config.model.backbone.init_cfg = None
    from mmdet.registry import MODELS

    model = MODELS.build(config.model).train()
    run_heads_in_full_precision(model)
    image, samples = one_image_batch([[10.0, 10.0, 30.0, 34.0]])
    samples[0].set_metainfo({"pad_shape": (64, 64)})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model.loss(image, samples)
    flat = [v for value in losses.values() for v in (value if isinstance(value, list) else [value])]
    assert all(v.isfinite().all() and v.dtype == torch.float32 for v in flat)
