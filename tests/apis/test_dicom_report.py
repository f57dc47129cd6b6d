"""The DICOM files, read back with highdicom and judged by programs that know the standard."""

import dataclasses
import shutil
import subprocess

import numpy as np
import pytest

from lungdet_mmdet.apis.candidate_files import candidate_records
from lungdet_mmdet.apis.scan_results import DICOM_NAMES
from lungdet_mmdet.ct.dicom.reading import slice_stack
from lungdet_mmdet.ct.dicom.series import find_dicom_series
from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.scoring.candidates import Candidate
from tests.support.dicom_export import write_dicom_series

hd = pytest.importorskip("highdicom")
write_dicom = pytest.importorskip("lungdet_mmdet.apis.dicom_report").write_dicom
pytestmark = pytest.mark.reliability("an optional output ends the job: DICOM reports")
GEOMETRY = ScanGeometry((20, 60, 80), (2.0, 0.5, 0.5), (10.0, 20.0, -300.0))


@pytest.fixture
def slices(tmp_path):
    volume = np.zeros(GEOMETRY.size_zyx, dtype=np.int16)
    write_dicom_series(tmp_path / "series", volume, GEOMETRY, seriesuid="2.999.1")
    return slice_stack(find_dicom_series(tmp_path / "series")[0])[0]


def test_candidates_are_circles_on_their_images(findings, slices, tmp_path):
    candidates = (
        Candidate("s", (20.0, 30.0, -280.0), 8.0, 0.9, (-282.0, -274.0), (2,), 1),
        Candidate("s", (21.0, 31.0, -290.0), 8.0, 0.2, (-292.0, -284.0), (1,), 1),
    )
    found = dataclasses.replace(findings, candidates=candidates, threshold=0.5)
    path = tmp_path / "sr.dcm"
    write_dicom("sr", path, found, candidate_records(found, dicom_slices=slices), slices)

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


def texts_of(report):
    """The values of all text items of a report."""
    texts, items = [], list(report.ContentSequence)
    while items:
        item = items.pop()
        texts.append(str(item.get("TextValue", "")))
        items += list(item.get("ContentSequence", []))
    return texts


def test_nothing_found_is_reported_too(findings, slices, tmp_path):
    found = dataclasses.replace(findings, candidates=(), threshold=0.625)
    write_dicom("sr", tmp_path / "sr.dcm", found, [], slices)
    report = hd.sr.srread(tmp_path / "sr.dcm")
    assert report.content.get_planar_roi_measurement_groups() == []
    (group,) = report.content.get_image_measurement_groups()
    values = {m.name.meaning: m.value for m in group.get_measurements()}
    assert values == {
        "Candidates at or above the threshold": 0, "Threshold of the detection score": 0.625
    }  # fmt: skip
    assert "nothing found at or above the threshold 0.625" in texts_of(report)
    evidence = [
        item.ReferencedSOPInstanceUID
        for name in ("CurrentRequestedProcedureEvidence", "PertinentOtherEvidence")
        for study in report.get(f"{name}Sequence", [])
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    ]
    assert sorted(evidence) == sorted(s.instance_uid for s in slices)


@pytest.mark.parametrize("kind", DICOM_NAMES)
def test_each_file_says_what_made_it_and_what_for(findings, slices, tmp_path, kind):
    import pydicom

    import lungdet_mmdet

    model = {**findings.model, "name": "net.pth", "sha256": "ab" * 32}
    found = dataclasses.replace(one_candidate(findings), model=model)
    path = tmp_path / "file.dcm"
    write_dicom(kind, path, found, candidate_records(found, dicom_slices=slices), slices)
    file = pydicom.dcmread(path)
    assert "RESEARCH ONLY, not for clinical use" in file.SeriesDescription
    assert len(file.SeriesDescription) <= 64
    assert (file.ManufacturerModelName, file.SoftwareVersions, file.DeviceSerialNumber) == (
        "net.pth", lungdet_mmdet.__version__, "ab" * 8
    )  # fmt: skip
    assert file.StudyInstanceUID == "2.999.1.0.1"
    if kind == "sr":
        texts = texts_of(file)
        assert "Research software. Not a medical device and not for clinical use." in texts
        assert "model net.pth, SHA-256 " + "ab" * 32 in texts
        assert "threshold 0.5" in texts
        assert any(text.startswith("not trained on patients") for text in texts)


def test_the_picture_shows_the_nodule_and_the_notice(findings, slices, tmp_path):
    import pydicom

    found = one_candidate(findings)
    write_dicom(
        "sc", tmp_path / "sc.dcm", found, candidate_records(found, dicom_slices=slices), slices
    )
    file = pydicom.dcmread(tmp_path / "sc.dcm")
    assert file.BurnedInAnnotation == "YES"
    picture = file.pixel_array
    # The notice: white letters on red in the first lines.
    top = picture[:32].reshape(-1, 3).astype(int)
    assert (top.min(axis=1) > 200).sum() > 500
    assert np.median(top, axis=0).tolist() == [107, 29, 29]
    # A ring of the mark's colour around the candidate.
    assert np.all(np.abs(picture.astype(int) - (255, 176, 46)) < 40, axis=2).sum() > 50


def test_segments_are_the_boxes_of_the_candidates(findings, slices, tmp_path):
    candidates = (
        Candidate("s", (20.0, 30.0, -280.0), 8.0, 0.9, (-284.0, -276.0), (2,), 1),
        Candidate("s", (35.0, 40.0, -290.0), 6.0, 0.7, (-292.0, -288.0), (1,), 1),
        Candidate("s", (30.0, 30.0, -270.0), 6.0, 0.2, (-272.0, -268.0), (1,), 1),
    )
    scan = dataclasses.replace(findings.scan, file_geometry=GEOMETRY)
    found = dataclasses.replace(findings, candidates=candidates, threshold=0.5, scan=scan)
    records = candidate_records(found, dicom_slices=slices)
    write_dicom("seg", tmp_path / "seg.dcm", found, records, slices)
    seg = hd.seg.segread(tmp_path / "seg.dcm")
    assert [s.SegmentLabel for s in seg.SegmentSequence] == [
        "candidate 1, score 0.900", "candidate 2, score 0.700"
    ]  # fmt: skip
    uids = [s.instance_uid for s in slices]
    pixels = seg.get_pixels_by_source_instance(
        uids, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )
    first = np.argwhere(pixels[..., 0])
    # z -284 to -276 are the slices 8 to 12; 16 mm to 24 mm along x the columns 12 to 28.
    assert (first.min(axis=0).tolist(), first.max(axis=0).tolist()) == ([8, 12, 12], [12, 28, 28])
    assert pixels[..., 1].any()


def test_without_a_candidate_there_is_nothing_to_segment(findings, slices, tmp_path):
    found = dataclasses.replace(findings, candidates=())
    write_dicom("seg", tmp_path / "seg.dcm", found, [], slices)
    assert not (tmp_path / "seg.dcm").exists()


def needs(program, package):
    return pytest.mark.skipif(
        shutil.which(program) is None,
        reason=f"{program} is not on this machine (Debian's {package} has it)",
    )


@needs("dciodvfy", "dicom3tools")
@pytest.mark.parametrize("kind", DICOM_NAMES)
@pytest.mark.parametrize("anonymous", [False, True])
def test_dciodvfy_finds_no_error(findings, slices, tmp_path, kind, anonymous):
    found = one_candidate(findings)
    path = tmp_path / "file.dcm"
    records = candidate_records(found, dicom_slices=slices)
    write_dicom(kind, path, found, records, slices, anonymous=anonymous)
    said = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True).stderr
    errors = [line for line in said.splitlines() if line.startswith("Error")]
    # UIDs of made-up scans begin with 2.999, which no real one may.
    assert [line for line in errors if "example root" not in line] == []


@needs("dsrdump", "dcmtk")
@pytest.mark.parametrize("n", [0, 1])
def test_dsrdump_reads_the_report(findings, slices, tmp_path, n):
    found = one_candidate(findings)
    found = dataclasses.replace(found, candidates=found.candidates[:n])
    path = tmp_path / "sr.dcm"
    write_dicom("sr", path, found, candidate_records(found, dicom_slices=slices), slices)
    dumped = subprocess.run(["dsrdump", "+Pl", str(path)], capture_output=True, text=True)
    assert (dumped.returncode, dumped.stderr) == (0, "")
    assert "not for clinical use" in dumped.stdout
    assert ('"candidate 1"' in dumped.stdout) == bool(n)


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
    write_dicom(
        "sr", tmp_path / "sr.dcm", found, candidate_records(found, dicom_slices=slices), slices
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
    scan = dataclasses.replace(findings.scan, file_geometry=GEOMETRY)
    return dataclasses.replace(findings, candidates=(candidate,), threshold=0.5, scan=scan)


def tell_all(path, secret):
    """Write a secret into every text element of an image that could name a person or a place."""
    import pydicom

    dataset = pydicom.dcmread(path)
    for tag, (vr, *_) in pydicom.datadict.DicomDictionary.items():
        if vr in ("LO", "SH", "PN", "ST", "LT", "UT") and tag >> 16 in (8, 0x10, 0x18, 0x32, 0x38):
            dataset.add_new(tag, vr, secret)
    other = pydicom.Dataset()
    other.PatientID = secret
    dataset.OtherPatientIDsSequence = [other]
    dataset.save_as(path)


@pytest.mark.parametrize("kind", DICOM_NAMES)
def test_an_anonymous_file_repeats_no_word_of_its_images(findings, slices, tmp_path, kind):
    import pydicom

    for item in slices:
        tell_all(item.path, "Mustermann")
    found = one_candidate(findings)
    records = candidate_records(found, dicom_slices=slices)
    path = tmp_path / "file.dcm"
    write_dicom(kind, path, found, records, slices)
    assert b"Mustermann" in path.read_bytes()
    write_dicom(kind, path, found, records, slices, anonymous=True)
    assert b"Mustermann" not in path.read_bytes()
    file = pydicom.dcmread(path)
    assert (str(file.PatientName), file.PatientID, file.StudyDate) == ("", "", "")
    assert file.StudyInstanceUID == "2.999.1.0.1"


def test_images_without_what_a_report_needs_give_a_flag_and_all_other_files(
    findings, slices, tmp_path, monkeypatch
):
    from lungdet_mmdet.apis import dicom_report
    from lungdet_mmdet.apis.scan_results import write_findings
    from lungdet_mmdet.ct.scan_inputs import list_inputs

    def fails(*args, **options):
        raise AttributeError("no such tag")

    monkeypatch.setattr(dicom_report, "measurement_report", fails)
    (scan,) = list_inputs([tmp_path / "series"]).scans
    written = write_findings(tmp_path / "out", one_candidate(findings), scan_input=scan)
    assert "no candidates_sr.dcm: the images lack what one has to repeat" in written.flags[-1]
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "candidates.csv", "candidates.json", "candidates.mrk.json", "report.html", "thumbnail.jpg"
    }  # fmt: skip


def test_an_anonymous_result_does_not_repeat_what_an_error_names(
    findings, slices, tmp_path, monkeypatch
):
    from lungdet_mmdet.apis import scan_results
    from lungdet_mmdet.ct.scan_inputs import list_inputs

    def fails(*args):
        raise OSError("/data/Mustermann_Max: gone")

    monkeypatch.setattr(scan_results, "_make_thumbnail", fails)
    (scan,) = list_inputs([tmp_path / "series"]).scans
    out, found = tmp_path / "out", one_candidate(findings)
    written = scan_results.write_findings(out, found, scan_input=scan, anonymous=True)
    assert "no thumbnail.jpg: OSError" in written.flags
    assert all(b"Mustermann" not in path.read_bytes() for path in out.iterdir())


@pytest.mark.parametrize("kind", DICOM_NAMES)
def test_a_file_repeats_who_it_is_of_and_nothing_else(findings, slices, tmp_path, kind):
    import pydicom

    words = {
        "PatientComments": "SECRET1", "AdditionalPatientHistory": "SECRET2",
        "Occupation": "SECRET3", "StudyDescription": "SECRET4", "InstitutionName": "SECRET5",
    }  # fmt: skip
    for item in slices:
        dataset = pydicom.dcmread(item.path)
        for keyword, word in words.items():
            setattr(dataset, keyword, word)
        dataset.PatientID = "P77"
        dataset.save_as(item.path)
    found = one_candidate(findings)
    path = tmp_path / "file.dcm"
    write_dicom(kind, path, found, candidate_records(found, dicom_slices=slices), slices)
    assert b"SECRET" not in path.read_bytes()
    assert pydicom.dcmread(path).PatientID == "P77"


def test_images_without_a_preamble_get_a_report(findings, slices, tmp_path):
    for item in slices:
        item.path.write_bytes(item.path.read_bytes()[132:])
    found = one_candidate(findings)
    path = tmp_path / "file.dcm"
    write_dicom("sr", path, found, candidate_records(found, dicom_slices=slices), slices)
    assert path.is_file()
