import numpy as np
import pytest

from lungdet_mmdet.annotations.nodule_sources import AnnotationSource
from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.scan_inputs import list_inputs
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.luna16.folder import read_luna16_folder
from tests.support.dicom_export import write_dicom_series

HEADER = "seriesuid,coordX,coordY,coordZ,diameter_mm\n"


@pytest.fixture
def root(tmp_path):
    """Scans 1.1 (subset3, with its own mask), 1.2 (no subset folder); 1.3 only in the tables."""
    for name in ("subset3/1.1.mhd", "more/1.2.mha", "seg-lungs-LUNA16/1.1.mhd"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "annotations.csv").write_text(HEADER + "1.1,1,2,3,4\n1.3,1,2,3,4\n")
    return tmp_path


def test_scans_come_with_their_rows_masks_and_subsets(root):
    (root / "subset_of_series.csv").write_text("seriesuid,subset\n1.1,9\n1.2,7\n")
    folder = read_luna16_folder(root)
    first, second = folder.scans
    assert (first.seriesuid, first.subset, len(first.nodules)) == ("1.1", 3, 1)
    assert first.lung_mask_path == root / "seg-lungs-LUNA16" / "1.1.mhd"
    assert (second.seriesuid, second.subset, second.nodules) == ("1.2", 7, ())
    assert second.lung_mask_path is None
    assert folder.missing_series == ("1.3",)


def test_healthy_series_that_are_missing_are_known_from_their_table(root):
    (root / "seriesuids.csv").write_text("1.1\n1.4\n")
    folder = read_luna16_folder(root)
    assert folder.missing_series == ("1.3", "1.4")
    assert any("1.2" in warning for warning in folder.warnings)


def test_the_same_series_twice_is_refused(root):
    (root / "more" / "1.1.mhd").touch()
    with pytest.raises(LungDetError, match=r"1\.1 is there twice"):
        read_luna16_folder(root)


def test_a_folder_without_tables_or_scans_is_refused(tmp_path):
    with pytest.raises(LungDetError, match="no such folder"):
        read_luna16_folder(tmp_path / "none")
    with pytest.raises(LungDetError, match=r"annotations\.csv is missing"):
        read_luna16_folder(tmp_path)
    (tmp_path / "annotations.csv").write_text(HEADER)
    with pytest.raises(LungDetError, match=r"unpack LUNA16's subset\*\.zip"):
        read_luna16_folder(tmp_path)


def test_scans_of_one_name_are_found_by_the_names_of_their_results(tmp_path):
    for name in ("s0001", "s0002"):
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / "ct.nii.gz").touch()
    of_results = [scan.name for scan in list_inputs([tmp_path / "in"]).scans]
    table = tmp_path / "corrected.csv"
    lines = [f"{name},1,2,3,{size}\n" for size, name in enumerate(of_results, start=4)]
    table.write_text(HEADER + "".join(lines))
    folder = read_luna16_folder(tmp_path / "in", annotations=AnnotationSource(table))
    found = {scan.seriesuid: [n.diameter_mm for n in scan.nodules] for scan in folder.scans}
    assert found == {"s0001_ct": [4.0], "s0002_ct": [5.0]}


def test_what_systems_leave_beside_files_is_no_scan(root):
    for name in ("subset3/._1.1.mhd", "__MACOSX/subset3/1.1.mhd", "@eaDir/1.5.mhd"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"\0\5\x16\7")
    folder = read_luna16_folder(root)
    assert [scan.seriesuid for scan in folder.scans] == ["1.1", "1.2"]
    assert folder.warnings == ()


def test_hidden_scans_are_passed_over_with_a_word(root):
    (root / "more" / ".hidden.mhd").touch()
    (root / "more" / "..mhd").touch()
    folder = read_luna16_folder(root)
    assert [scan.seriesuid for scan in folder.scans] == ["1.1", "1.2"]
    assert "2 hidden files or folders passed over" in folder.warnings[0]


@pytest.mark.parametrize("stem", ["candidates.csv", "a b", "a,b", "-x", 'q"', "u\u2028v", "CON"])
def test_a_stem_that_no_table_may_hold_is_no_scan_and_is_named(root, stem):
    (root / "more" / f"{stem}.mhd").touch()
    folder = read_luna16_folder(root)
    assert [scan.seriesuid for scan in folder.scans] == ["1.1", "1.2"]
    ((path, reason),) = folder.misnamed
    assert path == f"more/{stem}.mhd"
    assert "is no series UID" in reason


def test_linked_subset_folders_are_looked_into(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "1.3.mhd").touch()
    (root / "subset0").symlink_to(elsewhere)
    (root / "subset3" / "circle").symlink_to(root)
    folder = read_luna16_folder(root)
    assert [scan.seriesuid for scan in folder.scans] == ["1.1", "1.2", "1.3"]
    assert folder.scans[2].subset == 0
    assert folder.missing_series == ()


def test_a_scan_whose_nodules_cannot_be_placed_is_no_healthy_one(tmp_path):
    pytest.importorskip("pydicom")
    place = ScanGeometry((10, 6, 8), (2.5, 0.75, 0.5), (0.0, 0.0, 0.0))
    for uid in ("2.999.1", "2.999.2"):
        write_dicom_series(tmp_path / uid, np.zeros((10, 6, 8), np.int16), place, seriesuid=uid)
    (tmp_path / "2.999.1" / "0004.dcm").unlink()  # filled in from its neighbours, when it is read
    table = tmp_path / "marks.csv"
    table.write_text("scan,x,y,z,diameter\n2.999.1,3,3,6,4\n2.999.2,3,3,6,4\n")
    folder = read_luna16_folder(tmp_path, annotations=AnnotationSource(table, coords="voxel"))
    assert [(scan.seriesuid, len(scan.nodules)) for scan in folder.scans] == [("2.999.2", 1)]
    ((uid, reason),) = folder.misnamed
    assert uid == "2.999.1"
    assert "its nodules cannot be placed" in reason
    assert "slices lie 2.50 to 5.00 mm apart" in reason
    assert folder.missing_series == ()
