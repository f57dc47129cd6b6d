"""Whole scans: geometry, formats, options; equality with the prepared dataset."""

import copy
import dataclasses

import cv2
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from lungdet_mmdet.apis.scan_detector import check_same_slabs
from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.inference import ScanDetector
from lungdet_mmdet.scoring.slab_records import Slab
from tests.support.dicom_export import write_dicom_series


class BlobModel:
    """Frames every bright, round blob of 6 to 20 mm: a detector that finds phantom nodules."""

    def __init__(self, spacing_mm):
        self.spacing_mm = spacing_mm

    def test_step(self, batch):
        samples = []
        for image, sample in zip(batch["inputs"], batch["data_samples"], strict=True):
            _, _, stats, _ = cv2.connectedComponentsWithStats(
                (image[0].numpy() > 150).astype(np.uint8)
            )
            x, y, width, height, area = stats[1:].T
            size_mm = np.maximum(width, height) * self.spacing_mm
            is_round = (area > 0.65 * width * height) & (width < 1.5 * height)
            kept = is_round & (height < 1.5 * width) & (size_mm > 6) & (size_mm < 20)
            boxes = np.stack([x, y, x + width, y + height], axis=1)[kept]
            found = InstanceData(
                bboxes=torch.tensor(boxes, dtype=torch.float32),
                scores=torch.full((len(boxes),), 0.9),
            )
            samples.append(DetDataSample(metainfo=sample.metainfo, pred_instances=found))
        return samples


def assert_same(candidates, expected):
    assert len(candidates) == len(expected) > 0
    for one, other in zip(candidates, expected, strict=True):
        assert np.linalg.norm(np.subtract(one.centre_xyz_mm, other.centre_xyz_mm)) < 0.5
        assert abs(one.score - other.score) < 1e-3
        assert abs(one.diameter_mm - other.diameter_mm) < 0.1


@pytest.mark.parametrize("stride_mm", [None, 2.5])
def test_known_nodules_are_found_where_they_are(model_path, phantom, scan, stride_mm):
    detector = ScanDetector(model_path, device="cpu", stride_mm=stride_mm)
    detector._models = [(detector._models[0][0], BlobModel(1.4))]
    candidates = detector.detect(scan)
    for nodule in phantom.nodules:
        offsets = [np.subtract(c.centre_xyz_mm, nodule.centre_xyz_mm) for c in candidates]
        nearest = min(range(len(offsets)), key=lambda i: np.linalg.norm(offsets[i]))
        assert np.abs(offsets[nearest][:2]).max() < 1.5
        assert abs(offsets[nearest][2]) < 2.0
        assert candidates[nearest].z_from_depth
        assert abs(candidates[nearest].diameter_mm - nodule.diameter_mm) < 4.0


def test_a_model_beside_itself_finds_what_it_finds_alone(model_path, detector, findings, scan):
    pair = ScanDetector([model_path, model_path], device="cpu", batch_size=8)
    found = pair.analyse(scan)
    assert found.threshold == findings.threshold
    assert len(found.model["ensemble"]) == 2
    best = found.candidates[0], findings.candidates[0]
    assert best[0].score == pytest.approx(best[1].score, abs=1e-5)
    assert np.allclose(best[0].centre_xyz_mm, best[1].centre_xyz_mm, atol=0.5)


@pytest.mark.parametrize("looks", [0, 3, 5])
def test_a_slab_is_looked_at_once_twice_or_four_times(model_path, looks):
    with pytest.raises(LungDetError, match=f"looks is {looks}"):
        ScanDetector(model_path, device="cpu", looks=looks)


def test_mirrored_looks_find_what_a_mirror_does_not_change(model_path, phantom, scan):
    """The blob finder is blind to mirroring, so four looks must agree with one."""
    one, four = (ScanDetector(model_path, device="cpu", looks=looks) for looks in (1, 4))
    for detector in (one, four):
        detector._models = [(detector._models[0][0], BlobModel(1.4))]
    assert_same(four.detect(scan), one.detect(scan))


def test_an_ensemble_needs_slabs_of_one_kind(detector):
    other = copy.deepcopy(detector.model_file)
    other.config["prep_pipeline"][-1]["thickness_mm"] = 5.0
    check_same_slabs([detector.model_file, detector.model_file])
    with pytest.raises(LungDetError, match="prepared in another way"):
        check_same_slabs([detector.model_file, other])


def flipped(image):
    """The same points in space, stored with x and z the other way round."""
    volume = sitk.GetArrayFromImage(image)[::-1, :, ::-1]
    corner = [image.GetSize()[0] - 1, 0, image.GetSize()[2] - 1]
    out = sitk.GetImageFromArray(np.ascontiguousarray(volume))
    out.SetSpacing(image.GetSpacing())
    out.SetOrigin(image.TransformIndexToPhysicalPoint(corner))
    sign = np.array([-1.0, 1.0, -1.0])
    out.SetDirection((np.reshape(image.GetDirection(), (3, 3)) * sign).ravel().tolist())
    return out


@pytest.mark.parametrize("name", ["s.mhd", "s.mha", "s.nrrd", "s.nii", "s.nii.gz", "flipped.mha"])
def test_every_format_gives_the_same_candidates(detector, findings, phantom_image, tmp_path, name):
    image = flipped(phantom_image) if name == "flipped.mha" else phantom_image
    sitk.WriteImage(image, str(tmp_path / name))
    found = detector.analyse(tmp_path / name)
    assert np.array_equal(found.slabs, findings.slabs)
    assert_same(found.candidates, findings.candidates)


def test_dicom_gives_the_same_candidates(detector, findings, phantom, tmp_path):
    pytest.importorskip("pydicom")
    write_dicom_series(
        tmp_path, phantom.volume_hu, phantom.geometry, seriesuid="2.999.7", intercept=-4096
    )
    found = detector.analyse(tmp_path)
    assert found.scan.seriesuid == "2.999.7"
    assert_same(found.candidates, findings.candidates)


def test_a_moved_scan_moves_its_candidates(detector, findings, scan):
    moved = dataclasses.replace(
        scan,
        geometry=dataclasses.replace(
            scan.geometry,
            origin_xyz_mm=tuple(np.add(scan.geometry.origin_xyz_mm, (10.0, -20.0, 30.0)).tolist()),
        ),
    )
    candidates = detector.analyse(moved).candidates
    assert len(candidates) == len(findings.candidates)
    for one, other in zip(candidates, findings.candidates, strict=True):
        assert np.allclose(np.subtract(one.centre_xyz_mm, other.centre_xyz_mm), (10, -20, 30))


def test_slabs_fed_from_memory_equal_slabs_fed_from_png(detector, findings, tmp_path):
    from mmcv.transforms import Compose
    from mmdet.registry import TRANSFORMS

    steps = detector.model_file.config["test_pipeline"]
    offline = Compose([TRANSFORMS.build(step) for step in steps])
    seen = []

    class Model:
        def test_step(self, batch):
            seen.extend(zip(batch["inputs"], batch["data_samples"], strict=True))
            nothing = InstanceData(bboxes=torch.zeros(0, 4), scores=torch.zeros(0))
            return [
                DetDataSample(metainfo=s.metainfo, pred_instances=nothing)
                for s in batch["data_samples"]
            ]

    other = copy.copy(detector)
    other._models = [(detector._models[0][0], Model())]
    assert other.detect(findings.scan) == []
    for index, (online, sample) in enumerate(seen):
        path = tmp_path / f"{index}.png"
        cv2.imwrite(str(path), findings.slabs[index])
        packed = offline({"img_path": str(path), "img_id": index})
        assert torch.equal(packed["inputs"], online)
        assert packed["data_samples"].metainfo == sample.metainfo
    assert len(seen) == len(findings.slabs)


def test_batches_do_not_change_the_result(model_path, findings, scan):
    single = ScanDetector(model_path, device="cpu", batch_size=1).analyse(scan)
    assert_same(single.candidates, findings.candidates)


def test_threads_with_slabs_of_their_own_change_no_digit(model_path, findings):
    detector = ScanDetector(model_path, device="cpu")
    slabs = [Slab(g.index, "phantom", g) for g in findings.slab_geometries[:5]]
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(detector._detect_slabs(findings.slabs[:5], slabs, "fp32"))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for one, three in zip(*found, strict=True):
        assert one.img_id == three.img_id
        np.testing.assert_array_equal(one.boxes_xyxy_px, three.boxes_xyxy_px)
        np.testing.assert_array_equal(one.scores, three.scores)


def test_only_candidates_at_the_threshold_are_returned(model_path, findings, scan):
    middle = findings.candidates[3].score
    detector = ScanDetector(model_path, device="cpu", threshold=middle)
    assert [c.score for c in detector.detect(scan)] == [c.score for c in findings.candidates[:4]]
    called = detector(scan)
    assert [len(found) for found in called["predictions"]] == [4]


def test_a_threshold_of_the_model_file_is_used(model_path, detector, tmp_path):
    from lungdet_mmdet.apis.model_file import read_model_file, write_model_file

    model = dataclasses.replace(read_model_file(model_path), threshold=0.125)
    write_model_file(tmp_path / "m.pth", model)
    assert ScanDetector(tmp_path / "m.pth").threshold == 0.125
    assert ScanDetector(tmp_path / "m.pth", threshold=0.0).threshold == 0.0
    assert detector.threshold == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch size is 0"),
        ({"threshold": 1.5}, "threshold is 1.5"),
        ({"stride_mm": 8.0}, r"at most the slab thickness, 7\.5 mm"),
        ({"stride_mm": -1.0}, "stride is -1"),
        ({"device": "abacus"}, "device 'abacus' is unknown"),
    ],
)
def test_senseless_options_are_refused(model_path, options, message):
    with pytest.raises(LungDetError, match=message):
        ScanDetector(model_path, **options)


def test_mr_is_refused(detector, scan):
    mr = dataclasses.replace(scan, volume_hu=np.abs(scan.volume_hu))
    with pytest.raises(LungDetError, match=r"mr\.nii.*no chest CT"):
        detector.analyse(mr, source="mr.nii")


def test_another_preparation_is_flagged(detector, findings, scan):
    other = copy.copy(detector)
    made_with = {"pixels_version": "0"}
    other.model_files = [dataclasses.replace(detector.model_file, made_with=made_with)]
    assert any("pixels of version 0" in flag for flag in other.analyse(scan).flags)
    assert not any("pixels of version" in flag for flag in findings.flags)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("end", "formats"),
    [("149104919", ["flipped.nrrd"]), ("480003264", ["s.nii", "dicom"])],
)
def test_real_scans_give_the_same_candidates_in_other_formats(
    detector, luna16_sample, tmp_path, end, formats
):
    pytest.importorskip("pydicom")
    path = next(luna16_sample.glob(f"subset*/*{end}.mhd"))
    expected = detector.analyse(path).candidates
    image = sitk.ReadImage(str(path))
    for name in formats:
        if name == "dicom":
            geometry = ScanGeometry(
                image.GetSize()[::-1],
                image.GetSpacing()[::-1],
                image.GetOrigin(),
                image.GetDirection(),
            )
            volume = sitk.GetArrayFromImage(image)
            write_dicom_series(
                tmp_path / name, volume, geometry, seriesuid="2.999.8", intercept=-4096
            )
        else:
            stored = flipped(image) if name.startswith("flipped") else image
            sitk.WriteImage(stored, str(tmp_path / name))
        assert_same(detector.analyse(tmp_path / name).candidates, expected)


@pytest.mark.parametrize(("threshold", "is_positive"), [(0.0, True), (1.0, False)])
def test_candidates_beyond_the_most_that_are_kept_are_told(
    detector, scan, monkeypatch, threshold, is_positive
):
    monkeypatch.setattr("lungdet_mmdet.apis.scan_detector.MAX_MARKS_PER_SCAN", 2)
    monkeypatch.setattr(detector, "threshold", threshold)
    found = detector.analyse(scan)
    assert len(found.candidates) == len(found.joined) == 2
    told = [flag for flag in found.flags if flag.startswith("more candidates than 2 reach")]
    assert len(told) == is_positive
