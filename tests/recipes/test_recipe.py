"""What the recipe says is what happens: accumulation, clipping, learning rates, focal loss."""

import math

import pytest
import torch


def build(config):
    from mmdet.registry import MODELS

    torch.manual_seed(0)
    model = MODELS.build(config.model)
    model.init_weights()
    return model


@pytest.fixture
def small(read_tiny):
    """The paper's config with a shallow backbone and no dropout, so that losses only add up."""
    from lungdet_mmdet.engine.run_setup import fall_back_from_amp

    config = read_tiny("lung_deform_detr.py")
    fall_back_from_amp(config)
    config.model.backbone.update(depth=18)
    config.model.neck.in_channels = [128, 256, 512]
    for part in ("encoder", "decoder"):
        layer = config.model[part].layer_cfg
        layer.ffn_cfg.ffn_drop = 0.0
        layer.self_attn_cfg.dropout = 0.0
    config.model.encoder.layer_cfg.self_attn_cfg.dropout = 0.0
    config.model.decoder.layer_cfg.cross_attn_cfg.dropout = 0.0
    return config


def images(seed, count):
    """Random images, each with one nodule, so that every loss is averaged over as many."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.bbox import HorizontalBoxes
    from mmengine.structures import InstanceData

    generator = torch.Generator().manual_seed(seed)
    inputs, samples = [], []
    for _ in range(count):
        inputs.append(torch.randint(0, 255, (3, 32, 32), generator=generator, dtype=torch.uint8))
        x, y = torch.randint(2, 20, (2,), generator=generator).tolist()
        sample = DetDataSample(
            metainfo=dict(img_shape=(32, 32), ori_shape=(32, 32), scale_factor=(1.0, 1.0))
        )
        sample.gt_instances = InstanceData(
            bboxes=HorizontalBoxes(torch.tensor([[x, y, x + 9.0, y + 8.0]])),
            labels=torch.zeros(1, dtype=torch.long),
        )
        samples.append(sample)
    return inputs, samples


def joined(batches):
    return {
        "inputs": [image for inputs, _ in batches for image in inputs],
        "data_samples": [sample for _, samples in batches for sample in samples],
    }


class SpyOptimizer(torch.optim.SGD):
    """Keeps the gradients of each update and changes nothing."""

    def __init__(self, params, lr=1.0):
        super().__init__(params, lr=lr)
        self.updates = []

    def step(self, closure=None):
        gradients = [p.grad for group in self.param_groups for p in group["params"]]
        self.updates.append([None if g is None else g.clone() for g in gradients])


def train(model, batches, *, accumulative_counts, clip=None):
    from mmengine.optim import OptimWrapper

    optimizer = SpyOptimizer(model.parameters())
    wrapper = OptimWrapper(optimizer, accumulative_counts=accumulative_counts, clip_grad=clip)
    wrapper.initialize_count_status(model, 0, len(batches))
    for batch in batches:
        model.train_step(batch, optim_wrapper=wrapper)
    return optimizer.updates


def norm(gradients):
    return math.sqrt(sum(float((g.double() ** 2).sum()) for g in gradients if g is not None))


def test_six_accumulated_batches_are_one_large_batch(small):
    # Six batches of 2 against one of 12: the paper's 6 x 6 = 36, at a size for two cores.
    model = build(small)
    # Norms in evaluation mode: the batch norms of the recipe are frozen anyway.
    model.train()
    parts = [images(seed, 2) for seed in range(6)]
    (accumulated,) = train(model, [joined([p]) for p in parts], accumulative_counts=6)
    (at_once,) = train(model, [joined(parts)], accumulative_counts=1)
    assert norm(at_once) > 1e-3
    difference = [
        a - b for a, b in zip(accumulated, at_once, strict=True) if a is not None and b is not None
    ]
    assert [g is None for g in accumulated] == [g is None for g in at_once]
    assert norm(difference) < 1e-4 * norm(at_once)


def test_clipping_is_per_update_not_per_batch(small):
    model = build(small).train()
    batches = [joined([images(seed, 1)]) for seed in range(3)]
    clip = small.optim_wrapper.clip_grad
    assert clip == {"max_norm": 0.1, "norm_type": 2}
    (plain,) = train(model, batches, accumulative_counts=3)
    (clipped,) = train(model, batches, accumulative_counts=3, clip=dict(clip))
    assert norm(plain) > 0.1
    assert norm(clipped) == pytest.approx(0.1, rel=1e-4)
    # Clipped once, as a sum: every gradient is the plain one times the same factor. Clipped batch
    # by batch the directions would differ.
    factor = norm(clipped) / norm(plain)
    difference = [c - factor * p for c, p in zip(clipped, plain, strict=True) if c is not None]
    assert norm(difference) < 1e-4 * norm(clipped)


def test_the_configs_accumulate_six_batches_of_six(read_tiny):
    config = read_tiny("lung_deform_detr.py")
    assert config.optim_wrapper.accumulative_counts == 6
    assert config.train_dataloader.batch_size == 6


@pytest.mark.parametrize(
    "name", ["lung_deform_detr_two_stage.py", "lung_detr.py", "lung_dino.py", "lung_deform_detr.py"]
)
def test_losses_are_finite_without_any_nodule(read_tiny, name):
    from mmengine.structures import InstanceData

    model = build(read_tiny(name)).train()
    inputs, samples = images(0, 2)
    for sample in samples:
        sample.gt_instances = InstanceData(
            bboxes=sample.gt_instances.bboxes[:0], labels=sample.gt_instances.labels[:0]
        )
    data = model.data_preprocessor(joined([(inputs, samples)]), True)
    losses = model(**data, mode="loss")
    total, log = model.parse_losses(losses)
    assert all(torch.isfinite(value) for value in log.values())
    total.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert norm([p.grad for p in model.parameters()]) > 0  # "nothing here" is something to learn


def test_backbone_learns_at_a_tenth_and_everything_drops_at_epoch_ten(small):
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import PARAM_SCHEDULERS

    model = build(small)
    wrapper = build_optim_wrapper(model, small.optim_wrapper)
    named = {id(p): n for n, p in model.named_parameters()}
    groups = wrapper.optimizer.param_groups
    rates = {named[id(p)]: group["lr"] for group in groups for p in group["params"]}
    assert {lr for n, lr in rates.items() if n.startswith("backbone")} == {1e-5}
    assert {lr for n, lr in rates.items() if not n.startswith("backbone")} == {1e-4}
    scheduler = PARAM_SCHEDULERS.build(dict(small.param_scheduler[0], optimizer=wrapper))
    seen = []
    for _ in range(small.train_cfg.max_epochs):
        seen.append(groups[-1]["lr"])
        scheduler.step()
    assert seen == pytest.approx([1e-4] * 10 + [1e-5] * 5)


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (0.0, 0.75)])
def test_focal_parameters_reach_the_loss(small, gamma, alpha):
    small.model.bbox_head.loss_cls.update(gamma=gamma, alpha=alpha)
    head = build(small).bbox_head
    # Two queries, one on the nodule (label 0) with p = 0.5, one on background (label 1), p = 0.9.
    logits = torch.tensor([[0.0], [math.log(9.0)]])
    loss = head.loss_cls(logits, torch.tensor([0, 1]), torch.ones(2), avg_factor=1.0)
    by_hand = alpha * 0.5**gamma * -math.log(0.5) + (1 - alpha) * 0.9**gamma * -math.log(0.1)
    assert float(loss) == pytest.approx(2.0 * by_hand, rel=1e-4)  # loss weight 2
