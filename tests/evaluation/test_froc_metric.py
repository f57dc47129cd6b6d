import json

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import METRICS

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.evaluation.metrics import FROCMetric


@pytest.fixture
def coco():
    """Scan "a" with a 10 mm nodule at (10, 10, 7.5) between two slabs, healthy scans "b", "c"."""

    def image(number, uid, index):
        return {
            "id": number, "seriesuid": uid, "slab_index": index, "spacing": [0.5, 0.5, 7.5],
            "origin": [0, 0, 7.5 * index + 3.75], "direction": [1, 0, 0, 0, 1, 0, 0, 0, 1],
            "width": 64, "height": 64, "z_range_mm": [7.5 * index, 7.5 * index + 7.5],
        }  # fmt: skip

    return {
        "info": {"data": "phantom"},
        "images": [image(0, "a", 0), image(1, "a", 1), image(2, "b", 0)],
        "annotations": [
            {"id": n, "image_id": n, "bbox": [10.5, 10.5, 20, 20], "iscrowd": 0, "diameter_mm": 10}
            for n in (0, 1)
        ],
        "series": ["a", "b", "c"],
        "nodules": [{"nodule_id": "a/0", "seriesuid": "a", "centre_xyz_mm": [10, 10, 7.5],
                     "diameter_mm": 10}],
        "excluded": [{"seriesuid": "b", "centre_xyz_mm": [50, 50, 3.75], "diameter_mm": -1}],
    }  # fmt: skip


@pytest.fixture
def ann_file(tmp_path, coco):
    path = tmp_path / "val.json"
    path.write_text(json.dumps(coco))
    return path


def sample(img_id, *rows):
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)
    return {"img_id": img_id, "pred_instances": {"bboxes": table[:, :4], "scores": table[:, 4]}}


HIT = (10.5, 10.5, 30.5, 30.5)
ON_EXCLUDED = (95.5, 95.5, 105.5, 105.5)  # centre 100.5 px - 0.5 = 100 * 0.5 mm = 50 mm
WRONG = (150.0, 10.0, 160.0, 20.0)


def run(metric, *samples):
    metric.process({}, list(samples))
    return metric.evaluate(size=len(samples))


def test_two_slabs_of_one_nodule_are_one_hit_and_scans_without_slabs_count(ann_file):
    figures = run(
        METRICS.build({"type": "FROCMetric", "ann_file": str(ann_file)}),
        sample(0, (*HIT, 0.8)), sample(1, (*HIT, 0.8)),
        sample(2, (*ON_EXCLUDED, 0.95), (*WRONG, 0.9)),
    )  # fmt: skip

    assert figures["lung/froc_true_positives"] == figures["lung/froc_ignored"] == 1
    assert figures["lung/froc_duplicates"] == 0
    assert figures["lung/froc_n_scans"] == 3
    # One false positive above the hit, 1/3 per scan: nothing at 1/8 and 1/4, all from 1/2 on.
    assert figures["lung/sensitivity_at_0.25"] == 0.0
    assert figures["lung/sensitivity_at_0.5"] == 1.0
    assert figures["lung/CPM"] == pytest.approx(5 / 7)


def test_a_nodule_that_does_not_count_is_neither_missed_nor_false(ann_file, coco):
    coco["discarded_nodules"] = coco.pop("nodules")
    coco["nodules"] = [{"nodule_id": "b/0", "seriesuid": "b", "centre_xyz_mm": [0, 0, 0],
                        "diameter_mm": 5}]  # fmt: skip
    ann_file.write_text(json.dumps(coco))

    figures = run(FROCMetric(str(ann_file)), sample(0, (*HIT, 0.8)), sample(1), sample(2))

    assert figures["lung/froc_n_nodules"] == figures["lung/froc_ignored"] == 1
    assert figures["lung/froc_false_positives"] == 0


def test_keys_do_not_depend_on_what_was_found(ann_file):
    options = {"bootstrap": 10}
    found = run(FROCMetric(str(ann_file), **options), sample(0, (*HIT, 0.8)), sample(1), sample(2))
    empty = run(FROCMetric(str(ann_file), **options), sample(0), sample(1), sample(2))

    assert found.keys() == empty.keys()
    assert "lung/CPM_ci95_low" in empty
    assert empty["lung/CPM"] == 0.0


def test_writes_a_submission(ann_file, tmp_path):
    path = tmp_path / "submission.csv"

    run(FROCMetric(str(ann_file), submission_file=str(path)), sample(0, (*HIT, 0.5)), sample(1))

    assert path.read_text().splitlines() == [
        "seriesuid,coordX,coordY,coordZ,probability",
        "a,10.0,10.0,3.75,0.5",
    ]


def test_faint_boxes_can_be_left_out(ann_file):
    figures = run(FROCMetric(str(ann_file), min_score=0.5), sample(0, (*HIT, 0.4)), sample(1))

    assert figures["lung/froc_true_positives"] == 0


def test_annotations_without_the_nodules_behind_them_are_refused(ann_file, coco):
    del coco["nodules"]
    ann_file.write_text(json.dumps(coco))

    with pytest.raises(LungDetError, match="nodules"):
        run(FROCMetric(str(ann_file)), sample(0))


def test_candidates_lie_at_the_depth_of_the_maximum(ann_file, coco, tmp_path):
    coco["images"][0]["depth_file_name"] = "a/000.depth.png"
    ann_file.write_text(json.dumps(coco))
    cv2.imwrite(str(tmp_path / "000.depth.png"), np.full((64, 64), 204, np.uint8))
    path = tmp_path / "submission.csv"
    here = sample(0, (*HIT, 0.5)) | {"img_path": str(tmp_path / "000.png")}

    run(FROCMetric(str(ann_file), submission_file=str(path)), here)

    # Four fifths of 7.5 mm above the low face at z = 0.
    assert path.read_text().splitlines()[1] == "a,10.0,10.0,6.0,0.5"


def test_slabs_without_depth_are_counted_in_one_line(ann_file, monkeypatch):
    said = []
    monkeypatch.setattr(
        "lungdet_mmdet.evaluation.metrics.print_log", lambda text, **_: said.append(text)
    )

    run(FROCMetric(str(ann_file)), sample(0, (*HIT, 0.8)), sample(1), sample(2))

    (line,) = said
    assert "3 of 3 slabs have no depth of the maximum" in line


def test_slabs_of_another_split_are_refused(ann_file):
    other = {**sample(0, (*HIT, 0.5)), "seriesuid": "x", "slab_index": 0}
    with pytest.raises(LungDetError, match="was slab 0 of x to the model: these are two splits"):
        run(FROCMetric(str(ann_file)), other)
