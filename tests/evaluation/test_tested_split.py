from pathlib import Path

from mmengine.config import Config

from lungdet_mmdet.evaluation.slab_test import aim_test_at, evaluators_for_test, slab_folder

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
