"""Many scans, many runs, one output folder: whose result is whose, and what it says of them."""

import csv
import json
import os
import re
import shutil
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from lungdet_mmdet.apis import infer as scan_job
from lungdet_mmdet.apis import results_folder
from lungdet_mmdet.apis.infer import DetectorOptions, detect_scans
from lungdet_mmdet.apis.model_file import write_model_file
from lungdet_mmdet.apis.results_folder import (
    BatchRun,
    EarlierResult,
    earlier_result,
    is_result_of,
    write_summary,
)
from lungdet_mmdet.ct.scan_inputs import list_inputs
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.scan_runs import ScanFailure
from tests.support.rehearsal import (
    REHEARSAL_STEPS,
    rehearsal_uid,
    write_rehearsal_folder,
)
from tests.support.untrained_model import untrained_model

pytestmark = pytest.mark.reliability("a name or UID taken for unique: results")

QUICK = {"ResampleScan": {"spacing_zyx_mm": [5.0, 8.0, 8.0]}, "MIPSlabs": {"thickness_mm": 60.0}}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.pth"
    steps = [{**step, **QUICK.get(step["type"], {})} for step in REHEARSAL_STEPS]
    made = untrained_model()
    write_model_file(path, replace(made, config={**made.config, "prep_pipeline": steps}))
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two scans as .mha files."""
    root = write_rehearsal_folder(tmp_path_factory.mktemp("luna16"), 2)
    found = []
    for index in range(2):
        image = sitk.ReadImage(str(next(root.rglob(f"{rehearsal_uid(index)}.mhd"))))
        found.append(root / f"{index}.mha")
        sitk.WriteImage(image, str(found[-1]))
    return found


@pytest.fixture
def patients(images, tmp_path):
    """Scans of two patients, both called ct.mha."""
    paths = [tmp_path / "in" / name / "ct.mha" for name in ("A", "B")]
    for path, image in zip(paths, images, strict=True):
        path.parent.mkdir(parents=True)
        shutil.copy(image, path)
    return paths


@pytest.fixture
def run(model, tmp_path):
    def detect(*inputs, **options):
        chosen = DetectorOptions((model,), threshold=0.0, device="cpu", **options)
        return detect_scans(inputs, tmp_path / "out", chosen)

    return detect


def table(out):
    return list(csv.DictReader((out / "candidates.csv").open()))


def source_of(out, name):
    return json.loads((out / name / "candidates.json").read_text())["source"]


def test_rows_of_scans_of_one_name_are_told_apart(run, patients, tmp_path):
    names = [result.name for result in run(tmp_path / "in").results]
    assert len(set(names)) == 2
    assert {row["seriesuid"] for row in table(tmp_path / "out")} == set(names)


def test_a_second_run_leaves_the_first_patients_result_alone(run, patients, tmp_path):
    out = tmp_path / "out"
    (first,) = run(patients[0]).results
    (second,) = run(patients[1]).results
    assert first.name != second.name
    assert [source_of(out, r.name) for r in (first, second)] == [str(p) for p in patients]
    assert {row["seriesuid"] for row in table(out)} == {first.name, second.name}
    # Whatever the runs named, each scan comes back to its own folder.
    again = run(*patients[::-1]).results
    assert {r.name for r in again} == {first.name, second.name}
    assert all(r.skipped for r in again)


def test_another_scan_in_the_same_place_replaces_the_result(run, patients, images, tmp_path):
    (first,) = run(patients[0]).results
    shutil.copy(images[1], patients[0])
    (again,) = run(patients[0]).results
    assert (again.name, again.skipped) == (first.name, False)


def test_a_scan_that_was_moved_is_known(run, patients, tmp_path):
    (first,) = run(patients[0]).results
    moved = shutil.move(patients[0], tmp_path / "in" / "ct.mha")
    (again,) = run(moved).results
    assert (again.name, again.skipped) == (first.name, True)


def test_a_file_of_same_name_size_and_time_is_another_scan(tmp_path):
    scans = []
    for name, content in (("A", b"one"), ("B", b"two")):
        path = tmp_path / name / "ct.nrrd"
        path.parent.mkdir()
        path.write_bytes(content)
        os.utime(path, ns=(10**18, 10**18))
        scans += list_inputs([path]).scans
    one, two = scans
    assert one.files_digest() == two.files_digest()
    before = {"files": one.files_digest(), "scan": one.content_digest()}
    result = EarlierResult(before, place=one.place_digest())
    assert is_result_of(one, result)
    assert not is_result_of(two, result)


def test_a_scan_that_fails_now_marks_its_old_result(run, patients, images, tmp_path):
    out = tmp_path / "out"
    (first,) = run(patients[0]).results
    patients[0].write_bytes(patients[0].read_bytes()[:-100])
    broken = run(patients[0])
    assert broken.exit_code == 1
    assert "of an earlier run" in (out / first.name / "outdated.txt").read_text()
    assert table(out) == []
    shutil.copy(images[0], patients[0])
    (mended,) = run(patients[0]).results
    assert not (out / mended.name / "outdated.txt").exists()
    assert len(table(out)) > 0
    assert json.loads((out / "failures.json").read_text()) == []


def test_failures_of_other_scans_are_kept(run, patients, tmp_path):
    patients[0].write_bytes(b"nothing")
    run(patients[0])
    run(patients[1])
    (failure,) = json.loads((tmp_path / "out" / "failures.json").read_text())
    assert failure["seriesuid"] == "ct"
    assert str(patients[0]) in failure["reason"]


def failures_in(out):
    return {f["seriesuid"]: f["reason"] for f in json.loads((out / "failures.json").read_text())}


def test_a_failure_is_forgotten_where_its_own_scan_is_looked_at_again(run, images, tmp_path):
    paths = [tmp_path / f"scan{n}" / f"{n}.mha" for n in (1, 10)]
    for path in paths:
        path.parent.mkdir()
        shutil.copy(images[0], path)
    good = paths[1].read_bytes()
    paths[1].write_bytes(b"nothing")
    out = tmp_path / "out"
    run(tmp_path / "scan10")
    assert set(failures_in(out)) == {"10"}
    # A path that begins as the other's.
    run(tmp_path / "scan1")
    assert set(failures_in(out)) == {"10"}
    paths[1].write_bytes(good)
    run(paths[1])
    assert failures_in(out) == {}
    # What is no longer there has not failed: its input was looked at again.
    paths[1].write_bytes(b"nothing")
    paths[1].with_name("more.mha").write_bytes(good)
    run(tmp_path / "scan10")
    assert set(failures_in(out)) == {"10"}
    paths[1].unlink()
    run(tmp_path / "scan10")
    assert failures_in(out) == {}


def test_the_page_tells_two_scans_of_one_name_apart(run, patients, tmp_path):
    patients[0].write_bytes(b"nothing")
    run(patients[0])
    run(patients[1])
    rows = (tmp_path / "out" / "index.html").read_text().split("<article")[1:]
    told = {re.search('data-state="([a-z ]+)"', row)[1]: str(patients[0]) in row for row in rows}
    assert told.pop("failed")
    assert list(told.values()) == [False]
    assert len(rows) == 2


def test_failures_of_two_scans_of_one_name_are_two(run, patients, tmp_path):
    for path in patients:
        path.write_bytes(b"nothing")
        run(path)
    failures = json.loads((tmp_path / "out" / "failures.json").read_text())
    assert [f["seriesuid"] for f in failures] == ["ct", "ct"]


def test_runs_that_end_at_once_lose_no_failure(tmp_path, monkeypatch):
    real = results_folder.read_json_or

    def slowly(path, default):
        value = real(path, default)
        time.sleep(0.3)
        return value

    def end(name):
        failure = ScanFailure(name, "input", "bad", places=(name,))
        write_summary(BatchRun(tmp_path, failures=[failure]), looked_at={name})

    monkeypatch.setattr(results_folder, "read_json_or", slowly)
    runs = [threading.Thread(target=end, args=(name,)) for name in ("a", "b")]
    for thread in runs:
        thread.start()
    for thread in runs:
        thread.join()
    assert set(failures_in(tmp_path)) == {"a", "b"}


def test_a_result_that_another_run_is_replacing_does_not_end_the_summary(tmp_path, monkeypatch):
    header = ",".join([*results_folder.COLUMNS, *results_folder.MORE_COLUMNS])
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "candidates.csv").write_text(f"{header}\n{name},1\n")
        (tmp_path / name / "candidates.json").write_text("{}")
    real = results_folder.files_in

    def then_it_is_moved(folder):
        found = real(folder)
        if folder.name == "a":
            folder.rename(tmp_path / ".a.old")
        return found

    monkeypatch.setattr(results_folder, "files_in", then_it_is_moved)
    batch = BatchRun(tmp_path)
    write_summary(batch)
    assert batch.notes == []
    assert (tmp_path / "candidates.csv").read_text().splitlines() == [header, "b,1"]
    page = (tmp_path / "index.html").read_text()
    assert page.count("<article") == 1


def test_an_interrupted_run_says_that_scans_are_left(tmp_path):
    assert "; interrupted" not in "\n".join(BatchRun(tmp_path).lines())
    text = "\n".join(BatchRun(tmp_path, interrupted_by=15).lines())
    assert "0 failed; interrupted: the same command goes on from here" in text


def test_no_lungs_is_told_everywhere(run, images, tmp_path):
    image = sitk.ReadImage(str(images[0]))
    volume = sitk.GetArrayFromImage(image)
    # Values off by 1024, with a frame of padding that looks like air.
    volume = (volume + 1024).astype(np.int16)
    volume[:, :6] = -1100
    off = sitk.GetImageFromArray(volume)
    off.CopyInformation(image)
    sitk.WriteImage(off, str(tmp_path / "off.mha"))
    batch = run(tmp_path / "off.mha")
    text = "\n".join(batch.lines())
    assert "WARNING: no lungs were found (verdict: implausible)" in text
    assert {row["lungs"] for row in table(tmp_path / "out")} == {"implausible"}
    page = (tmp_path / "out" / "off" / "report.html").read_text()
    assert '"warnings":["no lungs were found (verdict: implausible)' in page


def test_anonymous_results_say_neither_where_nor_who(run, patients, tmp_path):
    patients[0] = patients[0].rename(patients[0].with_name("Mustermann_Max.mha"))
    (patients[1].parent / "Musterfrau_Eva.nii").write_bytes(b"nothing")
    # Names with blanks, and of files that a header names.
    folder = patients[1].parent / "Muster Max Maria"
    folder.mkdir()
    header = "NDims = 3\nDimSize = 4 4 4\nElementSpacing = 1 1 1\nElementType = MET_SHORT\n"
    (folder / "a.mhd").write_text(f"{header}ElementDataFile = Musterkind.raw\n")
    header = "NRRD0004\ntype: short\ndimension: 3\nsizes: 4 4 4\nspacings: 1 1 1\n"
    (folder / "b.nrrd").write_text(f"{header}encoding: raw\ndata file: Musterkind.raw\n\n")
    batch = run(tmp_path / "in", anonymous=True)
    assert len(batch.results) == 2
    assert len(batch.failures) == 3
    # Whoever ran it is told in full.
    assert any("Musterkind.raw" in failure.reason for failure in batch.failures)
    out = tmp_path / "out"
    for failure in json.loads((out / "failures.json").read_text()):
        assert failure["reason"].startswith("the input cannot be used")
    assert all(r.name.startswith("scan-") for r in batch.results)
    told = "\n".join(
        str(p.relative_to(out)) + p.read_text(errors="replace")
        for p in out.rglob("*")
        if p.is_file()
    )
    # Pictures are letters by chance, and among twenty million of them every short word stands.
    told = re.sub(r"base64,[A-Za-z0-9+/=]+", "", told)
    for secret in ("Muster", "ct.mha", str(tmp_path), tmp_path.name, "/in/"):
        assert secret not in told
    assert all(r.skipped for r in run(tmp_path / "in", anonymous=True).results)


def test_an_anonymous_result_that_is_outdated_names_nothing(run, patients, tmp_path, monkeypatch):
    (result,) = run(patients[0], anonymous=True).results

    def fails(*args, **options):
        raise LungDetError("/data/Mustermann_Max/ct.mhd: no chest CT")

    monkeypatch.setattr(scan_job, "write_findings", fails)
    (failure,) = run(patients[0], anonymous=True, looks=2).failures
    assert "Mustermann_Max" in failure.reason
    told = (tmp_path / "out" / result.name / "outdated.txt").read_text()
    assert "of an earlier run" in told
    assert "Mustermann" not in told


def test_a_worker_of_another_version_does_no_work(patients):
    scan = list_inputs([patients[0]]).scans[0]
    job = scan_job.DetectJob(scan, patients[0].parent / "out", None, code="another")
    with pytest.raises(
        LungDetError, match="this worker .* has lungdet_mmdet .*, the run has another"
    ):
        scan_job.detect_scan(job)


def test_the_page_of_all_scans_shows_pictures_of_the_worst(run, patients, tmp_path, monkeypatch):
    monkeypatch.setattr("lungdet_mmdet.apis.results_folder.MAX_PICTURES", 1)
    run(*patients)
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count("<article") == 2
    assert page.count("<img") == 1
    assert "the 1 others have theirs" in page


def test_a_finished_scan_needs_no_detector(run, patients, monkeypatch):
    run(*patients)
    monkeypatch.setattr(scan_job, "detector_for", None)
    assert [result.skipped for result in run(*patients).results] == [True, True]


def test_only_failures_of_scans_of_this_run_are_forgotten(run, patients, tmp_path):
    run(patients[0])
    failures = tmp_path / "out" / "failures.json"
    old = [{"seriesuid": n, "stage": "detecting", "reason": "no lungs"} for n in ("ct", "other")]
    failures.write_text(json.dumps(old))
    run(patients[0])
    assert [failure["seriesuid"] for failure in json.loads(failures.read_text())] == ["other"]


def test_rows_of_a_table_without_a_last_line_break_stay_apart(run, patients, tmp_path):
    run(*patients)
    before = table(tmp_path / "out")
    for path in (tmp_path / "out").glob("*/candidates.csv"):
        path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    run(*patients)
    assert table(tmp_path / "out") == before


@pytest.mark.parametrize("content", ["[]", "{}", '{"candidates": [1]}', '{"lungs": 3}', "{"])
def test_a_result_of_another_program_is_none(content, tmp_path):
    (tmp_path / "candidates.json").write_text(content)
    assert earlier_result(tmp_path) is None


def test_a_changed_result_is_read_again(tmp_path):
    path = tmp_path / "candidates.json"
    for score in (0.25, 0.5):
        candidate = {"score": score, "above_threshold": True, "diameter_mm": 4.0}
        path.write_text(json.dumps({"candidates": [candidate]}))
        os.utime(path, ns=(10**18, int(score * 10**18)))
        assert earlier_result(tmp_path).score == score
