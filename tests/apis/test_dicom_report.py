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


pytestmark = pytest.mark.reliability("kind 3, an optional output ends the job: DICOM reports")


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


MISSING_OR_ODD = [
    {"PatientBirthDate": None}, {"StudyDate": None}, {"PatientID": None}, {"PatientName": None},
    {"AccessionNumber": None}, {"StudyTime": None}, {"StudyID": None}, {"PatientSex": None},
    {"ReferringPhysicianName": None}, {"StudyDate": "gestern"}, {"PatientBirthDate": "19700230"},
    {"StudyTime": "25:99"}, {"PatientID": None, "StudyDate": "", "PatientBirthDate": None},
]  # fmt: skip


@pytest.mark.parametrize("tags", MISSING_OR_ODD, ids=str)
def test_what_may_be_blank_does_not_cost_the_report(findings, slices, tmp_path, tags):
    import warnings

    import pydicom

    warnings.simplefilter("ignore")
    for item in slices:
        dataset = pydicom.dcmread(item.path)
        for keyword, value in tags.items():
            if value is None:
                delattr(dataset, keyword)
            else:
                dataset._dict[pydicom.datadict.tag_for_keyword(keyword)] = raw(keyword, value)
        dataset.save_as(item.path)
    found = one_candidate(findings)
    write_dicom_sr(
        tmp_path / "sr.dcm", found, candidate_records(found, dicom_slices=slices), slices
    )
    assert pydicom.dcmread(tmp_path / "sr.dcm").StudyInstanceUID == "2.999.1.0.1"


def raw(keyword, value):
    """An element as a file holds it, whatever pydicom thinks of its value."""
    import pydicom
    from pydicom.dataelem import RawDataElement

    tag = pydicom.datadict.tag_for_keyword(keyword)
    content = value.encode().ljust(len(value) + len(value) % 2)
    vr = pydicom.datadict.dictionary_VR(tag)
    return RawDataElement(pydicom.tag.Tag(tag), vr, len(content), content, 0, False, True)


def one_candidate(findings):
    candidate = Candidate("s", (20.0, 30.0, -280.0), 8.0, 0.9, (-282.0, -274.0), (2,), 1)
    return dataclasses.replace(findings, candidates=(candidate,), threshold=0.5)


def test_an_anonymous_report_keeps_uids_alone(findings, slices, tmp_path):
    import pydicom

    found = one_candidate(findings)
    records = candidate_records(found, dicom_slices=slices)
    write_dicom_sr(tmp_path / "sr.dcm", found, records, slices, anonymous=True)
    report = pydicom.dcmread(tmp_path / "sr.dcm")
    assert (str(report.PatientName), report.PatientID, report.StudyDate) == ("", "", "")
    assert report.StudyInstanceUID == "2.999.1.0.1"


def test_images_without_what_a_report_needs_give_a_flag_and_all_other_files(
    findings, slices, tmp_path, monkeypatch
):
    from lungdet_mmdet.apis import dicom_report
    from lungdet_mmdet.apis import infer as scan_job
    from lungdet_mmdet.ct.scan_inputs import list_inputs

    def fails(*args, **options):
        raise AttributeError("no such tag")

    monkeypatch.setattr(dicom_report, "_measurement_report", fails)
    (scan,) = list_inputs([tmp_path / "series"]).scans
    written = scan_job.write_findings(tmp_path / "out", one_candidate(findings), scan_input=scan)
    assert "no DICOM report: the images lack what one has to repeat" in written.flags[-1]
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "candidates.csv", "candidates.json", "candidates.mrk.json", "report.html"
    }  # fmt: skip
