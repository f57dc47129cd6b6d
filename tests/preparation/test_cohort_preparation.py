import errno
import json
import os
import struct

import cv2
import pytest
import SimpleITK as sitk

from lungdet_mmdet.annotations.tables import read_patients
from lungdet_mmdet.ct.dicom.header import patient_digest
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.luna16.folder import read_luna16_folder
from lungdet_mmdet.preparation.cohort_preparation import prepare_cohort, summary_lines
from lungdet_mmdet.preparation.prep_pipeline import (
    PrepareJob,
    build_prep_pipeline,
    fingerprint,
    override_mask_method,
)
from lungdet_mmdet.reports.prep_report import MaskPreview
from lungdet_mmdet.runs import atomic_files
from lungdet_mmdet.runs.atomic_files import only_run_in
from lungdet_mmdet.runs.workplace import process_pool
from lungdet_mmdet.scoring.slab_records import read_depths
from lungdet_mmdet.splits.split_writer import write_splits
from tests.support.rehearsal import rehearsal_uid, write_rehearsal_folder

UIDS = [rehearsal_uid(index) for index in range(3)]


def scan_file(source, index, suffix=".mhd"):
    return next(source.glob(f"*/{rehearsal_uid(index)}{suffix}"))


def test_the_manifest_has_one_entry_per_scan(prepare, steps):
    manifest = prepare().manifest
    assert manifest["data"] == "phantom"
    assert manifest["pipeline"] == steps
    assert [scan["seriesuid"] for scan in manifest["scans"]] == UIDS
    first = manifest["scans"][0]
    assert (first["status"], first["subset"]) == ("ok", 0)
    # Slices of 5 mm, and two ellipsoids without a windpipe.
    assert first["flags"] == ["thick_slices", "no_windpipe"]
    # Two ellipsoids of half axes 50, 75 and 75 mm hold 2.36 litres.
    assert first["lung_volume_l"] == pytest.approx(2.36, rel=0.03)
    (nodule,) = first["nodules"]
    assert (nodule["diameter_mm"], nodule["coverage"]) == (20.0, 1.0)
    assert first["nonzero_share"] == round(first["nonzero_after"] / first["nonzero_before"], 4)
    assert first["seconds"] > 0
    assert manifest["nodules"] == 3
    assert (manifest["nodules_poorly_covered"], manifest["nodules_lost"]) == ([], [])


def test_voxels_before_and_after_masking_are_those_of_body_and_lungs(prepare):
    scan = prepare().manifest["scans"][0]
    voxel_ml = 2.5 * 4 * 4 / 1000
    # An elliptic cylinder of half axes 140 and 110 mm, 180 mm high, holds 8709 ml; voxels of its
    # blurred surface, up to one source voxel of 5 mm outside, are above air as well: 9431 ml.
    assert 8709 < scan["nonzero_before"] * voxel_ml < 9431
    # The mask has a rim beyond the lungs' surface.
    assert 2300 < scan["nonzero_after"] * voxel_ml < 2600


def test_slab_files_are_what_the_pipeline_gives(prepare, source, out, steps):
    prepare()
    results = build_prep_pipeline(steps)({"scan_path": str(scan_file(source, 0))})
    record = json.loads((out / "slabs" / UIDS[0] / "scan.json").read_text())
    assert len(record["slabs"]) == len(results["slabs"])
    for slab, image in zip(record["slabs"], results["slabs"], strict=True):
        stored = cv2.imread(str(out / "slabs" / slab["file_name"]), cv2.IMREAD_UNCHANGED)
        assert (stored == image).all()
        assert (slab["height"], slab["width"]) == image.shape
    for slab, depths in zip(record["slabs"], results["slab_depths"], strict=True):
        assert (read_depths(out / "slabs" / slab["depth_file_name"]) == depths).all()


def test_a_config_can_leave_the_depth_out(prepare, out, steps):
    next(step for step in steps if step["type"] == "MIPSlabs")["depth"] = False
    prepare()
    record = json.loads((out / "slabs" / UIDS[0] / "scan.json").read_text())
    assert not any("depth_file_name" in slab for slab in record["slabs"])
    assert not list(out.glob("slabs/*/*.depth.png"))


def test_a_scan_whose_axes_are_one_and_the_same_fails_alone(prepare, source, out):
    header = scan_file(source, 1)
    nifti = header.with_suffix(".nii")
    sitk.WriteImage(sitk.ReadImage(str(header)), str(nifti))
    scan_file(source, 1, ".zraw").unlink()
    header.unlink()
    content = bytearray(nifti.read_bytes())
    # No qform, and an sform in which x and y both run to the right.
    content[252:256] = struct.pack("<2h", 0, 1)
    content[280:328] = struct.pack("<12f", 5, 5, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0)
    nifti.write_bytes(content)
    summary = prepare()
    assert summary.prepared == [UIDS[0], UIDS[2]]
    (failure,) = json.loads((out / "failures.json").read_text())
    assert failure["seriesuid"] == UIDS[1]
    assert "orthogonal" in failure["reason"]


def test_a_broken_scan_fails_alone_and_is_listed_with_its_nodules(prepare, source, out):
    data = scan_file(source, 1, ".zraw")
    data.write_bytes(data.read_bytes()[:-50])
    summary = prepare()
    assert summary.exit_code == 1
    assert summary.prepared == [UIDS[0], UIDS[2]]
    (failure,) = json.loads((out / "failures.json").read_text())
    assert (failure["seriesuid"], failure["stage"]) == (UIDS[1], "input")
    assert data.name in failure["reason"]
    assert failure["nodules"][0]["diameter_mm"] == 20.0
    entry = summary.manifest["scans"][1]
    assert (entry["status"], entry["lung_volume_l"]) == ("failed", None)
    assert any(UIDS[1] in line for line in summary_lines(summary, out))


def test_a_mended_scan_is_prepared_and_no_longer_listed(prepare, source, out):
    data = scan_file(source, 1, ".zraw")
    whole = data.read_bytes()
    data.write_bytes(whole[:-50])
    prepare()
    data.write_bytes(whole)
    summary = prepare()
    assert (summary.prepared, summary.exit_code) == ([UIDS[1]], 0)
    assert json.loads((out / "failures.json").read_text()) == []


def test_nodules_in_no_slab_and_of_failed_scans_count_as_missed(prepare, source, out):
    table = source / "annotations.csv"
    # Above the lungs, in slices that preparation drops (the lungs end at z = 160 mm).
    table.write_text(table.read_text() + f"{UIDS[0]},0,0,173,6\n")
    data = scan_file(source, 2, ".zraw")
    data.write_bytes(data.read_bytes()[:-50])
    summary = prepare()
    record = json.loads((out / "slabs" / UIDS[0] / "scan.json").read_text())
    assert max(slab["z_range_mm"][1] for slab in record["slabs"]) < 170
    assert [n["nodule_id"] for n in summary.manifest["nodules_lost"]] == [f"{UIDS[0]}/1"]
    write_splits(out, protocol="strict")
    parts = [
        json.loads((out / "annotations" / f"{p}.json").read_text())
        for p in ("train", "val", "test")
    ]
    unseen = {n["nodule_id"] for part in parts for n in part["unseen_nodules"]}
    assert unseen == {f"{UIDS[0]}/1", f"{UIDS[2]}/0"}
    assert sum(len(part["nodules"]) for part in parts) == 4


def test_a_scan_gone_from_the_input_stays_until_the_pipeline_changes(prepare, source, out, steps):
    prepare()
    scan_file(source, 2).unlink()
    kept = prepare()
    assert kept.manifest["not_in_input"] == [UIDS[2]]
    assert [scan["seriesuid"] for scan in kept.manifest["scans"]] == UIDS
    assert any("1 scans prepared earlier" in line for line in summary_lines(kept, out))

    steps[5]["level_hu"] = -500
    changed = prepare()
    assert changed.manifest["outdated"] == [UIDS[2]]
    assert [scan["seriesuid"] for scan in changed.manifest["scans"]] == UIDS[:2]
    assert not (out / "slabs" / UIDS[2]).exists()
    assert (out / "outdated" / UIDS[2] / "scan.json").is_file()


@pytest.mark.reliability("leftovers of killed runs")
def test_leftovers_of_a_killed_run_are_swept(prepare, out):
    (out / "slabs" / f".{UIDS[0]}.lungdet-abc.partial").mkdir(parents=True)
    (out / "slabs" / f".{UIDS[0]}.lungdet-abc.partial" / "000.png").touch()
    (out / ".manifest.json.lungdet-abc.tmp").touch()
    (out / ".seconds.jsonl").write_text(f'["{UIDS[1]}", 12.5]\n["{UIDS[2]}", 3')
    summary = prepare()
    hidden = [path.name for path in out.rglob(".*")]
    assert hidden == [".lock"]
    assert len(summary.prepared) == 3


@pytest.mark.reliability("disk full, told once")
def test_a_full_disk_stops_with_its_reason_and_the_next_run_goes_on(prepare, out, monkeypatch):
    hidden_folder = atomic_files._hidden_folder

    def full_from_the_second_on(folder):
        if folder.name != UIDS[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return hidden_folder(folder)

    monkeypatch.setattr(atomic_files, "_hidden_folder", full_from_the_second_on)
    stopped = prepare()
    assert (stopped.finished, stopped.exit_code) == (False, 1)
    assert stopped.prepared == [UIDS[0]]
    assert "free some space" in stopped.failures[0].reason
    monkeypatch.undo()
    resumed = prepare()
    assert resumed.prepared == UIDS[1:]
    assert resumed.exit_code == 0


def test_luna16_masks_are_used_where_asked_for(tmp_path, steps):
    source = write_rehearsal_folder(tmp_path / "luna16", 1, lung_masks=True)
    summary = prepare_cohort(
        read_luna16_folder(source),
        tmp_path / "out",
        override_mask_method(steps, "luna16"),
        process_pool(0),
        workers=0,
        tell=str,
    )
    (scan,) = summary.manifest["scans"]
    assert (scan["status"], scan["lung_mask"]["method"]) == ("ok", "luna16")
    assert scan["lung_mask"]["threshold_hu"] is None
    assert scan["lung_volume_l"] == pytest.approx(2.36, rel=0.03)


def test_two_runs_in_one_folder_are_refused(prepare, out):
    with only_run_in(out), pytest.raises(LungDetError, match="another run"):
        prepare()


def test_the_input_folder_is_no_output_folder(source, steps):
    folder = read_luna16_folder(source)
    with pytest.raises(LungDetError, match="choose another one"):
        prepare_cohort(folder, source, steps, process_pool(0), workers=0)


def test_a_pipeline_without_slabs_names_the_missing_step(prepare, steps):
    steps.pop()
    summary = prepare()
    assert len(summary.failures) == 3
    assert "MIPSlabs" in summary.failures[0].reason


def test_the_report_stands_beside_the_manifest(prepare, out):
    prepare()
    page = (out / "prep_report.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == 3
    assert all(uid in page for uid in UIDS)


def test_a_misnamed_file_is_told_and_enters_no_split(prepare, source, out):
    for suffix in (".mhd", ".zraw"):
        path = scan_file(source, 0, suffix)
        path.with_name(f"a b{suffix}").write_bytes(path.read_bytes())
    summary = prepare()
    assert summary.exit_code == 1
    (entry,) = json.loads((out / "failures.json").read_text())
    assert "'a b' is no series UID" in entry["reason"]
    write_splits(out, protocol="strict")
    split = json.loads((out / "annotations" / "split.json").read_text())
    assert (split["cohort"]["series"], split["cohort"]["series_failed"]) == (3, 0)


def test_an_interrupted_change_of_pipeline_is_told_and_stops_splits(
    prepare, out, steps, monkeypatch
):
    from lungdet_mmdet.preparation import cohort_preparation

    prepare()
    steps[5]["level_hu"] = -500
    run_per_scan = cohort_preparation.run_per_scan

    def interrupted(function, jobs, *args, **options):
        summary = run_per_scan(function, jobs[:1], *args, **options)
        summary.interrupted_by = 2
        return summary

    monkeypatch.setattr(cohort_preparation, "run_per_scan", interrupted)
    manifest = prepare().manifest
    assert [scan["status"] for scan in manifest["scans"]] == ["ok", "outdated", "outdated"]
    with pytest.raises(LungDetError, match="being prepared again when the run ended early"):
        write_splits(out)
    monkeypatch.undo()
    assert [scan["status"] for scan in prepare().manifest["scans"]] == ["ok"] * 3
    write_splits(out)


def test_scans_moved_aside_are_never_deleted(prepare, source, out, steps):
    for level in (-500, -400):
        prepare()
        text = {p: p.read_bytes() for p in source.glob(f"*/{UIDS[2]}.*")}
        for path in text:
            path.unlink()
        steps[5]["level_hu"] = level
        prepare()
        for path, content in text.items():
            path.write_bytes(content)
    assert sorted(p.name for p in (out / "outdated").iterdir()) == [UIDS[2], f"{UIDS[2]}.2"]


def test_splits_wait_for_no_run_that_rewrites_scans(prepare, out):
    prepare()
    with only_run_in(out), pytest.raises(LungDetError, match="another run"):
        write_splits(out)


def test_a_worker_of_another_version_writes_nothing(source, out, steps):
    from lungdet_mmdet.preparation.prep_pipeline import PrepareJob
    from lungdet_mmdet.preparation.scan_job import prepare_scan

    scan = read_luna16_folder(source).scans[0]
    with pytest.raises(LungDetError, match=r"has lungdet_mmdet .*, the run has 0\.0\+other"):
        prepare_scan(PrepareJob(scan, out, steps, code="0.0+other"))
    assert not out.exists()


def test_preview_and_record_tell_one_coverage(prepare, out, steps, monkeypatch):
    # Slices with less than 99 % of the largest lung area are dropped, and with them much of the
    # nodule from z = 70 to 90 mm: the lungs are widest at 85 mm.
    step = next(s for s in steps if s["type"] == "DropPeripheralSlices")
    step["min_area_share"] = 0.99
    shown = []
    draw = MaskPreview.draw
    monkeypatch.setattr(
        MaskPreview, "draw", lambda self, nodules: shown.append(nodules) or draw(self, nodules)
    )
    prepare()
    records = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(out.glob("slabs/*/scan.json"))
    ]
    kept = [nodule["coverage"] for record in records for nodule in record["nodules"]]
    assert [nodule.coverage for nodules in shown for nodule in nodules] == kept
    assert all(0.2 < coverage < 0.95 for coverage in kept)


def test_patients_of_scans_prepared_from_another_folder_stay_known(prepare, source, out):
    table = source / "patients.csv"
    scans = [(UIDS[0], "P1"), (UIDS[1], "P2"), (UIDS[2], "P1")]
    table.write_text("seriesuid,patient_id\n" + "".join(f"{u},{p}\n" for u, p in scans))
    prepare()
    # What is left is one more part of the same cohort, and its table tells of that part alone.
    for index in (1, 2):
        scan_file(source, index).unlink()
    table.write_text(f"seriesuid,patient_id\n{UIDS[0]},P1\n")
    prepare()
    # By digests, as headers name them: who is the same, not who it is.
    assert read_patients(out / "patients.csv") == {u: patient_digest(p) for u, p in scans}
    assert patient_digest(patient_digest("P1")) == patient_digest("P1")
    write_splits(out, protocol="strict")
    parts = [
        json.loads((out / "annotations" / f"{part}.json").read_text())["series"]
        for part in ("train", "val", "test")
    ]
    assert sum({UIDS[0], UIDS[2]} <= set(series) for series in parts) == 1


def test_the_pixels_of_a_lung_mask_belong_to_what_a_scan_is_made_from(tmp_path, steps):
    source = write_rehearsal_folder(tmp_path / "luna16", 1, lung_masks=True)
    (scan,) = read_luna16_folder(source).scans
    job = PrepareJob(scan, tmp_path / "out", steps)
    before = fingerprint(job)
    os.utime(scan.lung_mask_path.with_suffix(".zraw"), ns=(1, 1))
    after = fingerprint(job)
    assert before.pop("source") != after.pop("source")
    assert before == after
