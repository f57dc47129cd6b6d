import math

import pytest
import torch
from torch.autograd import gradcheck

LN2, LN3 = math.log(2), math.log(3)


def loss(mmcv_ops, logits, target, weight=None, reduction="none"):
    return mmcv_ops.sigmoid_focal_loss(
        torch.tensor(logits), torch.tensor(target), 2.0, 0.25, weight, reduction
    )


def test_loss_equals_the_formula_worked_out_by_hand(mmcv_ops):
    # p = 1/2 at logit 0 and p = 3/4 at logit ln 3.
    values = loss(mmcv_ops, [[0.0, 0.0], [LN3, LN3]], [0, 1])
    expected = torch.tensor(
        [
            [0.25 * 0.5**2 * LN2, 0.75 * 0.5**2 * LN2],
            [0.75 * 0.75**2 * math.log(4), 0.25 * 0.25**2 * math.log(4 / 3)],
        ]
    )
    torch.testing.assert_close(values, expected)


@pytest.mark.parametrize("background", [2, -1])
def test_background_is_negative_for_every_class(mmcv_ops, background):
    values = loss(mmcv_ops, [[0.0, 0.0]], [background])
    torch.testing.assert_close(values, torch.full((1, 2), 0.75 * 0.25 * LN2))


def test_class_weights_follow_the_target_and_leave_background_alone(mmcv_ops):
    logits = [[0.0, 0.0]] * 3
    plain = loss(mmcv_ops, logits, [0, 1, 2])
    weighted = loss(mmcv_ops, logits, [0, 1, 2], torch.tensor([3.0, 5.0]))
    torch.testing.assert_close(weighted, plain * torch.tensor([[3.0], [5.0], [1.0]]))


def test_reductions(mmcv_ops):
    total = loss(mmcv_ops, [[0.0], [0.0]], [0, 1], reduction="sum")
    assert total.item() == pytest.approx(0.25 * LN2)  # (0.25 + 0.75) * 0.25 ln 2
    mean = loss(mmcv_ops, [[0.0], [0.0]], [0, 1], reduction="mean")
    assert mean.item() == pytest.approx(0.125 * LN2)


def test_no_samples_cost_nothing(mmcv_ops):
    logits = torch.zeros(0, 2, requires_grad=True)
    total = mmcv_ops.sigmoid_focal_loss(
        logits, torch.zeros(0, dtype=torch.long), 2.0, 0.25, None, "sum"
    )
    total.backward()
    assert total.item() == 0.0
    assert logits.grad.shape == (0, 2)


def test_extreme_logits_stay_finite_in_half_precision(mmcv_ops):
    logits = torch.tensor([[-60.0, 60.0]], dtype=torch.float16, requires_grad=True)
    values = mmcv_ops.sigmoid_focal_loss(logits, torch.tensor([0]), 2.0, 0.25, None, "none")
    # -alpha log p = 0.25 * 60 and -(1 - alpha) log(1 - p) = 0.75 * 60.
    assert values.tolist() == [[15.0, 45.0]]
    values.sum().backward()
    assert logits.grad.tolist() == [[-0.25, 0.75]]


def test_half_precision_rounds_only_the_result(mmcv_ops):
    logits = torch.linspace(-2, 2, 9).half().view(-1, 1)
    target = torch.zeros(9, dtype=torch.long)
    results = []
    for values in (logits.clone(), logits.float()):
        values.requires_grad_()
        losses = mmcv_ops.sigmoid_focal_loss(values, target, 2.0, 0.25, None, "none")
        (gradient,) = torch.autograd.grad(losses.sum(), values)
        results.append((losses, gradient))
    for half, single in zip(*results, strict=True):
        assert half.dtype == torch.float16
        torch.testing.assert_close(half, single.half(), rtol=0, atol=0)


@pytest.mark.parametrize("gamma", [1.5, 2.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_equal_finite_differences(mmcv_ops, gamma, weighted):
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, generator=draw, dtype=torch.float64).requires_grad_()
    target = torch.tensor([0, 2, 3, 1])
    weight = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64) if weighted else None
    for reduction in ("sum", "mean"):
        assert gradcheck(
            lambda x, how=reduction: mmcv_ops.sigmoid_focal_loss(
                x, target, gamma, 0.25, weight, how
            ),
            (logits,),
        )
