import numpy as np

from lungdet_mmdet.datasets.transforms import RandomSlabBrightness


def test_factors_stay_within_the_limit_and_reach_it():
    np.random.seed(0)
    transform = RandomSlabBrightness(max_change=0.15)
    levels = [
        transform({"img": np.full((1, 1, 3), 100, np.uint8)})["img"][0, 0, 0] for _ in range(400)
    ]
    assert min(levels) == 85
    assert max(levels) == 115


def test_black_stays_black_and_white_does_not_wrap():
    np.random.seed(0)
    for _ in range(20):
        out = RandomSlabBrightness(max_change=0.5)({"img": np.array([[[0], [250]]], np.uint8)})
        assert out["img"].dtype == np.uint8
        assert out["img"][0, 0, 0] == 0
        assert out["img"][0, 1, 0] >= 125


def test_the_same_seed_gives_the_same_brightness():
    levels = []
    for seed in (3, 3, 4):
        np.random.seed(seed)
        levels.append(RandomSlabBrightness()({"img": np.full((1, 1), 100.0, np.float32)})["img"])
    assert levels[0] == levels[1]
    assert levels[0] != levels[2]
