import json

import numpy as np
import pytest

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.scoring.results import failed_scan_warnings
from lungdet_mmdet.scoring.run_files import read_predictions
from lungdet_mmdet.scoring.slab_records import SlabDetections, unique_by_slab
from lungdet_mmdet.splits.coco_json import read_slab_set, slab_set_from_coco


def image(number, uid):
    return {
        "id": number, "seriesuid": uid, "slab_index": 3, "spacing": [0.5, 0.5, 7.5],
        "width": 64, "height": 48,
        "origin": [1, 2, 3], "direction": [1, 0, 0, 0, 1, 0, 0, 0, 1], "z_range_mm": [0, 7.5],
    }  # fmt: skip


def content():
    return {
        "images": [image(0, "a"), image(1, "b")],
        "annotations": [
            {"id": 0, "image_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": 1, "diameter_mm": 5,
             "kind": "excluded"},
        ],
        "series": ["a", "b", "without slabs"],
        "nodules": [{"nodule_id": "a/0", "seriesuid": "a", "centre_xyz_mm": [1, 2, 3],
                     "diameter_mm": 4}],
        "discarded_nodules": [{"nodule_id": "b/0", "seriesuid": "b", "centre_xyz_mm": [0, 0, 0],
                               "diameter_mm": 7}],
        "excluded": [{"seriesuid": "b", "centre_xyz_mm": [1, 2, 3], "diameter_mm": None}],
    }  # fmt: skip


def test_reads_slabs_boxes_and_scan_truth():
    slabs = slab_set_from_coco(content())

    assert slabs.slabs[0].boxes == ()
    assert slabs.slabs[1].boxes[0].bbox_xywh_px == (1.0, 2.0, 3.0, 4.0)
    assert slabs.slabs[1].geometry.index == 3
    assert slabs.nodules[0].diameter_mm == 4.0
    assert slabs.excluded[0].extent_mm == 10.0
    assert slabs.discarded[0].nodule_id == "b/0"


@pytest.mark.parametrize(
    ("iscrowd", "kind", "has_nodule", "is_healthy"),
    [
        (0, "nodule", True, False),
        (1, "grazed", False, False),
        (1, "excluded", False, False),
        (1, None, False, False),
    ],
)
def test_a_slab_is_positive_healthy_or_neither(iscrowd, kind, has_nodule, is_healthy):
    coco = content()
    coco["annotations"][0] |= {"iscrowd": iscrowd, "kind": kind}

    empty, slab = slab_set_from_coco(coco).slabs.values()

    assert (empty.has_nodule, empty.is_healthy) == (False, True)
    assert (slab.has_nodule, slab.is_healthy) == (has_nodule, is_healthy)


def test_what_was_not_looked_at_is_left_out_but_scans_without_slabs_stay():
    seen = slab_set_from_coco(content()).restricted_to([1])

    assert list(seen.slabs) == [1]
    assert seen.series == ("b", "without slabs")
    assert (seen.nodules, len(seen.excluded)) == ((), 1)


def test_series_of_slabs_are_never_forgotten():
    without_list = content() | {"series": ["a"]}

    assert slab_set_from_coco(without_list).series == ("a", "b")


@pytest.mark.parametrize("text", ["{", "[]", '{"images": [{"id": 1}], "annotations": []}'])
def test_an_unusable_file_is_named(tmp_path, text):
    path = tmp_path / "val.json"
    path.write_text(text)

    with pytest.raises(LungDetError, match=r"val\.json"):
        read_slab_set(path)


def test_boxes_and_scores_must_belong_together():
    with pytest.raises(LungDetError, match="2 boxes but 1 scores"):
        SlabDetections(0, np.zeros((2, 4)), np.zeros(1))


def test_the_first_record_of_a_slab_is_kept():
    records = [
        SlabDetections(n, np.zeros((1, 4)), np.array([s])) for n, s in [(2, 1), (0, 2), (2, 3)]
    ]

    assert [(item.img_id, item.top_score) for item in unique_by_slab(records)] == [(0, 2), (2, 1)]


@pytest.mark.parametrize("text", ["nothing", json.dumps([{"img_id": 1}])])
def test_an_unusable_prediction_file_is_named(tmp_path, text):
    path = tmp_path / "predictions.json"
    path.write_text(text)

    with pytest.raises(LungDetError, match=r"predictions\.json"):
        read_predictions(path)


def found_on(img_id, seriesuid, slab_index):
    return SlabDetections(
        img_id, np.zeros((0, 4)), np.zeros(0), seriesuid=seriesuid, slab_index=slab_index
    )


def test_detections_on_the_slabs_of_the_set_are_accepted():
    slab_set = slab_set_from_coco(content())
    slab = slab_set.slabs[1]
    assert list(slab_set.seen_by([found_on(1, slab.seriesuid, slab.geometry.index)]).slabs) == [1]
    # A sample may not say which slab it is.
    assert list(slab_set.seen_by([found_on(1, None, None)]).slabs) == [1]


@pytest.mark.parametrize("change", [("other", 0), ("", 1)], ids=["series", "slab"])
def test_detections_on_slabs_of_another_split_are_refused(change):
    slab_set = slab_set_from_coco(content())
    slab = slab_set.slabs[1]
    elsewhere = found_on(1, slab.seriesuid + change[0], slab.geometry.index + change[1])
    with pytest.raises(LungDetError, match="these are two splits"):
        slab_set.seen_by([elsewhere])


def test_two_slabs_of_one_image_id_are_refused():
    with pytest.raises(LungDetError, match="two splits at once"):
        unique_by_slab([found_on(1, "a", 0), found_on(1, "b", 0)])
    assert len(unique_by_slab([found_on(1, "a", 0), found_on(1, "a", 0)])) == 1


@pytest.mark.parametrize(("data", "count"), [("LUNA16", 0), ("CT scans", 1)])
def test_failed_scans_count_by_the_rules_of_the_challenge_alone(data, count):
    failed = {**content(), "failed_series": ["without slabs"], "info": {"data": data}}
    assert len(slab_set_from_coco(failed).not_looked_at) == count
    (warning,) = failed_scan_warnings(slab_set_from_coco(failed))
    assert ("by LUNA16's rules" in warning) == (data == "LUNA16")
