import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.models import SlabWindow, dense_targets

WINDOW = 96


def sample(nodules=(), ignored=()) -> DetDataSample:
    boxes = [torch.tensor(b, dtype=torch.float32).reshape(-1, 4) for b in (nodules, ignored)]
    shape = {"img_shape": (WINDOW, WINDOW), "batch_input_shape": (WINDOW, WINDOW)}
    out = DetDataSample(metainfo={**shape, "scale_factor": (1.0, 1.0)})
    out.gt_instances = InstanceData(bboxes=boxes[0], labels=torch.zeros(len(boxes[0])).long())
    out.ignored_instances = InstanceData(bboxes=boxes[1])
    return out


def tokens() -> torch.Tensor:
    """Boxes of 4.8 px every 4 px, of 9.6 px every 8 px, as shares of a window of 96 px."""
    levels = []
    for stride, side in ((4, 4.8), (8, 9.6)):
        centres = (torch.arange(0, WINDOW, stride) + stride / 2) / WINDOW
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        wh = torch.full_like(x, side / WINDOW)
        levels.append(torch.stack([x, y, wh, wh], -1).reshape(-1, 4))
    return torch.cat(levels)


def test_the_tokens_about_a_nodule_of_its_size_learn_to_propose_it():
    boxes = tokens()
    # 5 px about (40, 40): between four tokens of the fine level, at 38 and 42.
    labels, weights, positive, targets = dense_targets(
        boxes, sample([[37.5, 37.5, 42.5, 42.5]]), neighbours=4, window_px=WINDOW
    )
    assert sorted((boxes[positive, :2] * WINDOW).round().int().tolist()) == [
        [38, 38],
        [38, 42],
        [42, 38],
        [42, 42],
    ]
    assert (targets * WINDOW).allclose(torch.tensor([40.0, 40.0, 5.0, 5.0]))
    assert (labels == 0).nonzero().flatten().tolist() == sorted(positive.tolist())
    assert (weights[positive] == 1).all()


def test_a_larger_nodule_belongs_to_the_coarser_level():
    boxes = tokens()
    _, _, positive, _ = dense_targets(
        boxes, sample([[35.0, 35.0, 45.0, 45.0]]), neighbours=1, window_px=WINDOW
    )
    assert (boxes[positive, 2] * WINDOW).tolist() == pytest.approx([9.6])


def test_nothing_is_learnt_on_regions_to_be_ignored():
    boxes = tokens()
    labels, weights, positive, _ = dense_targets(
        boxes, sample(ignored=[[36.0, 36.0, 44.0, 44.0]]), neighbours=4, window_px=WINDOW
    )
    assert len(positive) == 0
    assert (labels == 1).all()
    silent = boxes[weights == 0, :2] * WINDOW
    assert len(silent) > 0
    assert ((silent - 40).abs() < 4 + 2).all()


@pytest.fixture(scope="module")
def detector(repository):
    init_default_scope("mmdet")
    config = Config.fromfile(repository / "configs" / "lung_deform_detr_phantom.py")
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    # Only built, mmdet leaves some weights as the memory was, which may be no number.
    model.init_weights()
    return model


@pytest.mark.parametrize("nodules", [[[37.0, 37.0, 43.0, 43.0]], []])
def test_losses_are_finite_and_reach_every_parameter(detector, nodules):
    detector.train().zero_grad()
    losses = detector.loss(torch.randn(2, 3, WINDOW, WINDOW), [sample(nodules), sample()])
    assert {"dense_loss_cls", "dense_loss_bbox", "dense_loss_iou"} <= set(losses)
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in detector.parameters())
    if nodules:
        assert [n for n, p in detector.named_parameters() if p.grad is None] == []


def test_what_a_window_shows_is_found_wherever_the_slab_ends(detector):
    """A slab of one window gives what the window gives; its boxes move with the window."""
    detector.eval()
    image = torch.randn(1, 3, WINDOW, WINDOW, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        (own,) = detector.predict(image, [sample()])
        wide = torch.cat([image, image], dim=3)
        shape = {"img_shape": (WINDOW, 2 * WINDOW)}
        both = sample()
        both.set_metainfo(shape)
        (found,) = detector.predict(wide, [both])
    assert len(own.pred_instances) > 0
    assert found.pred_instances.bboxes[:, 2].max() > WINDOW
    assert np.all(np.diff(found.pred_instances.scores.numpy()) <= 0)


def test_slabs_smaller_than_a_window_give_boxes_inside_it(detector):
    detector.eval()
    small = sample()
    small.set_metainfo({"img_shape": (40, 30)})
    image = torch.randn(1, 3, 48, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        (found,) = detector.predict(image, [small])
    boxes = found.pred_instances.bboxes
    assert len(boxes) > 0
    assert (boxes >= 0).all()
    assert (boxes <= torch.tensor([30.0, 40.0, 30.0, 40.0])).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_positions_are_the_same_for_every_picture_of_a_batch(detector):
    features = torch.zeros(3, 128, 24, 20)
    shared = detector.positional_encoding(None, input=features)
    assert torch.equal(shared, detector.positional_encoding.encoding(None, input=features))


def test_training_on_whole_slabs_is_refused(detector):
    with pytest.raises(LungDetError, match="RandomSlabWindow"):
        detector.loss(torch.zeros(1, 3, 64, 128), [sample()])


def test_only_what_is_lit_is_looked_at(detector):
    detector.eval()
    image = detector._black(torch.zeros(1)).expand(-1, 200, 300).clone()
    image[0] += 1.0  # the slab below is lit everywhere; what this one shows is in the middle
    image[:, 150:170, 40:60] += torch.rand(3, 20, 20, generator=torch.Generator().manual_seed(1))
    slab = sample()
    slab.set_metainfo({"img_shape": (200, 300)})
    seen = []
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            detector,
            "_cut",
            lambda *args: seen.append(args[1]) or type(detector)._cut(detector, *args),
        )
        (found,) = detector.predict(image[None], [slab])
    (window,) = seen
    assert window.start_yx == (160 - WINDOW // 2, 50 - WINDOW // 2)
    assert len(found.pred_instances) > 0


def test_a_black_slab_is_looked_at_once_all_the_same(detector):
    detector.eval()
    slab = sample()
    slab.set_metainfo({"img_shape": (200, 300)})
    image = detector._black(torch.zeros(1)).expand(-1, 200, 300)
    with torch.no_grad():
        (found,) = detector.predict(image[None], [slab])
    assert found.pred_instances.bboxes.isfinite().all()


def test_windows_are_cut_black_beyond_every_side_of_a_slab(detector):
    image = torch.arange(3 * 10 * 10.0).view(3, 10, 10)
    for y, x in ((-3, 4), (4, -90), (-40, -43), (0, 0)):
        window = SlabWindow((y, x), (-np.inf, -np.inf), (np.inf, np.inf))
        cut = detector._cut(image, window)
        assert cut.shape == (3, WINDOW, WINDOW)
        black = detector._black(image).expand_as(cut).clone()
        for row in range(max(0, y), min(10, y + WINDOW)):
            for column in range(max(0, x), min(10, x + WINDOW)):
                black[:, row - y, column - x] = image[:, row, column]
        assert torch.equal(cut, black)
