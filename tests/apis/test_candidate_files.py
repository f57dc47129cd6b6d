"""Tables, JSON and markups."""

import csv
import dataclasses
import io
import json

import numpy as np
import pytest

from lungdet_mmdet.apis.candidate_files import (
    candidate_records,
    candidates_csv,
    candidates_json,
    slicer_markups,
)
from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.scoring.candidates import Candidate
from lungdet_mmdet.scoring.submission import read_submission


@pytest.fixture
def two(findings):
    """Two candidates on a grid that is stored backwards along x."""
    grid = ScanGeometry(
        (50, 200, 100), (2.0, 0.5, 0.5), (99.0, -10.0, -300.0),
        (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    )  # fmt: skip
    candidates = (
        Candidate("s", (59.0, 10.0, -260.0), 8.25, 0.75, (-264.0, -249.0), (4, 5), 3),
        Candidate("s", (98.0, -10.0, -300.0), 4.0, 0.25, (-301.0, -294.0), (0,), 1),
    )
    scan = dataclasses.replace(findings.scan, seriesuid="s", file_geometry=grid)
    return dataclasses.replace(findings, scan=scan, candidates=candidates, threshold=0.5)


def test_records_know_the_inputs_own_voxels(two):
    first, second = candidate_records(two)
    # x: (99 - 59) / 0.5 columns against the axis; y: 20 / 0.5 rows; z: 40 / 2 slices.
    assert first["voxel_xyz"] == [80.0, 40.0, 20.0]
    assert second["voxel_xyz"] == [2.0, 0.0, 0.0]
    assert [first["rank"], second["rank"]] == [1, 2]
    assert [first["above_threshold"], second["above_threshold"]] == [True, False]


def test_the_table_is_a_luna16_submission(two, tmp_path):
    text = candidates_csv("s", candidate_records(two), verdict="ok")
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[0][:5] == ["seriesuid", "coordX", "coordY", "coordZ", "probability"]
    assert rows[1] == [
        "s", "59.0", "10.0", "-260.0", "0.75", "8.25", "-264.0", "-249.0", "4 5", "1", "1", "ok"
    ]  # fmt: skip
    assert rows[2][-2:] == ["0", "ok"]
    path = tmp_path / "candidates.csv"
    path.write_text(text)
    marks = read_submission(path, series=["s"])
    assert marks.scores.tolist() == [0.75, 0.25]


def test_json_states_grid_and_model(two):
    content = candidates_json(two, candidate_records(two), fingerprint={"scan": "1"})
    content = json.loads(json.dumps(content, allow_nan=False))
    assert content["geometry"]["size_xyz"] == [100, 200, 50]
    assert content["geometry"]["direction"][0] == -1.0
    assert content["fingerprint"] == {"scan": "1"}
    assert content["model"]["name"] == "model.pth"
    assert len(content["candidates"]) == 2
    assert "not for clinical use" in content["notice"]


def test_markups_hold_what_is_above_the_threshold(two):
    content = slicer_markups(two, candidate_records(two))
    assert "/markups-schema-v1.0" in content["@schema"]
    (markup,) = content["markups"]
    assert (markup["type"], markup["coordinateSystem"]) == ("Fiducial", "LPS")
    (point,) = markup["controlPoints"]
    assert point["position"] == [59.0, 10.0, -260.0]
    assert point["label"] == "1: 0.75"


def test_no_candidates_give_a_header_only(two):
    nothing = dataclasses.replace(two, candidates=())
    assert candidates_csv("s", candidate_records(nothing)).count("\n") == 1
    assert slicer_markups(nothing, [])["markups"][0]["controlPoints"] == []


def test_names_cannot_break_the_table(two):
    text = candidates_csv('a,"b\n', candidate_records(two))
    assert list(csv.reader(io.StringIO(text)))[1][0] == 'a,"b\n'


def test_the_nearest_dicom_image_is_named(two, tmp_path):
    pytest.importorskip("pydicom")
    from lungdet_mmdet.ct.dicom.reading import slice_stack
    from lungdet_mmdet.ct.dicom.series import find_dicom_series
    from tests.support.dicom_export import write_dicom_series

    geometry = ScanGeometry((30, 4, 5), (2.0, 0.5, 0.5), (50.0, 0.0, -300.0))
    volume = np.zeros(geometry.size_zyx, dtype=np.int16)
    write_dicom_series(tmp_path, volume, geometry, seriesuid="2.999.1")
    slices, _ = slice_stack(find_dicom_series(tmp_path)[0])
    first, _ = candidate_records(two, dicom_slices=slices)
    assert first["dicom_image"] == {
        "sop_instance_uid": "2.999.1.21",
        "instance_number": 21,
        "file": "0020.dcm",
        "column_row": [18.0, 20.0],
    }
