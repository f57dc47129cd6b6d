"""Enhanced (multi-frame) CT is read as the same slices in files of their own."""

import numpy as np
import pytest

from lungdet_mmdet.apis.candidate_files import nearest_image
from lungdet_mmdet.ct.dicom.reading import slice_stack
from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.reading import read_scan
from lungdet_mmdet.ct.scan_inputs import list_inputs
from lungdet_mmdet.errors import LungDetError
from tests.support.dicom_export import write_dicom_series

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset  # noqa: E402
from pydicom.sequence import Sequence  # noqa: E402
from pydicom.uid import ImplicitVRLittleEndian, RLELossless  # noqa: E402

GEOMETRY = ScanGeometry((12, 20, 24), (2.5, 0.8, 0.7), (-80.0, -60.0, 30.0))
VOLUME = np.random.default_rng(0).integers(-1000, 400, GEOMETRY.size_zyx).astype(np.int16)
ORDER = np.random.default_rng(1).permutation(len(VOLUME))


def item(**values):
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.fixture
def single(tmp_path):
    folder = tmp_path / "single"
    write_dicom_series(folder, VOLUME, GEOMETRY, seriesuid="1.2.3")
    return folder


@pytest.fixture
def enhanced(single, tmp_path):
    """Write the slices of `single` into one file, its frames in no order."""

    def write(*, change=lambda dataset: None, syntax=None):
        slices = [pydicom.dcmread(path) for path in sorted(single.iterdir())]
        whole = pydicom.dcmread(sorted(single.iterdir())[0])
        frames = []
        for index in ORDER:
            place = item(ImagePositionPatient=slices[index].ImagePositionPatient)
            frames.append(item(PlanePositionSequence=Sequence([place])))
        turn = item(ImageOrientationPatient=whole.ImageOrientationPatient)
        measures = item(PixelSpacing=whole.PixelSpacing, SliceThickness=whole.SliceThickness)
        scale = item(RescaleIntercept=-1024, RescaleSlope=1, RescaleType="HU")
        shared = item(
            PlaneOrientationSequence=Sequence([turn]),
            PixelMeasuresSequence=Sequence([measures]),
            PixelValueTransformationSequence=Sequence([scale]),
        )
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
                        "SliceThickness", "RescaleIntercept", "RescaleSlope"):  # fmt: skip
            delattr(whole, keyword)
        whole.SOPClassUID = whole.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
        whole.NumberOfFrames = len(frames)
        whole.SharedFunctionalGroupsSequence = Sequence([shared])
        whole.PerFrameFunctionalGroupsSequence = Sequence(frames)
        whole.PixelData = b"".join(slices[index].PixelData for index in ORDER)
        change(whole)
        if syntax == RLELossless:
            whole.compress(RLELossless, generate_instance_uid=False)
        elif syntax is not None:
            whole.file_meta.TransferSyntaxUID = syntax
        path = tmp_path / "enhanced" / "IM0001"
        path.parent.mkdir()
        pydicom.dcmwrite(path, whole, enforce_file_format=True)
        return path.parent

    return write


@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian, RLELossless])
def test_frames_are_read_as_slices_in_whatever_order_they_are(single, enhanced, syntax):
    one, many = read_scan(enhanced(syntax=syntax)), read_scan(single)
    assert np.array_equal(one.volume_hu, many.volume_hu)
    assert np.array_equal(one.volume_hu, VOLUME)
    assert one.geometry == many.geometry
    assert one.seriesuid == many.seriesuid
    assert one.flags == ()


def test_a_candidate_names_its_frame(enhanced):
    (scan,) = list_inputs([enhanced()]).scans
    slices, _ = slice_stack(scan.series)
    place = GEOMETRY.voxel_to_world(np.array([3.0, 4.0, 5.0]))
    image = nearest_image(slices, place)
    assert (image["file"], image["frame"]) == ("IM0001", list(ORDER).index(3) + 1)
    assert image["column_row"] == [5.0, 4.0]
    assert scan.files() == [slices[0].path]


def test_a_missing_frame_is_flagged_or_refused(enhanced):
    def drop(dataset):
        kept = [i for i, index in enumerate(ORDER) if index != 6]
        pixels = np.frombuffer(dataset.PixelData, np.uint16).reshape(len(ORDER), -1)
        dataset.PixelData = pixels[kept].tobytes()
        groups = dataset.PerFrameFunctionalGroupsSequence
        dataset.PerFrameFunctionalGroupsSequence = Sequence([groups[i] for i in kept])
        dataset.NumberOfFrames = len(kept)

    scan = read_scan(enhanced(change=drop))
    assert "slice distance changes" in scan.flags[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: delattr(d, "PerFrameFunctionalGroupsSequence"), "does not place its frames"),
        (lambda d: setattr(d, "PixelData", d.PixelData[:-960]), "it holds .* bytes of pixels"),
    ],
)
def test_frames_that_cannot_be_told_are_refused(enhanced, change, message):
    with pytest.raises(LungDetError, match=message):
        read_scan(enhanced(change=change))


def test_frames_of_several_scales_are_refused(enhanced):
    def rescale(dataset):
        del dataset.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence
        for number, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
            scale = item(RescaleIntercept=-1024, RescaleSlope=1 + number % 2, RescaleType="HU")
            frame.PixelValueTransformationSequence = Sequence([scale])

    with pytest.raises(LungDetError, match="different rescale slopes"):
        read_scan(enhanced(change=rescale))


def test_several_phases_in_one_file_are_refused(enhanced):
    def repeat(dataset):
        frames = dataset.PerFrameFunctionalGroupsSequence
        for frame in frames[6:]:
            frame.PlanePositionSequence = frames[0].PlanePositionSequence

    with pytest.raises(LungDetError, match="hold several different images|positions that make up"):
        read_scan(enhanced(change=repeat))
