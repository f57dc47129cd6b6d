import numpy as np
import pytest

from lungdet_mmdet.datasets.transforms import RandomSlabNoise


def test_noise_is_in_per_cent_of_the_full_grey_range():
    # 0.18 % of 255 is 0.459 grey levels.
    np.random.seed(0)
    image = np.full((300, 300, 3), 100, np.uint8)
    noisy = RandomSlabNoise(sd_percent=(0.18, 0.18))({"img": image})["img"]
    assert noisy.dtype == np.float32
    assert np.std(noisy - 100.0) == pytest.approx(0.459, rel=0.02)
    np.testing.assert_array_equal(noisy[..., 0], noisy[..., 1])


def test_standard_deviations_span_the_papers_range():
    # 0.001 % and 0.18 % of 255 are 0.00255 and 0.459 grey levels.
    np.random.seed(0)
    transform = RandomSlabNoise()
    sds = [transform._draw()[0] for _ in range(500)]
    assert 0.00255 <= min(sds) < 0.02
    assert 0.45 < max(sds) <= 0.459


def test_the_same_seed_gives_the_same_noise():
    outs = []
    for seed in (3, 3, 4):
        np.random.seed(seed)
        outs.append(RandomSlabNoise()({"img": np.zeros((20, 20, 3), np.uint8)})["img"])
    np.testing.assert_array_equal(outs[0], outs[1])
    assert not np.array_equal(outs[0], outs[2])
