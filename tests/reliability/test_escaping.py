"""Strings of strangers' files stay text in every page: no element, no attribute of their own."""

import shutil
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest

from lungdet_mmdet.apis.infer import DetectorOptions, detect_scans
from lungdet_mmdet.apis.model_file import read_model_file, write_model_file
from lungdet_mmdet.ct.reading import read_scan
from lungdet_mmdet.luna16.folder import read_luna16_folder
from lungdet_mmdet.preparation.cohort_preparation import prepare_cohort
from lungdet_mmdet.runs.workplace import process_pool
from tests.support.dicom_export import write_dicom_series
from tests.support.rehearsal import REHEARSAL_STEPS

pydicom = pytest.importorskip("pydicom")
pytestmark = pytest.mark.reliability("markup in headers and names stays text in HTML")

# Without a slash it is a file name too.
IMAGE = "<img src=x onerror=alert(1)>"
SCRIPT = "</script><script>alert('%DATA%')</script><!--"
TERMINAL = "\x1b[2J clears the screen"


class Elements(HTMLParser):
    """Counts elements, and collects attributes that could run or load something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: Counter = Counter()
        self.active: list = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        for name, value in attrs:
            loads = name in ("src", "href") and not (value or "").startswith("data:")
            if name.startswith("on") or loads:
                self.active.append((tag, name, value))

    def handle_comment(self, data):
        self.tags["comment"] += 1


@pytest.fixture(scope="module")
def scan(inputs):
    return read_scan(next(inputs.luna16.rglob("*.mhd")))


@pytest.fixture(scope="module")
def preparation_page(inputs, tmp_path_factory):
    """Of a folder where a file's name and a header hold markup."""
    root = tmp_path_factory.mktemp("hostile") / "luna16"
    first = sorted(inputs.luna16.rglob("*.mhd"))[0]
    (root / "subset0").mkdir(parents=True)
    shutil.copy(first.with_suffix(".zraw"), root / "subset0")
    (root / "subset0" / f"{IMAGE}.mhd").write_text(first.read_text())
    broken = first.read_text().replace("MET_SHORT", SCRIPT)
    (root / "subset0" / "broken.mhd").write_text(broken)
    (root / "annotations.csv").write_text(
        "seriesuid,coordX,coordY,coordZ,diameter_mm\nbroken,0,0,80,8\n"
    )
    out = root.parent / "out"
    folder = read_luna16_folder(root)
    prepare_cohort(folder, out, REHEARSAL_STEPS, process_pool(0), workers=0, tell=str)
    return (out / "prep_report.html").read_text(encoding="utf-8")


def test_the_preparation_report(preparation_page):
    found = Elements(preparation_page)
    assert found.active == []
    assert found.tags["script"] == 1
    assert found.tags["img"] == preparation_page.count("<img src='data:") + preparation_page.count(
        '<img src="data:'
    )
    assert found.tags["comment"] == 0
    assert "&lt;img src=x onerror=alert(1)&gt;" in preparation_page
    assert "&lt;/script&gt;&lt;script&gt;alert" in preparation_page


@pytest.fixture(scope="module")
def looked_at(inputs, scan, tmp_path_factory):
    """Of a DICOM series all of whose texts hold markup, looked at by a model that does, too."""
    root = tmp_path_factory.mktemp("hostile")
    folder = root / IMAGE
    volume = np.ascontiguousarray(scan.volume_hu)
    paths = write_dicom_series(
        folder, volume, scan.geometry, seriesuid="2.999.7", description=SCRIPT
    )
    for path in paths:
        dataset = pydicom.dcmread(path)
        for name in ("StudyDescription", "ProtocolName", "InstitutionName", "Manufacturer"):
            setattr(dataset, name, SCRIPT)
        dataset.PatientName = dataset.PatientID = IMAGE
        dataset.save_as(path)
    model = read_model_file(inputs.model)
    model.data["name"] = SCRIPT
    write_model_file(root / f"{IMAGE}.pth", model)
    # A second series of the study, so that both are listed for the user.
    for index in range(3):
        dataset = pydicom.dcmread(paths[index])
        dataset.SeriesInstanceUID = "2.999.8"
        dataset.SeriesDescription = TERMINAL
        dataset.SOPInstanceUID += ".8"
        dataset.save_as(folder / f"other{index}.dcm")
    said = []
    checkpoint = root / f"{IMAGE}.pth"
    run = detect_scans(
        [folder], root / "out", DetectorOptions((checkpoint,), device="cpu"), say=said.append
    )
    assert run.failures == []
    (root / "said.txt").write_text("\n".join(said))
    return root


def test_what_is_said_of_the_series(looked_at):
    said = (looked_at / "said.txt").read_text()
    assert "2.999.8" in said
    assert "\x1b" not in said
    assert "\\x1b[2J" in said


def test_the_page_over_all_scans(looked_at):
    page = (looked_at / "out" / "index.html").read_text(encoding="utf-8")
    found = Elements(page)
    # Links to the scan's own files.
    assert {item[:2] for item in found.active} == {("a", "href")}
    assert all(item[2].startswith("2.999.7/") for item in found.active)
    assert found.tags["script"] == 1
    assert found.tags["img"] == page.count('src="data:image/jpeg;base64,') == 1
    assert "2.999.7" in page


def test_the_report_of_a_scan(looked_at):
    scan_page = (looked_at / "out" / "2.999.7" / "report.html").read_text(encoding="utf-8")
    found = Elements(scan_page)
    assert found.active == []
    # Its data and its code.
    assert found.tags["script"] == 3
    assert found.tags["img"] == 0
    assert found.tags["comment"] == 0
    assert "alert(1)" in scan_page
