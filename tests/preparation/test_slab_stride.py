"""Strides that a model can be looked through with, and those that would miss something."""

import pytest

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.preparation.prep_pipeline import with_stride


def test_only_the_slab_step_is_changed():
    steps = [{"type": "LoadCTScan"}, {"type": "MIPSlabs", "thickness_mm": 5.0}]
    assert with_stride(steps, 2.5) == [
        {"type": "LoadCTScan"},
        {"type": "MIPSlabs", "thickness_mm": 5.0, "stride_mm": 2.5},
    ]
    assert steps[1] == {"type": "MIPSlabs", "thickness_mm": 5.0}


def test_the_default_thickness_is_that_of_the_step():
    steps = [{"type": "MIPSlabs"}]
    assert with_stride(steps, 7.5)[0]["stride_mm"] == 7.5
    with pytest.raises(LungDetError, match=r"at most the slab thickness, 7\.5 mm"):
        with_stride(steps, 7.6)


@pytest.mark.parametrize("steps", [[{"type": "MIPSlabs", "thickness_mm": 0}], [{"type": "Own"}]])
def test_no_stride_for_models_that_see_single_slices_or_slabs_of_their_own(steps):
    with pytest.raises(LungDetError, match="nothing between its slabs"):
        with_stride(steps, 20.0)
