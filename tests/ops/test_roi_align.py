import pytest
import torch
from torch.autograd import gradcheck

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.ops import plain_ops


def ramp(images=1):
    """(images, 2, 4, 4): channel 0 is x, channel 1 is 10 y; every image adds 100."""
    x = torch.arange(4.0).expand(4, 4)
    one = torch.stack((x, 10 * x.T))
    return torch.stack([one + 100 * image for image in range(images)])


def pool(mmcv_ops, features, rois, **options):
    settings = {"output_size": 2, "spatial_scale": 1.0, "sampling_ratio": 2, "aligned": True}
    settings.update(options)
    return mmcv_ops.RoIAlign(**settings)(features, torch.tensor(rois))


@pytest.mark.parametrize("sampling_ratio", [2, 0])
def test_aligned_bins_average_their_samples(mmcv_ops, sampling_ratio):
    # Samples at x = 0, 1 | 2, 3 in index coordinates; 0 asks for 2 of them by the bin's size.
    out = pool(mmcv_ops, ramp(), [[0.0, 0.0, 0.0, 4.0, 4.0]], sampling_ratio=sampling_ratio)
    assert out[0, 0].tolist() == [[0.5, 2.5], [0.5, 2.5]]
    assert out[0, 1].tolist() == [[5.0, 5.0], [25.0, 25.0]]


def test_the_older_convention_is_half_a_pixel_off(mmcv_ops):
    # Samples at 0.5, 1.5 | 2.5, 3.5, the last one held at the edge pixel 3.
    out = pool(mmcv_ops, ramp(), [[0.0, 0.0, 0.0, 4.0, 4.0]], aligned=False)
    assert out[0, 0].tolist() == [[1.0, 2.75], [1.0, 2.75]]


def test_the_older_convention_enlarges_small_regions_to_a_pixel(mmcv_ops):
    # One pixel from x = 1: bins centred at 1.25 and 1.75.
    out = pool(mmcv_ops, ramp(), [[0.0, 1.0, 1.0, 1.0, 1.0]], aligned=False, sampling_ratio=1)
    assert out[0, 0].tolist() == [[1.25, 1.75], [1.25, 1.75]]


def test_regions_are_scaled_and_read_their_own_image(mmcv_ops):
    rois = [[1.0, 0.0, 0.0, 8.0, 8.0], [0.0, 4.0, 0.0, 8.0, 8.0]]
    out = pool(mmcv_ops, ramp(images=2), rois, spatial_scale=0.5)
    assert out[0, 0, 0].tolist() == [100.5, 102.5]
    assert out[1, 0, 0].tolist() == [2.0, 2.875]  # at 1.75, 2.25 | 2.75, 3.25 held at 3


def test_what_lies_outside_counts_as_zero(mmcv_ops):
    out = pool(mmcv_ops, ramp() + 1, [[0.0, 10.0, 10.0, 12.0, 12.0]])
    assert not out.any()


def test_empty_regions_pool_to_zero(mmcv_ops):
    features = ramp() + 1
    assert not pool(mmcv_ops, features, [[0.0, 2.0, 2.0, 2.0, 2.0]], sampling_ratio=0).any()
    none = mmcv_ops.RoIAlign(2)(features, torch.zeros(0, 5))
    assert none.shape == (0, 2, 2, 2)


ROIS = [
    [0.0, 0.3, 0.2, 3.1, 2.9],
    [1.0, 1.0, 0.0, 2.0, 4.0],
    [1.0, -2.0, -2.0, 6.0, 6.0],
    [0.0, 0.3, 0.2, 3.3, 2.9],
]


@pytest.mark.parametrize("sampling_ratio", [0, 1])
def test_gradients_equal_finite_differences(mmcv_ops, sampling_ratio):
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(2, 2, 4, 5, generator=draw, dtype=torch.float64).requires_grad_()
    layer = mmcv_ops.RoIAlign((3, 2), 0.8, sampling_ratio)
    assert gradcheck(lambda x: layer(x, torch.tensor(ROIS, dtype=torch.float64)), (features,))


def test_one_region_at_a_time_gives_the_same(mmcv_ops, monkeypatch):
    features = ramp(images=2).requires_grad_()
    together = pool(mmcv_ops, features, ROIS, sampling_ratio=0)
    (gradient,) = torch.autograd.grad(together.sum(), features)
    monkeypatch.setattr(plain_ops, "SAMPLES_AT_ONCE", 1)
    apart = pool(mmcv_ops, features, ROIS, sampling_ratio=0)
    torch.testing.assert_close(apart, together)
    torch.testing.assert_close(torch.autograd.grad(apart.sum(), features)[0], gradient)


def test_half_precision_keeps_its_dtype(mmcv_ops):
    features = ramp().half().requires_grad_()
    out = mmcv_ops.RoIAlign(2, 1.0, 2)(features, torch.tensor([[0, 0, 0, 4, 4]]).half())
    assert out.dtype == torch.float16
    assert out[0, 0, 0].tolist() == [0.5, 2.5]
    out.sum().backward()
    # Each of the 2 x 2 bins has 4 samples of weight 1/4, one on every pixel.
    assert features.grad.unique().tolist() == [0.25]


def test_maximum_pooling_says_what_to_install(mmcv_ops):
    with pytest.raises(LungDetError, match=r"pool_mode='max'.*mim install"):
        mmcv_ops.RoIAlign(2, pool_mode="max")(ramp(), torch.zeros(1, 5))
