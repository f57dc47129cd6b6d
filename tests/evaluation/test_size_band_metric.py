import json

import numpy as np
import pytest
import torch
from mmdet.registry import METRICS

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.evaluation.metrics import SizeBandMetric
from lungdet_mmdet.scoring.run_files import read_predictions


def image(number, seriesuid):
    return {
        "id": number, "seriesuid": seriesuid, "slab_index": number,
        "file_name": f"{seriesuid}/{number}.png",
        "width": 100, "height": 100, "spacing": [0.5, 0.5, 7.5], "origin": [0, 0, 0],
        "direction": [1, 0, 0, 0, 1, 0, 0, 0, 1], "z_range_mm": [7.5 * number, 7.5 * number + 7.5],
    }  # fmt: skip


@pytest.fixture
def ann_file(tmp_path):
    """Two scans: a 10 mm nodule on slab 0, slab 1 healthy, a nodule of 5 mm in no slab."""
    content = {
        "info": {"data": "phantom"},
        "nodules": [],
        "images": [image(0, "a"), image(1, "b")],
        "annotations": [
            {"id": 0, "image_id": 0, "category_id": 1, "bbox": [10, 10, 20, 20], "area": 400,
             "iscrowd": 0, "diameter_mm": 10.0, "kind": "nodule", "nodule_id": "a/0"}
        ],
        "categories": [{"id": 1, "name": "nodule"}],
        "series": ["a", "b"],
        "unseen_nodules": [{"nodule_id": "b/0", "seriesuid": "b", "diameter_mm": 5.0,
                            "centre_xyz_mm": [0, 0, 0], "reason": "between slabs"}],
    }  # fmt: skip
    path = tmp_path / "val.json"
    path.write_text(json.dumps(content))
    return path


def sample(img_id, boxes=(), scores=()):
    return {
        "img_id": img_id,
        "pred_instances": {
            "bboxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            "scores": torch.tensor(scores, dtype=torch.float32),
        },
    }


def run(metric, *samples, size=2):
    metric.process({}, list(samples))
    return metric.evaluate(size=size)


def test_is_built_from_a_config(ann_file):
    metric = METRICS.build({"type": "SizeBandMetric", "ann_file": str(ann_file)})

    assert isinstance(metric, SizeBandMetric)


def test_figures_and_counts_of_a_small_split(ann_file):
    figures = run(SizeBandMetric(str(ann_file)), sample(0, [[10, 10, 30, 30]], [0.9]), sample(1))

    assert figures["lung/AP50_medium"] == pytest.approx(1.0)
    assert figures["lung/AR50"] == 0.5
    assert figures["lung/AR50_small"] == 0.0
    assert np.isnan(figures["lung/AP50_large"])
    assert [figures[f"lung/n_{name}"] for name in ("nodules", "unseen", "slabs", "scans")] == [
        2, 1, 2, 2,
    ]  # fmt: skip


def test_keys_do_not_depend_on_what_was_found(ann_file):
    options = {"threshold": 0.5}
    full = run(
        SizeBandMetric(str(ann_file), **options), sample(0, [[10, 10, 30, 30]], [0.9]), sample(1)
    )
    empty = run(SizeBandMetric(str(ann_file), **options), sample(0), sample(1))

    assert full.keys() == empty.keys()
    assert {"lung/precision_small", "lung/recall", "lung/F1_large", "lung/threshold"} <= set(full)
    assert empty["lung/AP50"] == empty["lung/precision"] == empty["lung/F1"] == 0.0


def test_a_slab_padded_in_by_another_process_counts_once(ann_file):
    hit = sample(0, [[10, 10, 30, 30]], [0.9])

    figures = run(SizeBandMetric(str(ann_file)), hit, sample(1), hit, size=3)

    assert figures["lung/n_detections"] == 1
    assert figures["lung/AP50_medium"] == pytest.approx(1.0)


def test_chooses_a_threshold_on_the_slabs_it_sees(ann_file):
    metric = SizeBandMetric(str(ann_file), choose="max_f1", count_unseen=False)

    figures = run(metric, sample(0, [[10, 10, 30, 30]], [0.75]), sample(1, [[0, 0, 9, 9]], [0.25]))

    assert figures["lung/threshold"] == 0.75
    assert figures["lung/F1"] == 1.0


def test_writes_the_detections_for_later_reports(ann_file, tmp_path):
    outfile = tmp_path / "run" / "predictions.json"
    metric = SizeBandMetric(str(ann_file), outfile=str(outfile))

    run(metric, sample(1), sample(0, [[10, 10, 30, 30]], [0.75]))

    rows = json.loads(outfile.read_text())
    assert rows[0] == {
        "img_id": 0, "seriesuid": "a", "slab_index": 0, "bboxes": [[10, 10, 30, 30]],
        "scores": [0.75],
    }  # fmt: skip
    assert [len(item.scores) for item in read_predictions(outfile)] == [1, 0]


def test_a_missing_annotation_file_is_named(tmp_path):
    with pytest.raises(LungDetError, match=r"none\.json"):
        run(SizeBandMetric(str(tmp_path / "none.json")), sample(0), size=1)


@pytest.mark.parametrize(
    "options",
    [{"bands_mm": (15, 7)}, {"choose": "best"}, {"choose": "max_f1", "threshold": 0.5}],
)
def test_bad_options_are_refused_at_once(options):
    with pytest.raises(LungDetError):
        SizeBandMetric("val.json", **options)


def test_a_diverged_model_is_named(ann_file):
    with pytest.raises(LungDetError, match="not finite"):
        run(SizeBandMetric(str(ann_file)), sample(0, [[0, 0, float("nan"), 1]], [0.5]), size=1)


def test_half_precision_results_are_read(ann_file):
    half = sample(0, [[10, 10, 30, 30]], [0.5])
    half["pred_instances"] = {
        key: value.to(torch.bfloat16) for key, value in half["pred_instances"].items()
    }

    assert run(SizeBandMetric(str(ann_file)), half, sample(1))["lung/AP50_medium"] > 0.99


def test_the_anomaly_view_is_part_of_the_figures(ann_file):
    figures = run(
        SizeBandMetric(str(ann_file), threshold=0.5),
        sample(0, [[10, 10, 30, 30]], [0.9]),
        sample(1, [[0, 0, 9, 9]], [0.6]),
    )

    assert figures["lung/slab_AUROC"] == figures["lung/slab_sensitivity"] == 1.0
    assert figures["lung/slab_specificity"] == 0.0
    assert figures["lung/slab_false_alarms_per_100"] == 100.0
    # Both scans hold a nodule: nothing to tell them from.
    assert np.isnan(figures["lung/scan_AUROC"])


@pytest.mark.parametrize("with_file", [False, True])
def test_slabs_of_another_split_are_refused(ann_file, tmp_path, with_file):
    outfile = str(tmp_path / "found.json") if with_file else None
    options = {"outfile": outfile, "choose": "max_f1"}
    own, other = ({**sample(0), "seriesuid": uid, "slab_index": 0} for uid in ("a", "x"))
    with pytest.raises(LungDetError, match="was slab 0 of x to the model: these are two splits"):
        run(SizeBandMetric(str(ann_file), **options), other, size=1)
    with pytest.raises(LungDetError, match="1 predicted image ids are not in the annotation file"):
        run(SizeBandMetric(str(ann_file), **options), own, sample(7))
