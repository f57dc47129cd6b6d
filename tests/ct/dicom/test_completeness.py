"""Slices that are not recognised are named; what belongs to other objects is no slice."""

import gzip
import shutil

import numpy as np
import pytest

from lungdet_mmdet.ct.dicom.elements import is_dicom
from lungdet_mmdet.ct.dicom.reading import read_dicom_folder
from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.reading import read_scan
from lungdet_mmdet.ct.scan_inputs import list_inputs
from lungdet_mmdet.errors import LungDetError
from tests.support.dicom_export import write_dicom_series

pydicom = pytest.importorskip("pydicom")

pytestmark = pytest.mark.reliability("left out, or guessed from bytes: DICOM")

UID = "2.999.6"
GEOMETRY = ScanGeometry((16, 6, 8), (2.5, 0.75, 0.5), (0.0, 0.0, 0.0))
ICON_BYTES = 64


@pytest.fixture
def paths(tmp_path):
    volume = np.arange(16 * 48, dtype=np.int16).reshape(GEOMETRY.size_zyx)
    return write_dicom_series(tmp_path / "ct", volume, GEOMETRY, seriesuid=UID)


def icon():
    item = pydicom.dataset.Dataset()
    item.Rows = item.Columns = 8
    item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME2"
    item.BitsAllocated = item.BitsStored = 8
    item.HighBit, item.PixelRepresentation = 7, 0
    item.PixelData = bytes(ICON_BYTES)
    return pydicom.sequence.Sequence([item])


@pytest.mark.parametrize(
    "lessen",
    [
        lambda b: b"",
        lambda b: b[:100],
        lambda b: b[:300],
        lambda b: b[:600],
        lambda b: b[: b.index(b"\xe0\x7f\x10\x00")],
        lambda b: bytes(len(b)),
    ],
    ids=["empty", "100_bytes", "300_bytes", "600_bytes", "before_the_pixels", "zeros"],
)
@pytest.mark.parametrize("which", [slice(-5, None), slice(1, None, 2)], ids=["last", "every_2nd"])
def test_slices_of_which_little_is_left_are_named(paths, lessen, which):
    for path in paths[which]:
        path.write_bytes(lessen(path.read_bytes()))
    with pytest.raises(LungDetError, match=rf"{paths[which][0].name}: cannot be read, perhaps"):
        read_scan(paths[0].parent)


def test_packed_slices_are_named(paths):
    for path in paths[1::2]:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    with pytest.raises(LungDetError, match=r"0001\.dcm\.gz: cannot be read, perhaps .*packed"):
        read_scan(paths[0].parent)


def test_an_unreadable_file_of_another_name_is_flagged_and_noted(paths):
    (paths[0].parent / "copy.dcm").write_bytes(b"")
    (listed,) = list_inputs([paths[0].parent]).scans
    assert "1 files beside the images cannot be read" in listed.load().flags[0]
    assert "copy.dcm" in list_inputs([paths[0].parent]).notes[0]


def test_notes_and_pictures_beside_the_images_are_no_slices(paths):
    folder = paths[0].parent
    (folder / "0016.txt").write_text("a note")
    (folder / "Thumbs.db").write_bytes(bytes(50))
    (folder / "._0003.dcm").write_bytes(b"\0\5\x16\7" + bytes(100))
    assert read_scan(folder).flags == ()


def test_files_without_preamble_are_read(paths):
    whole = read_scan(paths[0].parent).volume_hu
    for path in paths[1::2]:
        path.write_bytes(path.read_bytes()[132:])
    assert is_dicom(paths[1])
    assert np.array_equal(read_scan(paths[0].parent).volume_hu, whole)


@pytest.mark.parametrize("head", [b"", b"\x08\0\0\0", b"\x02\0 text that begins like DICOM"])
def test_other_files_are_no_dicom(tmp_path, head):
    path = tmp_path / "a"
    path.write_bytes(head)
    assert not is_dicom(path)


def test_a_directory_with_icons_is_no_damaged_slice(paths, tmp_path):
    from pydicom.fileset import FileSet

    index = FileSet()
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.StudyID = "1"
        dataset.save_as(path)
        index.add(path)
    index.write(tmp_path / "cd")
    dataset = pydicom.dcmread(tmp_path / "cd" / "DICOMDIR")
    for record in dataset.DirectoryRecordSequence:
        if record.DirectoryRecordType == "IMAGE":
            record.IconImageSequence = icon()
    dataset.save_as(tmp_path / "DICOMDIR")
    shutil.move(tmp_path / "DICOMDIR", tmp_path / "cd" / "DICOMDIR")
    assert read_scan(tmp_path / "cd").volume_hu.shape == (16, 6, 8)


@pytest.mark.parametrize("kept", [1.0, 0.8], ids=["whole", "cut_off"])
@pytest.mark.parametrize("sop_class", ["11.1", "66.4", "88.22", "88.59", "481.3"])
def test_other_objects_of_the_study_are_no_damaged_slices(paths, sop_class, kept):
    dataset = pydicom.dcmread(paths[0])
    del dataset.PixelData, dataset.Rows, dataset.Columns
    reference = pydicom.dataset.Dataset()
    reference.SeriesInstanceUID = UID
    dataset.ReferencedSeriesSequence = pydicom.sequence.Sequence([reference])
    dataset.IconImageSequence = icon()
    dataset.SOPClassUID = f"1.2.840.10008.5.1.4.1.1.{sop_class}"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.SOPInstanceUID, dataset.SeriesInstanceUID = "1.2.3.4", "1.2.3.5"
    other = paths[0].parent / "0099.dcm"
    dataset.save_as(other)
    other.write_bytes(other.read_bytes()[: int(kept * other.stat().st_size)])
    assert read_scan(paths[0].parent).flags == ()


def test_slices_missing_at_an_end_are_flagged_by_what_the_header_promises(paths):
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.ImagesInAcquisition = 16
        dataset.save_as(path)
    for path in paths[-5:]:
        path.unlink()
    (flag,) = read_scan(paths[0].parent).flags
    assert flag.startswith("the header speaks of 16 images in the acquisition, 11 are here")


def test_every_second_slice_missing_is_flagged(paths):
    for path in paths[1::2]:
        path.unlink()
    numbered, apart = read_scan(paths[0].parent).flags
    # 8 slices, numbered 1, 3, ... 15: seven numbers lie between them.
    assert numbered.startswith("the images are numbered from 1 to 15, and 7 of these numbers")
    assert apart.startswith("slices of 2.5 mm lie 5 mm apart")


def test_an_icon_in_a_slice_does_not_hide_that_its_pixels_are_short(paths):
    dataset = pydicom.dcmread(paths[3])
    dataset.IconImageSequence = icon()
    # As many bytes as the icon has, where 96 are needed.
    dataset.PixelData = bytes(ICON_BYTES)
    dataset.save_as(paths[3])
    with pytest.raises(LungDetError, match=r"0003\.dcm: it holds 64 bytes of pixels, .* for 96"):
        read_dicom_folder(paths[0].parent)


def test_inverted_grey_is_refused_with_its_reason(paths):
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.PhotometricInterpretation = "MONOCHROME1"
        dataset.save_as(path)
    with pytest.raises(LungDetError, match="photometric interpretation is MONOCHROME1"):
        read_scan(paths[0].parent)


def test_a_folder_of_nothing_but_lost_slices_is_named(tmp_path):
    for index in range(12):
        (tmp_path / f"{index:04d}.dcm").write_bytes(b"")
    (failure,) = list_inputs([tmp_path]).failures
    assert "0000.dcm: cannot be read, as all 12 DICOM images here" in failure.reason
