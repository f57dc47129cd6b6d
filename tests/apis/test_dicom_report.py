"""The DICOM structured report, read back with highdicom."""

import dataclasses

import numpy as np
import pytest

from lungdet_mmdet.apis.candidate_files import candidate_records
from lungdet_mmdet.apis.dicom_report import write_dicom_sr
from lungdet_mmdet.ct.dicom.reading import slice_stack
from lungdet_mmdet.ct.dicom.series import find_dicom_series
from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.scoring.candidates import Candidate
from tests.support.dicom_export import write_dicom_series

hd = pytest.importorskip("highdicom")


@pytest.fixture
def slices(tmp_path):
    geometry = ScanGeometry((20, 60, 80), (2.0, 0.5, 0.5), (10.0, 20.0, -300.0))
    volume = np.zeros(geometry.size_zyx, dtype=np.int16)
    write_dicom_series(tmp_path / "series", volume, geometry, seriesuid="2.999.1")
    return slice_stack(find_dicom_series(tmp_path / "series")[0])[0]


def test_candidates_are_circles_on_their_images(findings, slices, tmp_path):
    candidates = (
        Candidate("s", (20.0, 30.0, -280.0), 8.0, 0.9, (-282.0, -274.0), (2,), 1),
        Candidate("s", (21.0, 31.0, -290.0), 8.0, 0.2, (-292.0, -284.0), (1,), 1),
    )
    found = dataclasses.replace(findings, candidates=candidates, threshold=0.5)
    path = tmp_path / "sr.dcm"
    write_dicom_sr(path, found, candidate_records(found, dicom_slices=slices), slices)

    report = hd.sr.srread(path)
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert report.StudyInstanceUID == "2.999.1.0.1"
    (group,) = report.content.get_planar_roi_measurement_groups()
    region = group.roi
    # 10 mm from the first pixel's centre are 20 pixels; DICOM counts from its corner.
    assert region.value.tolist() == [[20.5, 20.5], [28.5, 20.5]]
    values = {m.name.meaning: m.value for m in group.get_measurements()}
    assert values == {"Diameter": 8.0, "Detection score": 0.9}
    source = region.ContentSequence[0].ReferencedSOPSequence[0]
    assert source.ReferencedSOPInstanceUID == "2.999.1.11"


def test_no_candidate_gives_no_report(findings, slices, tmp_path):
    found = dataclasses.replace(findings, candidates=())
    write_dicom_sr(tmp_path / "sr.dcm", found, [], slices)
    assert not (tmp_path / "sr.dcm").exists()
