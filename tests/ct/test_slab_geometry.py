import json
import math

import pytest

from lungdet_mmdet.ct.slabs import SlabGeometry, thickness_flags
from lungdet_mmdet.errors import LungDetError

RECORD = {
    "index": 3,
    "width": 40,
    "height": 30,
    "z_range_mm": [-10.0, -2.5],
    "spacing": [0.7, 0.8, 7.5],
    "origin": [1.0, 2.0, -6.25],
    "direction": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
}


def slab(**changes) -> SlabGeometry:
    values = {
        "index": 3,
        "width": 40,
        "height": 30,
        "z_range_mm": (-10.0, -2.5),
        "spacing_xy_mm": (0.7, 0.8),
        "origin_xyz_mm": (1.0, 2.0, -6.25),
    }
    return SlabGeometry(**{**values, **changes})


def test_a_slab_has_the_field_names_of_the_prepared_dataset():
    assert slab().as_record() == RECORD


def test_a_record_survives_the_disk():
    assert SlabGeometry.from_record(json.loads(json.dumps(slab().as_record()))) == slab()


def test_a_coco_image_is_a_record_too():
    image = {**RECORD, "id": 7, "seriesuid": "1.2", "slab_index": 3, "file_name": "1.2/003.png"}
    assert SlabGeometry.from_record(image) == slab()
    del image["index"]
    assert SlabGeometry.from_record(image) == slab()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 0}, "slab 3: size is 0 x 30"),
        ({"z_range_mm": (-2.5, -10.0)}, "low must be below high"),
        ({"z_range_mm": (1.0, 1.0)}, "low must be below high"),
        ({"z_range_mm": (0.0, math.inf)}, "must be finite"),
        ({"spacing_xy_mm": (0.7, -0.8)}, "positive spacings"),
        ({"direction": (1.0, 0.0, 0.0)}, "nine numbers"),
        ({"origin_xyz_mm": (math.nan, 0.0, 0.0)}, "must be finite"),
    ],
)
def test_an_impossible_slab_is_refused(changes, message):
    with pytest.raises(LungDetError, match=message):
        slab(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"width": None},
        {"z_range_mm": [1.0]},
        {"spacing": [0.7]},
        {"origin": "abc"},
        {"direction": ["a"] * 9},
    ],
)
def test_an_incomplete_record_is_refused(changes):
    with pytest.raises(LungDetError, match="is not complete"):
        SlabGeometry.from_record({**RECORD, **changes})


@pytest.mark.parametrize("name", sorted(RECORD))
def test_every_field_is_needed(name):
    with pytest.raises(LungDetError, match="is not complete"):
        SlabGeometry.from_record({key: RECORD[key] for key in RECORD if key != name})


@pytest.mark.parametrize(("slice_mm", "flags"), [(3.75, ()), (5.0, ("thick_slices",))])
def test_slices_of_which_a_slab_holds_fewer_than_two_are_flagged(slice_mm, flags):
    assert thickness_flags(slice_mm) == flags
