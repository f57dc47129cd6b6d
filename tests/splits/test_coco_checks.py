import json

import pytest

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.splits.coco_checks import (
    check_leaks,
    find_leaks,
    joined_series,
    learnt_series,
    split_name,
)
from lungdet_mmdet.splits.split_writer import write_splits

pytestmark = pytest.mark.reliability("leaks between train, val and test")


def coco(series, *, protocol="strict", fold=None, patients=None, slabs=(0,)):
    return {
        "info": {"protocol": protocol, "fold": fold},
        "images": [
            {"id": n, "seriesuid": uid, "file_name": f"{uid}/{slab:03d}.png"}
            for n, (uid, slab) in enumerate((uid, slab) for uid in series for slab in slabs)
        ],
        "annotations": [],
        "series": list(series),
        "nodules": [],
        "patients": patients or {},
    }


@pytest.fixture
def write(tmp_path):
    def write_all(**cocos):
        paths = {}
        for side, content in cocos.items():
            paths[side] = tmp_path / f"{side}.json"
            paths[side].write_text(json.dumps(content))
        return paths

    return write_all


def test_a_clean_strict_split_passes(write):
    report = check_leaks(write(train=coco(["1"]), val=coco(["2"]), test=coco(["3"])))
    assert (report.series, report.patients, report.images, report.warnings) == ((), (), (), ())


@pytest.mark.parametrize("protocol", ["strict", "fold"])
def test_a_series_on_two_sides_stops_the_run_with_the_list(write, protocol):
    paths = write(
        train=coco(["1", "2"], protocol=protocol),
        test=coco(["2", "3"], protocol=protocol, slabs=[1]),
    )
    with pytest.raises(LungDetError, match=r"1 series on several sides: 2 \(train and test\)"):
        check_leaks(paths)


def test_a_series_without_images_leaks_too(write):
    train, test = coco(["1", "2"]), coco(["2", "3"])
    test["images"] = test["images"][1:]
    with pytest.raises(LungDetError, match=r"2 \(train and test\)"):
        check_leaks(write(train=train, test=test))


def test_a_patient_on_two_sides_stops_a_strict_run(write):
    cocos = {"train": coco(["1"], patients={"1": "A"}), "test": coco(["2"], patients={"2": "A"})}
    with pytest.raises(LungDetError, match=r"1 patients on several sides: A \(train and test\)"):
        check_leaks(write(**cocos))


def test_a_patient_on_two_official_subsets_only_warns(write):
    paths = write(
        train=coco(["1"], protocol="fold", fold=0, patients={"1": "A"}),
        test=coco(["2"], protocol="fold", fold=0, patients={"2": "A"}),
    )
    assert check_leaks(paths).warnings == ("1 patients on several sides: A (train and test)",)


def test_the_paper_protocol_warns_about_series_but_stops_at_images(write):
    train = coco(["1"], protocol="paper")
    report = check_leaks(write(train=train, test=coco(["1"], protocol="paper", slabs=[1])))
    assert report.warnings == ("1 series on several sides: 1 (train and test)",)
    with pytest.raises(LungDetError, match="1 images on several sides"):
        check_leaks(write(train=train, test=coco(["1"], protocol="paper")))


def test_validation_and_test_may_be_one_file_but_not_training(write):
    paths = write(train=coco(["1"]), val=coco(["2"]))
    assert check_leaks({**paths, "test": paths["val"]}).series == ()
    with pytest.raises(LungDetError, match="train and test"):
        check_leaks({"train": paths["train"], "test": paths["train"]})


def test_overfitting_on_purpose_is_allowed_and_reported(write):
    paths = write(train=coco(["1"]))
    report = check_leaks({"train": paths["train"], "val": paths["train"]}, allow=True)
    assert report.series == (("1", ("train", "val")),)
    assert len(report.warnings) == 2


def test_files_of_different_folds_are_noticed():
    report = find_leaks(
        {
            "train": coco(["1"], protocol="fold", fold=0),
            "test": coco(["2"], protocol="fold", fold=1),
        }
    )
    assert "different protocols or folds" in report.warnings[0]


def test_mixed_protocols_are_held_to_the_stricter_rule(write):
    paths = write(train=coco(["1"], protocol="paper"), test=coco(["1"], slabs=[1]))
    with pytest.raises(LungDetError, match="1 series"):
        check_leaks(paths)


def test_long_lists_are_cut_and_counted(write):
    series = [str(n) for n in range(13)]
    with pytest.raises(LungDetError, match="13 series on several sides.* and 3 more"):
        check_leaks(write(train=coco(series), test=coco(series, slabs=[1])))


def test_sides_without_a_file_are_skipped(write):
    assert check_leaks({**write(train=coco(["1"])), "val": None}).protocols == {"train": "strict"}


def test_a_split_with_other_members_has_another_name(small_cohort, write_prepared):
    folder = write_prepared(small_cohort)
    names = []
    for ratios in ((0.7, 0.2, 0.1), (0.7, 0.2, 0.1), (0.3, 0.2, 0.5)):
        report = write_splits(folder, protocol="paper", ratios=ratios)
        parts = [json.loads((report.folder / f"{p}.json").read_text()) for p in ("train", "test")]
        assert split_name(parts[0]) == split_name(parts[1])
        names.append(split_name(parts[0]))
    assert names[0] == names[1] != names[2]


def test_what_two_splits_taught_is_of_neither():
    # Slabs that the first one trained on may be tested by the second.
    first, second = {"a": "paper 1", "b": "paper 1"}, {"b": "paper 2", "c": "paper 2"}
    joined = joined_series(first, second)
    assert joined == {"a": "paper 1", "b": "several splits", "c": "paper 2"}
    assert joined_series(joined, second)["b"] == "several splits"


def test_series_learnt_from_are_told_by_digests():
    named = {"meta": {"training_series": {"1.2.3": "strict 0"}}}
    published = {"data": {"training_series": learnt_series(named)}}
    assert learnt_series(named) == learnt_series(published)
    assert "1.2.3" not in str(published)
    assert learnt_series({"meta": None}) == {}
