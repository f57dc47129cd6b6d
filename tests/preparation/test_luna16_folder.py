import pytest

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.luna16.folder import read_luna16_folder

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
