"""The runs over the corpus as a whole: the sound scan is done, and nothing else is left behind."""

import os

import pytest

from lungdet_mmdet.ct.reading import read_scan
from tests.faults.chest import GOOD_NAME, chest
from tests.faults.corpus import DICOM, METAIMAGE, OTHER_FORMATS, VOLUMES

pytestmark = pytest.mark.reliability("fault corpus: whole runs")

RUNS = ("preparation", "inference", "conversion")


def refused(faults):
    return sum(bool(fault.says) for fault in faults)


@pytest.fixture
def run(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("run", RUNS, indirect=True)
def test_a_run_with_failures_ends_with_exit_code_1_and_no_traceback(run):
    assert run.exit_code == 1
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("run", RUNS, indirect=True)
def test_nothing_half_made_is_left(run):
    assert run.half_made() == []
    assert run.left_in_tmp == ()


def test_the_sound_scan_is_prepared_and_every_other_accounted_for(preparation):
    names = {record["seriesuid"] for record in preparation.results.values()}
    assert GOOD_NAME in names
    assert {path.name for path in (preparation.out_dir / "slabs").iterdir()} == names
    assert len(preparation.reasons) == refused((*METAIMAGE, *VOLUMES))


def test_the_sound_scan_is_looked_at_and_every_other_accounted_for(inference):
    assert any(source.endswith(f"{GOOD_NAME}.mhd") for source in inference.results)
    folders = [path for path in inference.out_dir.iterdir() if path.is_dir()]
    assert len(folders) == len(inference.results)
    every = (*METAIMAGE, *VOLUMES, *OTHER_FORMATS, *DICOM)
    assert len(inference.reasons) == refused(every)
    assert len(inference.results) == 1 + len(every) - refused(every)


@pytest.mark.parametrize("name", ["implicit_vr", "big_endian_dicom", "deflated", "rle", "jpeg_ls"])
def test_every_transfer_syntax_gives_the_same_values(dicom_of_faults, name):
    assert (read_scan(dicom_of_faults[name]).volume_hu == chest()[0][::2]).all()


@pytest.mark.parametrize(
    "name", ["big_endian", "size_doubled_but_equal", "header_name_with_umlaut"]
)
def test_a_header_that_is_merely_odd_gives_the_same_values(luna16_of_faults, name):
    assert (read_scan(luna16_of_faults[name]).volume_hu == chest()[0]).all()


def test_no_file_of_the_corpus_was_changed_or_added(luna16_of_faults, preparation, inference):
    root = luna16_of_faults[GOOD_NAME].parents[1]
    newest = max(os.lstat(path).st_mtime for path in root.rglob("*"))
    first_result = min(path.stat().st_mtime for path in preparation.out_dir.rglob("scan.json"))
    assert newest < first_result
