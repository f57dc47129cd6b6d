import json
import shutil

import pytest

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.files import PHANTOM_UID_PREFIX, SEMIREAL_UID_PREFIX
from lungdet_mmdet.splits.prepared import LIDC_UID_ROOT, data_name, read_prepared, training_flag


def test_what_was_written_is_read(make_scan, write_prepared):
    scan = make_scan("1.2", nodules=[(20, 20, 3, 4)], excluded=[(1, 2, 3, -1)], subset=4)
    cohort = read_prepared(write_prepared([make_scan("1.3"), scan]))
    assert [found.seriesuid for found in cohort.scans] == ["1.2", "1.3"]
    found = cohort.scans[0]
    assert (found.nodules, found.excluded, found.subset) == (scan.nodules, scan.excluded, 4)
    assert [slab.geometry for slab in found.slabs] == [slab.geometry for slab in scan.slabs]
    assert found.coverage == {"1.2/0": 0.95}
    assert cohort.warnings == ()


def test_a_failed_scan_keeps_its_nodules_and_loses_its_old_slabs(make_scan, write_prepared):
    folder = write_prepared([make_scan("1.2"), make_scan("1.3")])
    failure = {
        "seriesuid": "1.3",
        "stage": "input",
        "reason": "empty mask",
        "nodules": [{"nodule_id": "1.3/0", "centre_xyz_mm": [1, 2, 3], "diameter_mm": 5}],
    }
    (folder / "failures.json").write_text(json.dumps([failure]))
    failed = read_prepared(folder).scans[1]
    assert failed.slabs == ()
    assert failed.failure == "preparation failed (input: empty mask)"
    assert [nodule.nodule_id for nodule in failed.nodules] == ["1.3/0"]


def test_a_scan_that_was_not_finished_is_left_out_and_named(make_scan, write_prepared):
    folder = write_prepared([make_scan("1.2"), make_scan("1.3")])
    (folder / "slabs" / "1.3" / "scan.json").unlink()
    (folder / "slabs" / ".1.4.partial").mkdir()
    cohort = read_prepared(folder)
    assert [scan.seriesuid for scan in cohort.scans] == ["1.2"]
    assert cohort.warnings == ("1 unfinished scans left out: 1.3",)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda record: "{", "cannot be read as JSON"),
        (lambda record: json.dumps({**record, "slabs": [{"index": 0}]}), "not a complete scan"),
        (lambda record: "{}", "not a complete scan record"),
    ],
)
def test_a_damaged_record_is_named(make_scan, write_prepared, damage, words):
    folder = write_prepared([make_scan("1.2")])
    path = folder / "slabs" / "1.2" / "scan.json"
    path.write_text(damage(json.loads(path.read_text())))
    with pytest.raises(LungDetError, match=words) as error:
        read_prepared(folder)
    assert str(path) in str(error.value)


def test_a_missing_image_is_named(make_scan, write_prepared):
    folder = write_prepared([make_scan("1.2")])
    (folder / "slabs" / "1.2" / "003.png").unlink()
    with pytest.raises(LungDetError, match=r"names the image 1\.2/003\.png"):
        read_prepared(folder)


def test_an_unprepared_folder_names_the_command(tmp_path, make_scan, write_prepared):
    with pytest.raises(LungDetError, match="lungdet prepare"):
        read_prepared(tmp_path)
    folder = write_prepared([make_scan("1.2")])
    shutil.rmtree(folder / "slabs" / "1.2")
    with pytest.raises(LungDetError, match="no scan has been prepared to the end"):
        read_prepared(folder)


@pytest.mark.parametrize(
    ("uids", "name"),
    [
        ([f"{PHANTOM_UID_PREFIX}.1"], "phantom"),
        (["1.3.6.1.4.1.14519.5.2.1.6279.6001.100"], "LUNA16"),
        ([f"{SEMIREAL_UID_PREFIX}.1"], "semi-real"),
        (["1.2.3"], "CT scans"),
        (["1.2.3", f"{PHANTOM_UID_PREFIX}.1"], "phantom and CT scans"),
    ],
)
def test_data_is_named_by_its_uids(uids, name):
    assert data_name(uids) == name


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("seriesuid", "../../X", "is no series UID"),
        ("seriesuid", "1.3", "in the folder of another scan"),
        ("file_name", "../../x.png", "names the image"),
        ("file_name", "1.3/000.png", "names the image 1.3/000.png, which is not in"),
    ],
)
def test_a_record_that_leads_elsewhere_is_refused(make_scan, write_prepared, field, value, words):
    folder = write_prepared([make_scan("1.2"), make_scan("1.3")])
    (folder.parent / "x.png").touch()
    path = folder / "slabs" / "1.2" / "scan.json"
    record = json.loads(path.read_text())
    (record if field == "seriesuid" else record["slabs"][0])[field] = value
    path.write_text(json.dumps(record))
    with pytest.raises(LungDetError, match=words):
        read_prepared(folder)


@pytest.mark.parametrize(
    ("trained_on", "uid", "is_flagged"),
    [
        ("phantom", "1.2.3", True),
        ("phantom and semi-real", f"{LIDC_UID_ROOT}1", True),
        ("LUNA16 and phantom", "1.2.3", True),
        ("unnamed", "1.2.3", True),
        ("LUNA16", "1.2.3", False),
        ("LUNA16 and CT scans", "ct", False),
        ("phantom", f"{PHANTOM_UID_PREFIX}.1", False),
    ],
)
def test_a_model_of_no_patients_is_flagged_on_a_patient(trained_on, uid, is_flagged):
    flag = training_flag(trained_on, uid)
    assert bool(flag) == is_flagged
    assert not flag or (flag.startswith("not trained on patients") and trained_on in flag)


def test_a_folder_of_two_kinds_of_scans_names_the_command_that_goes_on(make_scan, write_prepared):
    folder = write_prepared([make_scan("1.2")])
    (folder / "unfinished.json").write_text("{}")
    with pytest.raises(LungDetError, match="new one; run the same `lungdet prepare` again to its"):
        read_prepared(folder)
