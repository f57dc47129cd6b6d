"""Prepared pixels have a version: they do not change without it."""

import numpy as np
import pytest

from lungdet_mmdet.preparation.prep_pipeline import PIXELS_VERSION
from tests.preparation.golden_pixels import FILE, block_means, golden_arrays

# A third of a grey level in the mean of 64 pixels, and one voxel of a slice's mask in 2,000.
GREY, SHARE = 0.35, 5e-4


@pytest.fixture(scope="module")
def golden():
    with np.load(FILE) as content:
        return dict(content)


def test_the_kept_pixels_are_of_this_version(golden):
    assert int(golden["version"]) == PIXELS_VERSION, (
        "PIXELS_VERSION was raised: run tests/preparation/golden_pixels.py"
    )


def test_pixels_change_only_with_their_version(golden):
    now = golden_arrays()
    assert now.keys() == golden.keys() - {"version"}
    for name, array in now.items():
        message = f"{name} changed: raise PIXELS_VERSION in preparation/prep_pipeline.py"
        assert array.shape == golden[name].shape, message
        tolerance = GREY if name.endswith("/slabs") else SHARE * golden[name].max()
        difference = np.abs(array.astype(float) - golden[name].astype(float)).max()
        assert difference <= tolerance, message


def test_a_changed_step_would_be_seen(golden):
    # One grey level more in every pixel is far beyond the tolerance.
    slab = np.full((16, 16), 100, dtype=np.uint8)
    assert np.abs(block_means(slab + 1) - block_means(slab)).max() > 2 * GREY
