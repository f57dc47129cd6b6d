import pytest
import torch
from torch.autograd import gradcheck

from lungdet_mmdet.ops.attention_choice import mmcv_attention
from lungdet_mmdet.ops.deform_attn import deform_attn

DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()
SHAPES = torch.tensor([[5, 4], [3, 2]])
STARTS = torch.tensor([0, 20])


def random_inputs(dtype, device="cpu", queries=3):
    """Value, locations (some outside) and weights: 2 images, 2 heads, 4 channels, 2 points."""
    draw = torch.Generator().manual_seed(0)
    value = torch.randn(2, 26, 2, 4, generator=draw, dtype=torch.float64)
    locations = torch.rand(2, queries, 2, 2, 2, 2, generator=draw, dtype=torch.float64) * 1.6 - 0.3
    weights = torch.rand(2, queries, 2, 2, 2, generator=draw, dtype=torch.float64)
    return [t.to(device, dtype).requires_grad_() for t in (value, locations, weights)]


def sample_once(x, y, *, weight=1.0):
    """One sample from the one-level 2 x 2 map [[1, 2], [3, 4]]."""
    out = deform_attn(
        torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1),
        torch.tensor([[2, 2]]),
        torch.tensor([0]),
        torch.tensor([x, y]).view(1, 1, 1, 1, 1, 2),
        torch.tensor([weight]).view(1, 1, 1, 1, 1),
    )
    assert out.shape == (1, 1, 1)
    return out.item()


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (0.25, 0.25, 1.0),  # the centre of the first pixel
        (0.75, 0.25, 2.0),
        (0.25, 0.75, 3.0),
        (0.5, 0.5, 2.5),  # between all four
        (0.0, 0.25, 0.5),  # half of the sample lies outside and reads zero
        (0.0, 0.0, 0.25),
        (1.0, 1.0, 1.0),  # a quarter of 4
        (-0.25, 0.25, 0.0),  # a whole pixel outside
        (1.25, 0.25, 0.0),
        (1e9, 0.25, 0.0),
    ],
)
def test_one_sample_is_bilinear_with_zeros_outside(x, y, expected):
    assert sample_once(x, y) == pytest.approx(expected)


def test_the_sample_is_scaled_by_its_attention_weight():
    assert sample_once(0.75, 0.75, weight=0.5) == pytest.approx(2.0)


def test_a_position_that_is_not_finite_shows_as_nan():
    assert sample_once(float("nan"), 0.5) != sample_once(float("nan"), 0.5)
    assert sample_once(float("inf"), 0.5) != sample_once(float("inf"), 0.5)


def test_levels_and_heads_do_not_mix():
    # Level 0 is one pixel and level 1 is one pixel; two heads. Value = 10 * level + head + 1.
    value = torch.tensor([[1.0, 2.0], [11.0, 12.0]]).view(1, 2, 2, 1)
    weights = torch.tensor([[1.0, 0.0], [0.5, 2.0]]).view(1, 1, 2, 2, 1)
    out = deform_attn(
        value,
        torch.tensor([[1, 1], [1, 1]]),
        torch.tensor([0, 1]),
        torch.full((1, 1, 2, 2, 1, 2), 0.5),
        weights,
    )
    assert out.flatten().tolist() == [1.0, 0.5 * 2.0 + 2.0 * 12.0]


def test_no_queries_give_an_empty_result_and_zero_gradients(mmcv_ops):
    value, locations, weights = random_inputs(torch.float32, queries=0)
    function = mmcv_ops.multi_scale_deform_attn.MultiScaleDeformableAttnFunction
    out = function.apply(value, SHAPES, STARTS, locations, weights, 64)
    assert out.shape == (2, 0, 8)
    out.sum().backward()
    assert not value.grad.any()


@pytest.mark.parametrize("device", DEVICES)
def test_forward_and_gradients_equal_those_of_mmcv_in_pytorch(mmcv_ops, device):
    module = mmcv_ops.multi_scale_deform_attn
    inputs = random_inputs(torch.float32, device)
    value, locations, weights = inputs
    shapes, starts = SHAPES.to(device), STARTS.to(device)
    ours = module.MultiScaleDeformableAttnFunction.apply(
        value, shapes, starts, locations, weights, 64
    )
    theirs = mmcv_attention()(value, shapes, locations, weights)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    upstream = torch.linspace(-1, 1, ours.numel(), device=device).view_as(ours)
    for one, other in zip(
        torch.autograd.grad(ours, inputs, upstream),
        torch.autograd.grad(theirs, inputs, upstream),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("device", DEVICES)
def test_gradients_equal_finite_differences(mmcv_ops, device):
    function = mmcv_ops.multi_scale_deform_attn.MultiScaleDeformableAttnFunction
    value, locations, weights = random_inputs(torch.float64, device)
    shapes, starts = SHAPES.to(device), STARTS.to(device)
    assert gradcheck(
        lambda v, xy, w: function.apply(v, shapes, starts, xy, w, 64), (value, locations, weights)
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_close_and_keeps_its_dtype(mmcv_ops, dtype, device):
    function = mmcv_ops.multi_scale_deform_attn.MultiScaleDeformableAttnFunction
    shapes, starts = SHAPES.to(device), STARTS.to(device)
    value, locations, weights = random_inputs(dtype, device)
    with torch.autocast(device, dtype=torch.bfloat16):
        out = function.apply(value, shapes, starts, locations, weights, 64)
    assert out.dtype == dtype
    exact = deform_attn(value.double(), shapes, starts, locations.double(), weights.double())
    torch.testing.assert_close(out.double(), exact, rtol=1e-2, atol=1e-2)
    out.sum().backward()
    assert value.grad.dtype == dtype
    assert value.grad.isfinite().all()
