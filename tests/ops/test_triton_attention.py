"""Triton's kernels against mmcv's pure PyTorch version: compiled on a GPU, interpreted without."""

import pytest
import torch
from torch.autograd import gradcheck

from lungdet_mmdet.ops.attention_choice import BagAttention, mmcv_attention

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def case(seed, *, dtype=torch.float32, **fixed):
    """Random sizes, none of them a multiple of a block; a third of the points lie outside."""
    draw = torch.Generator().manual_seed(seed)

    def pick(low, high):
        return int(torch.randint(low, high + 1, (1,), generator=draw))

    size = dict(batch=pick(1, 2), queries=pick(1, 7), heads=pick(1, 3), channels=pick(1, 9),
                levels=pick(1, 3), points=pick(1, 3))  # fmt: skip
    size.update(fixed)
    shapes = torch.tensor([[pick(1, 6), pick(1, 6)] for _ in range(size["levels"])])
    areas = shapes.prod(1)
    grid = (size["batch"], size["queries"], size["heads"], size["levels"], size["points"])
    value = torch.randn(
        size["batch"], int(areas.sum()), size["heads"], size["channels"], generator=draw
    )
    locations = torch.rand(*grid, 2, generator=draw) * 1.4 - 0.2
    weights = torch.rand(grid, generator=draw)
    weights = weights / weights.sum((-1, -2), keepdim=True)
    starts = areas.cumsum(0) - areas
    floats = [t.to(DEVICE, dtype).requires_grad_() for t in (value, locations, weights)]
    return floats, shapes.to(DEVICE), starts.to(DEVICE)


def with_gradients(function, inputs):
    out = function(*inputs)
    upstream = torch.linspace(-1, 1, out.numel(), device=out.device).view_as(out).to(out.dtype)
    return out, *torch.autograd.grad(out, inputs, upstream)


def both(triton_attention, inputs, shapes, starts):
    """Results and gradients by the kernels and, in double precision, by mmcv's own function."""
    ours = with_gradients(
        lambda v, xy, w: triton_attention.apply(v, shapes, starts, xy, w, 64), inputs
    )
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    theirs = with_gradients(lambda v, xy, w: mmcv_attention()(v, shapes, xy, w), exact)
    return ours, theirs


def largest_difference(ours, theirs):
    return [(a.double() - b).abs().max().item() for a, b in zip(ours, theirs, strict=True)]


@pytest.mark.slow
def test_200_random_cases_equal_mmcv(triton_attention):
    for seed in range(200):
        inputs, shapes, starts = case(seed)
        # A bilinear slope jumps at pixel centres: rounding would decide between its two values.
        position = inputs[1].detach() * shapes.flip(1)[:, None] - 0.5
        assert ((position - position.round()).abs() > 1e-5).all(), seed
        out, *gradients = largest_difference(*both(triton_attention, inputs, shapes, starts))
        assert out < 1e-6, seed
        assert max(gradients) < 1e-5, seed


@pytest.mark.parametrize(
    "size",
    [
        {"queries": 1, "batch": 1, "heads": 1, "channels": 1},
        {"queries": 37, "heads": 3, "channels": 33},  # three and a half blocks of 16 rows
        {"channels": 32, "heads": 8, "queries": 3, "levels": 2, "points": 4},  # the detector's
    ],
)
def test_odd_sizes_and_one_query(triton_attention, size):
    out, *gradients = largest_difference(*both(triton_attention, *case(1, **size)))
    assert out < 1e-6
    assert max(gradients) < 2e-5


@pytest.mark.parametrize(
    ("dtype", "close"), [(torch.float16, 2e-3), (torch.bfloat16, 1.6e-2)], ids=["fp16", "bf16"]
)
def test_half_precision_values_keep_dtype_and_exact_positions(triton_attention, dtype, close):
    # As under autocast: values in half precision, positions and weights in single.
    for seed in range(10):
        (value, locations, weights), shapes, starts = case(seed)
        inputs = [value.detach().to(dtype).requires_grad_(), locations, weights]
        ours, theirs = both(triton_attention, inputs, shapes, starts)
        assert [t.dtype for t in ours] == [dtype, dtype, torch.float32, torch.float32]
        scale = [max(t.abs().max().item(), 1.0) for t in theirs]
        for difference, largest in zip(largest_difference(ours, theirs), scale, strict=True):
            assert difference < close * largest, seed


def test_many_small_gradients_of_a_half_precision_value_add_up(triton_attention):
    # 5000 queries read one pixel; in fp16 the sum would stay at 2048.
    value = torch.ones(1, 1, 1, 1, dtype=torch.float16, device=DEVICE, requires_grad=True)
    shapes, starts = torch.tensor([[1, 1]], device=DEVICE), torch.tensor([0], device=DEVICE)
    locations = torch.full((1, 5000, 1, 1, 1, 2), 0.5, device=DEVICE)
    weights = torch.ones(1, 5000, 1, 1, 1, device=DEVICE)
    triton_attention.apply(value, shapes, starts, locations, weights, 64).sum().backward()
    assert value.grad.item() == 5000


def test_gradients_equal_finite_differences(triton_attention):
    inputs, shapes, starts = case(3, dtype=torch.float64, queries=2, channels=3)
    assert gradcheck(lambda v, xy, w: triton_attention.apply(v, shapes, starts, xy, w, 64), inputs)


def test_views_that_are_not_contiguous(triton_attention):
    (value, locations, weights), shapes, starts = case(5, batch=2, queries=4, heads=2, points=2)
    views = [
        value.detach().transpose(1, 3).contiguous().transpose(1, 3),
        locations.detach().flip(-1).contiguous().flip(-1).transpose(0, 1).contiguous()
        .transpose(0, 1),
        weights.detach().transpose(1, 2).contiguous().transpose(1, 2),
    ]  # fmt: skip
    assert not any(view.is_contiguous() for view in views)
    views = [view.requires_grad_() for view in views]
    out, *gradients = largest_difference(*both(triton_attention, views, shapes, starts))
    assert out < 1e-6
    assert max(gradients) < 1e-5


@pytest.mark.parametrize("shapes", [[[0, 3], [2, 2]], [[2, 2], [0, 0]], [[2, 2], [3, 0], [1, 1]]])
@pytest.mark.parametrize("name", ["triton", "bag"])
def test_a_level_without_pixels_reads_zero(triton_attention, name, shapes):
    function = {"triton": triton_attention, "bag": BagAttention}[name]
    shapes = torch.tensor(shapes, device=DEVICE)
    areas = shapes.prod(1)
    levels = len(shapes)
    value = torch.ones(1, int(areas.sum()), 1, 2, device=DEVICE, requires_grad=True)
    locations = torch.full((1, 1, 1, levels, 1, 2), 0.5, device=DEVICE)
    weights = torch.ones(1, 1, 1, levels, 1, device=DEVICE)
    out = function.apply(value, shapes, areas.cumsum(0) - areas, locations, weights, 64)
    filled = int((areas > 0).sum())
    assert out.flatten().tolist() == [filled, filled]
    out.sum().backward()
    assert value.grad.sum().item() == pytest.approx(2 * filled)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_position_that_is_not_finite_shows_as_nan_and_harms_no_other(triton_attention, bad):
    (value, locations, weights), shapes, starts = case(7, batch=1, queries=3, heads=1)
    with torch.no_grad():
        locations[0, 1, 0, 0, 0, 0] = bad
    out = triton_attention.apply(value, shapes, starts, locations, weights, 64)
    assert out[0, 1].isnan().all()
    assert out[0, [0, 2]].isfinite().all()


def test_no_queries_and_no_keys(triton_attention):
    (value, locations, weights), shapes, starts = case(9)
    out = triton_attention.apply(value, shapes, starts, locations[:, :0], weights[:, :0], 64)
    assert out.shape == (len(value), 0, value.shape[2] * value.shape[3])
    out.sum().backward()
    assert not value.grad.any()


def test_points_far_outside_read_zero_and_have_no_slope(triton_attention):
    (value, locations, weights), shapes, starts = case(11)
    with torch.no_grad():
        locations.fill_(1e9)
    out, *gradients = with_gradients(
        lambda v, xy, w: triton_attention.apply(v, shapes, starts, xy, w, 64),
        [value, locations, weights],
    )
    assert not out.any()
    assert not any(gradient.any() for gradient in gradients)
