from dataclasses import replace

import numpy as np
import pytest

from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.scan import write_metaimage
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.semireal.job import find_lungs

GEOMETRY = ScanGeometry((2, 4, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
HEADER = "seriesuid,coordX,coordY,coordZ,diameter_mm\n"


def write_scan(folder, uid):
    return write_metaimage(folder, uid, np.zeros((2, 4, 4), np.int16), GEOMETRY)


def test_scans_get_their_rows_of_all_tables(tmp_path):
    for uid in ("a", "b"):
        write_scan(tmp_path / "subset3", uid)
    write_scan(tmp_path / "seg-lungs-LUNA16", "a")
    write_scan(tmp_path / "nodule_masks", "a")
    (tmp_path / "annotations.csv").write_text(HEADER + "a,1,2,3,4\nz,0,0,0,9\n")
    (tmp_path / "annotations_excluded.csv").write_text(HEADER + "a,5,5,5,-1\n")
    (tmp_path / "lesions.csv").write_text(HEADER + "b,7,7,7,50\n")
    (tmp_path / "patients.csv").write_text("seriesuid,patient_id\na,P1\nb,P2\n")
    found = find_lungs([tmp_path])
    first, second = found.lungs
    assert (first.seriesuid, first.patient_id, second.patient_id) == ("a", "P1", "P2")
    assert [n.diameter_mm for n in first.nodules] == [4.0]
    assert [f.diameter_mm for f in first.findings] == [-1.0]
    assert [f.diameter_mm for f in second.findings] == [50.0]
    assert second.nodules == ()
    assert found.remarks == ()


def test_a_single_file_finds_the_tables_one_folder_up(tmp_path):
    path = write_scan(tmp_path / "subset3", "a")
    (tmp_path / "annotations.csv").write_text(HEADER + "a,1,2,3,4\n")
    table = tmp_path / "names.csv"
    table.write_text("seriesuid,patient_id\na,Q\n")
    (lung,) = find_lungs([path], patients=table).lungs
    assert (lung.patient_id, len(lung.nodules)) == ("Q", 1)


def test_a_dicom_folder_finds_its_rows_by_its_series_uid(tmp_path):
    pytest.importorskip("pydicom")
    from tests.support.dicom_export import write_dicom_series

    uid, geometry = "1.2.826.5", replace(GEOMETRY, size_zyx=(9, 4, 4))
    write_dicom_series(tmp_path / "p1", np.zeros((9, 4, 4), np.int16), geometry, seriesuid=uid)
    (tmp_path / "annotations.csv").write_text(HEADER + f"{uid},1,2,3,4\n")
    (tmp_path / "patients.csv").write_text(f"seriesuid,patient_id\n{uid},P1\n")
    found = find_lungs([tmp_path / "p1"])
    (lung,) = found.lungs
    assert (lung.seriesuid, lung.patient_id, len(lung.nodules)) == (uid, "P1", 1)
    assert found.remarks == ()
    (tmp_path / "empty").mkdir()
    with pytest.raises(LungDetError, match="empty: no DICOM images here"):
        find_lungs([tmp_path / "empty"])


def test_what_is_not_known_is_said(tmp_path):
    write_scan(tmp_path, "a")
    found = find_lungs([tmp_path])
    assert found.lungs[0].patient_id == "a"
    assert any("own nodules" in remark for remark in found.remarks)
    assert any("no patient" in remark for remark in found.remarks)


def test_a_series_twice_and_a_wrong_path_are_refused(tmp_path):
    write_scan(tmp_path / "one", "a")
    write_scan(tmp_path / "two", "a")
    with pytest.raises(LungDetError, match="twice"):
        find_lungs([tmp_path])
    with pytest.raises(LungDetError, match="no such file"):
        find_lungs([tmp_path / "nowhere"])


def test_masks_and_hidden_files_are_no_lungs(tmp_path):
    write_scan(tmp_path / "subset3", "a")
    for folder in ("labelsTr", "segmentations", ".trash", "__MACOSX"):
        write_scan(tmp_path / folder, "b")
    (tmp_path / "subset3" / "._a.mhd").write_bytes(b"fork")
    assert [lung.seriesuid for lung in find_lungs([tmp_path]).lungs] == ["a"]
