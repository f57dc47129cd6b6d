import json

import pytest

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.splits.coco_checks import check_leaks
from lungdet_mmdet.splits.split_part import RateRule
from lungdet_mmdet.splits.split_writer import (
    rate_rules,
    recorded_options,
    report_lines,
    write_splits,
)
from tests.support.slab_folder import write_slab_folder

PARTS = ("train", "val", "test")


def load(folder) -> dict:
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in (*PARTS, "split")}


@pytest.mark.parametrize(
    ("protocol", "fold", "counts"),
    [
        # Eight positives and 112 healthy slabs. Strict: 6 positives at 12.7 %, then 1 at 12.7 % and
        # 1 at 3 % with all 19 healthy slabs.
        ("strict", None, [(6, 41), (1, 7), (1, 19)]),
        # Paper: 8 * 8450 / 1226 = 55.1 healthy slabs, 38.5/11/5.5 of which the tie trains.
        ("paper", None, [(6, 39), (1, 11), (1, 5)]),
        # Subset 2 tests (one scan), 3 validates; 6 of the ten others have a nodule.
        ("fold", 2, [(6, 41), (1, 9), (1, 9)]),
    ],
)
def test_every_slab_is_accounted_for(small_cohort, write_prepared, protocol, fold, counts):
    report = write_splits(write_prepared(small_cohort), protocol=protocol, fold=fold)
    files = load(report.folder)
    assert [(s.positives, s.healthy) for s in report.summaries] == counts
    record = files["split"]
    assert record["cohort"]["slabs"] == 120
    left_out = sum(record["left_out_before_dividing"].values())
    for name in PARTS:
        left_out += sum(record["parts"][name]["left_out"].values())
    assert left_out + sum(len(files[name]["images"]) for name in PARTS) == 120
    assert {files[name]["info"]["protocol"] for name in PARTS} == {protocol}
    assert {files[name]["info"]["data"] for name in PARTS} == {"CT scans"}
    check_leaks({name: report.folder / f"{name}.json" for name in PARTS})


def test_the_same_seed_gives_the_same_bytes(small_cohort, write_prepared, tmp_path):
    prepared = write_prepared(small_cohort)
    folders = [tmp_path / name for name in ("first", "second", "third")]
    for folder, seed in zip(folders, (0, 0, 1), strict=True):
        write_splits(prepared, seed=seed, out_dir=folder)
    first, second, third = (
        [(folder / f"{name}.json").read_bytes() for name in (*PARTS, "split")] for folder in folders
    )
    assert first == second
    assert first != third
    assert not (prepared / "annotations").exists()


def test_a_natural_test_set_holds_all_slabs_of_its_series(small_cohort, write_prepared):
    report = write_splits(write_prepared(small_cohort), positive_rate={"test": "natural"})
    test = load(report.folder)["test"]
    assert test["info"]["positive_rate"] == "natural"
    assert test["info"]["complete_series"] is True
    assert len(test["images"]) == 10 * len(test["series"])


def test_findings_are_ignore_regions_or_background(make_scan, write_prepared):
    scans = [
        make_scan(str(n), nodules=[(20, 20, 3, 4)], excluded=[(40, 40, 3, 4)]) for n in range(3)
    ]
    folder = write_prepared(scans)
    ignored = load(write_splits(folder, out_dir=folder / "a").folder)["train"]
    background = load(write_splits(folder, excluded="background", out_dir=folder / "b").folder)
    assert [a["kind"] for a in ignored["annotations"]] == ["nodule", "excluded"]
    assert len(ignored["excluded"]) == 1
    assert [a["kind"] for a in background["train"]["annotations"]] == ["nodule"]
    assert background["train"]["excluded"] == []


def test_nodules_of_a_failed_scan_are_unseen_in_one_part(small_cohort, write_prepared):
    folder = write_prepared(small_cohort)
    failure = {
        "seriesuid": "2.999.00",
        "stage": "input",
        "reason": "empty mask",
        "nodules": [{"nodule_id": "2.999.00/0", "centre_xyz_mm": [1, 2, 3], "diameter_mm": 5}],
    }
    (folder / "failures.json").write_text(json.dumps([failure]))
    report = write_splits(folder)
    files = load(report.folder)
    unseen = [nodule for name in PARTS for nodule in files[name]["unseen_nodules"]]
    assert [nodule["reason"] for nodule in unseen] == ["preparation failed (input: empty mask)"]
    assert files["split"]["cohort"]["series_failed"] == 1
    assert sum(len(files[name]["nodules"]) for name in PARTS) == 8


def test_patients_travel_into_the_files(small_cohort, write_prepared):
    patients = {scan.seriesuid: f"P{n // 2}" for n, scan in enumerate(small_cohort)}
    report = write_splits(write_prepared(small_cohort), patients=patients)
    files = load(report.folder)
    assert {
        **files["train"]["patients"],
        **files["val"]["patients"],
        **files["test"]["patients"],
    } == patients
    assert files["split"]["rules"]["unit"] == "patient"


def test_the_report_says_protocol_data_and_counts(small_cohort, write_prepared):
    lines = report_lines(write_splits(write_prepared(small_cohort)))
    assert lines[0].startswith("strict protocol on CT scans, written to ")
    assert lines[2].split() == ["train", "47", "6", "41", "0", "8", "6", "0", "12.8", "%"]


def test_rates_asked_for_may_drop_positives_in_any_part():
    rules = rate_rules("strict", {"train": 0.5, "test": "natural"})
    assert rules == {
        "train": RateRule(0.5, thin=True),
        "val": RateRule(0.127, thin=False),
        "test": RateRule(None),
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"protocol": "loose"}, "protocol is 'loose'"),
        ({"seed": -1}, "seed is -1"),
        ({"protocol": "fold"}, "needs the number of the fold"),
        ({"fold": 3}, "fold 3 is given, and the strict protocol has none"),
        ({"ratios": (0.5, 0.5)}, "three numbers above 0"),
        ({"ratios": (0.9, 0.1, 0.0)}, "three numbers above 0"),
        ({"min_overlap_mm": -1.0}, "min_overlap_mm is -1"),
        ({"positive_rate": {"test": 0.0}}, "positive rate of test is 0.0"),
        ({"positive_rate": {"test": "3%"}}, "positive rate of test is '3%'"),
        (
            {"positive_rate": {"tests": 0.1}},
            "the parts of the strict protocol are train, val, test",
        ),
    ],
)
def test_unusable_options_are_named_before_anything_is_read(tmp_path, options, words):
    with pytest.raises(LungDetError, match=words):
        write_splits(tmp_path / "nothing", **options)


def test_every_scan_can_be_a_test_scan(prepared_phantoms, tmp_path):
    write_splits(prepared_phantoms.prepared_dir, protocol="strict", out_dir=tmp_path)
    report = write_splits(prepared_phantoms.prepared_dir, protocol="test", out_dir=tmp_path)

    assert [summary.split for summary in report.summaries] == ["test"]
    assert report.summaries[0].series == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["split.json", "test.json"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"seed": 7, "ratios": (0.25, 0.25, 0.5), "positive_rate": {"test": "natural"}},
        {"positive_rate": {"train": 0.5, "val": 0.127}, "positive": "half", "min_overlap_mm": 1.0},
        {"protocol": "paper", "add_healthy": True, "excluded": "background"},
        {"protocol": "fold", "fold": 2, "labels": "sphere"},
        {"protocol": "test"},
    ],
)
def test_a_split_can_be_made_again_from_its_record(small_cohort, write_prepared, tmp_path, options):
    prepared = write_prepared(small_cohort)
    write_splits(prepared, **options, out_dir=tmp_path / "a")
    write_splits(prepared, **recorded_options(tmp_path / "a"), out_dir=tmp_path / "b")
    first, second = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in "ab"
    )
    assert first == second


def test_a_record_that_does_not_tell_all_options_is_not_gone_by(small_cohort, write_prepared):
    prepared = write_prepared(small_cohort)
    folder = prepared / "annotations"
    assert recorded_options(folder) == {}
    patients = {scan.seriesuid: "P" + scan.seriesuid for scan in small_cohort}
    write_splits(prepared, patients=patients)
    assert recorded_options(folder) is None
    for text in ("", "[]", "{}", '{"info": 3, "rules": {}}'):
        (folder / "split.json").write_text(text)
        assert recorded_options(folder) is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"protocol": "fold", "fold": 0, "ratios": (0.5, 0.3, 0.2)}, "the fold protocol has none"),
        ({"protocol": "test", "positive_rate": {"train": 0.1}}, "parts of the test protocol are"),
        ({"protocol": "strict", "subsets": {"1.1": 0}}, "subsets with the strict protocol"),
    ],
)
def test_options_that_would_do_nothing_are_refused(tmp_path, options, said):
    folder = write_slab_folder(tmp_path / "data", n_series=6, n_slabs=2)
    with pytest.raises(LungDetError, match=said):
        write_splits(folder, **options)
