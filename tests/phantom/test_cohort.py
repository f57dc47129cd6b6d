import csv
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import SimpleITK as sitk

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.phantom.cohort import plan_cohort, write_cohort
from lungdet_mmdet.runs.files import is_phantom_uid

PLAN = plan_cohort(n_scans=3, seed=1, size="small")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    seen = []
    scans = write_cohort(folder, PLAN, on_scan=lambda scan: seen.append(scan.seriesuid))
    assert seen == [p.seriesuid for p in PLAN]
    return folder, scans


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_folder_has_the_shape_of_luna16(cohort):
    folder, scans = cohort
    uids = (folder / "seriesuids.csv").read_text().split()
    assert uids == [p.seriesuid for p in PLAN]
    assert all(is_phantom_uid(uid) for uid in uids)
    names = {p.name for p in folder.iterdir()}
    assert names == {f"subset{i}" for i in range(10)} | {
        "seg-lungs-LUNA16",
        "nodule_masks",
        "annotations.csv",
        "annotations_excluded.csv",
        "seriesuids.csv",
    }
    for i, uid in enumerate(uids):
        for place in (f"subset{i}", "seg-lungs-LUNA16"):
            files = sorted(p.name for p in (folder / place).glob(f"{uid}*"))
            assert files == [f"{uid}.mhd", f"{uid}.zraw"]
    masks = {p.name for p in (folder / "nodule_masks").iterdir()}
    assert masks == {f"{s.seriesuid}.mha" for s in scans if s.nodules}


def test_tables_list_what_was_drawn(cohort):
    folder, scans = cohort
    table = rows(folder / "annotations.csv")
    assert [r["seriesuid"] for r in table] == [s.seriesuid for s in scans for _ in s.nodules]
    drawn = [n for s in scans for n in s.nodules]
    for row, nodule in zip(table, drawn, strict=True):
        written = [float(row[c]) for c in ("coordX", "coordY", "coordZ", "diameter_mm")]
        assert written == pytest.approx([*nodule.centre_xyz_mm, nodule.diameter_mm], abs=1e-5)
    excluded = rows(folder / "annotations_excluded.csv")
    assert len(excluded) == sum(len(s.excluded) for s in scans)


def test_world_coordinates_of_the_table_hit_the_nodules_in_the_files(cohort):
    folder, scans = cohort
    checked = 0
    for planned, scan in zip(PLAN, scans, strict=True):
        path = folder / f"subset{planned.subset}" / f"{planned.seriesuid}.mhd"
        image = sitk.ReadImage(str(path))
        mask = sitk.ReadImage(str(folder / "seg-lungs-LUNA16" / path.name))
        assert mask.GetDirection() == image.GetDirection()
        assert mask.GetOrigin() == image.GetOrigin()
        for nodule in scan.nodules:
            index = image.TransformPhysicalPointToIndex(nodule.centre_xyz_mm)
            assert image[index] > -720
            assert mask[index] in (3, 4)
            checked += 1
    assert checked >= 2


def test_any_number_of_workers_writes_the_same_bytes(cohort, tmp_path):
    folder, _ = cohort
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        write_cohort(tmp_path, PLAN, executor=pool)
    first, second = (
        {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        for root in (folder, tmp_path)
    )
    assert first == second
    # Image and lung mask in two files each, the nodule masks of the two that are ill, tables.
    assert len(first) == 3 * 4 + 2 + 3


def test_a_third_of_the_scans_is_healthy(cohort):
    plan = plan_cohort(n_scans=300, seed=5, size="full")
    assert sum(p.healthy for p in plan) == 100
    _, scans = cohort
    assert [not s.nodules for s in scans] == [p.healthy for p in PLAN]
    # Which one of three differs, so that no subset gets all the healthy scans.
    by_subset = np.bincount([p.subset for p in plan if p.healthy], minlength=10)
    assert by_subset.min() >= 3


def test_larger_cohort_begins_with_the_smaller_one():
    assert plan_cohort(n_scans=7, seed=1, size="small")[:3] == PLAN
    assert plan_cohort(n_scans=3, seed=2, size="small")[0].seriesuid != PLAN[0].seriesuid


def test_folder_with_other_scans_is_refused_and_left_alone(tmp_path):
    foreign = tmp_path / "subset4" / "1.2.3.mhd"
    foreign.parent.mkdir()
    foreign.write_text("other")
    with pytest.raises(LungDetError, match=r"1\.2\.3\.mhd"):
        write_cohort(tmp_path, PLAN)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["1.2.3.mhd", "subset4"]


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({"n_scans": 0, "seed": 0, "size": "small"}, "0"),
        ({"n_scans": 1, "seed": -4, "size": "small"}, "-4"),
        ({"n_scans": 1, "seed": 0, "size": "huge"}, "huge"),
    ],
)
def test_bad_requests_are_refused(options, value):
    with pytest.raises(LungDetError, match=value):
        plan_cohort(**options)


def test_a_second_run_leaves_what_is_there_and_mends_what_is_not(tmp_path):
    first = write_cohort(tmp_path, PLAN[:2])
    files = {p: p.stat().st_mtime_ns for p in tmp_path.glob("*/*.*") if p.is_file()}
    broken = tmp_path / "subset1" / f"{PLAN[1].seriesuid}.zraw"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-9])
    leftover = tmp_path / "subset0" / f".{PLAN[0].seriesuid}.lungdet-abc.partial"
    leftover.mkdir()
    (tmp_path / "subset0" / "._a.mhd").write_bytes(b"fork")
    again = write_cohort(tmp_path, PLAN[:2])
    assert [scan.was_there for scan in (*first, *again)] == [False, False, True, False]
    assert broken.read_bytes() == whole
    changed = {p.stem for p, time in files.items() if p.stat().st_mtime_ns != time}
    assert changed == {PLAN[1].seriesuid}
    assert not leftover.exists()
