import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.evaluation import FROCMetric, SizeBandMetric, slab_test
from lungdet_mmdet.evaluation.slab_test import (
    NetworkRun,
    aim_test_at,
    annotation_file,
    evaluators_for_test,
    run_slab_test,
    slab_folder,
)
from lungdet_mmdet.scoring.slab_records import SlabDetections
from lungdet_mmdet.scoring.slab_scores import META_KEY, OperatingPoint
from lungdet_mmdet.splits.coco_checks import SERIES_KEY, split_name
from lungdet_mmdet.splits.coco_json import read_slab_set
from lungdet_mmdet.splits.split_writer import write_splits
from tests.support.slab_folder import write_slab_folder

PLACES = {
    "ann_file": Path("data/test.json"),
    "predictions": Path("out/predictions.json"),
    "submission": Path("out/submission.csv"),
}


def test_both_metrics_are_told_where_to_write():
    bands, froc = evaluators_for_test(
        [{"type": "SizeBandMetric", "ann_file": "a.json", "bands_mm": (5, 9)},
         {"type": "FROCMetric", "ann_file": "a.json", "min_iou": 0.1}],
        threshold=0.3, **PLACES,
    )  # fmt: skip

    assert bands == {
        "type": "SizeBandMetric", "ann_file": "a.json", "bands_mm": (5, 9), "threshold": 0.3,
        "outfile": "out/predictions.json", "keep": True,
    }  # fmt: skip
    assert froc["keep"]
    assert froc["submission_file"] == "out/submission.csv"
    assert froc["min_iou"] == 0.1


def test_a_config_without_froc_gets_one():
    metrics = evaluators_for_test({"type": "CocoMetric"}, threshold=None, **PLACES)

    assert [metric["type"] for metric in metrics] == ["CocoMetric", "SizeBandMetric", "FROCMetric"]
    assert metrics[2]["ann_file"] == "data/test.json"


def test_no_threshold_is_chosen_on_the_slabs_under_test():
    (bands, _) = evaluators_for_test(
        {"type": "SizeBandMetric", "ann_file": "val.json", "choose": "max_f1"},
        threshold=None,
        **PLACES,
    )

    assert "choose" not in bands
    assert bands["threshold"] is None


def test_a_test_aimed_at_val_takes_the_validation_data():
    config = Config(
        {
            "val_dataloader": {"dataset": {"data_root": "prep", "data_prefix": {"img": "slabs/"}}},
            "test_dataloader": {"dataset": {"data_root": "other", "data_prefix": {"img": ""}}},
            "val_evaluator": "of val",
            "test_evaluator": "of test",
        }
    )
    aim_test_at(config, "test")
    assert (slab_folder(config), config.test_evaluator) == (Path("other"), "of test")
    aim_test_at(config, "val")
    assert (slab_folder(config), config.test_evaluator) == (Path("prep/slabs"), "of val")


POINT = OperatingPoint(0.01, "max_f1", data="phantom", protocol="strict", split="val")
OFF_MIDPLANE_MM, DIAMETER_MM = 3.3, 5.0


class Network:
    """Stands in for the network: finds every box, and in 3-D as far off the mid-plane as told."""

    def __init__(self):
        self.calls = []

    def __call__(self, config, checkpoint, content, **options):
        self.calls.append(options)
        path = annotation_file(config)
        detections, placed = [], []
        for slab in read_slab_set(path).slabs.values():
            boxes = np.array([box.bbox_xywh_px for box in slab.boxes]).reshape(-1, 4)
            boxes[:, 2:] += boxes[:, :2]
            found = SlabDetections(slab.img_id, boxes, np.full(len(boxes), 0.9))
            detections.append(found)
            z_mm = np.full(len(boxes), np.mean(slab.geometry.z_range_mm) + OFF_MIDPLANE_MM)
            placed.append(replace(found, z_mm=z_mm, z_sd_mm=np.full(len(boxes), 0.6)))
        bands, froc = (metric(str(path), keep=True) for metric in (SizeBandMetric, FROCMetric))
        bands.compute_metrics(detections)
        froc.compute_metrics(placed)
        return NetworkRun({}, detections, bands.matched, froc.matches, 1, None, froc)


@pytest.fixture
def network(monkeypatch):
    network = Network()
    monkeypatch.setattr(slab_test, "run_network", network)
    return network


@pytest.fixture
def folder(tmp_path):
    folder = write_slab_folder(tmp_path / "data", n_series=6, n_slabs=3)
    write_splits(folder, protocol="strict")
    return folder


@pytest.fixture
def run(network, folder, tmp_path):
    """Tests a checkpoint that says what is given of itself."""

    def run(meta, *, split="test", **options):
        loaders = {
            f"{part}_dataloader": {
                "dataset": {
                    "data_root": str(folder), "ann_file": f"annotations/{part}.json",
                    "data_prefix": {"img": "slabs/"},
                }
            }
            for part in ("val", "test")
        }  # fmt: skip
        evaluators = {f"{part}_evaluator": [] for part in ("val", "test")}
        torch.save({"state_dict": {}, "meta": meta}, tmp_path / "m.pth")
        config = Config({**loaders, **evaluators, "work_dir": str(tmp_path)})
        return run_slab_test(config, tmp_path / "m.pth", split=split, n_resamples=0, **options)

    return run


def coco_of(folder, part):
    return json.loads((folder / "annotations" / f"{part}.json").read_text())


def test_a_threshold_given_by_hand_is_applied_and_named(run, network):
    meta = {META_KEY: POINT.as_record()}
    own, given = run(meta), run(meta, threshold=0.5, predictions=Path("P.json"))
    assert (own.run.threshold, own.run.threshold_source) == (0.01, POINT.describe())
    assert (given.run.threshold, given.scores.options.threshold) == (0.5, 0.5)
    assert given.run.threshold_source == "0.5, given by --threshold"
    assert network.calls == [
        {"threshold": 0.01, "predictions": None},
        {"threshold": 0.5, "predictions": Path("P.json")},
    ]


def test_what_makes_figures_doubtful_is_said(run, folder):
    content = coco_of(folder, "val")
    content["failed_series"] = content["series"][:1]
    (folder / "annotations" / "val.json").write_text(json.dumps(content))
    said = run({META_KEY: POINT.as_record()}, split="val", warnings=("before",)).run.warnings
    for what in ("chosen on the val split", "1 scans could not be prepared", "before"):
        assert [warning for warning in said if what in warning], what


def test_a_split_by_slabs_may_share_series_with_its_own_training_alone(run, folder):
    natural = dict.fromkeys(("train", "val", "test"), "natural")
    names = []
    for made in ({"seed": 1}, {"ratios": (0.4, 0.2, 0.4)}, {}):
        write_splits(folder, protocol="paper", positive_rate=natural, **made)
        names.append(split_name(coco_of(folder, "test")))
    *others, own = names
    coco = coco_of(folder, "test")
    (uid, *_) = coco["series"]
    assert run({SERIES_KEY: {uid: own}}) is not None
    for other in others:
        with pytest.raises(LungDetError, match="has learnt from 1 of"):
            run({SERIES_KEY: {uid: other}})
    # Splits of earlier versions list no members: their seed tells them apart.
    del coco["info"]["members"]
    (folder / "annotations" / "test.json").write_text(json.dumps(coco))
    assert run({SERIES_KEY: {uid: split_name(coco)}}) is not None
    coco["info"]["seed"] = 1
    with pytest.raises(LungDetError, match="has learnt from 1 of"):
        run({SERIES_KEY: {uid: split_name(coco)}})
    write_splits(folder, protocol="strict")
    coco = coco_of(folder, "test")
    with pytest.raises(LungDetError, match="has learnt from 1 of"):
        run({SERIES_KEY: {coco["series"][0]: split_name(coco)}})


def test_depth_gains_where_it_finds_nodules_off_the_mid_plane(run, folder):
    content = coco_of(folder, "test")
    for nodule in content["nodules"]:
        nodule["centre_xyz_mm"][2] += OFF_MIDPLANE_MM
        nodule["diameter_mm"] = DIAMETER_MM  # which does not reach the mid-plane
    (folder / "annotations" / "test.json").write_text(json.dumps(content))
    gain = run({}, compare_midplane=True).depth_gain
    assert gain.startswith(
        "CPM 1.000 with depth, 0.000 on mid-planes, same boxes: difference +1.000"
    )
    assert run({}).depth_gain == ""
