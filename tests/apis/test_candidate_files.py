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
    label_map,
    slicer_markups,
)
from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.scoring.candidates import Candidate
from lungdet_mmdet.scoring.run_files import read_submission


@pytest.fixture
def two(findings):
    """Two candidates on a grid that is stored backwards along x."""
    grid = ScanGeometry(
        (50, 200, 100), (2.0, 0.5, 0.5), (99.0, -10.0, -300.0),
        (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    )  # fmt: skip
    candidates = (
        Candidate(
            "s",
            (59.0, 10.0, -260.0),
            8.25,
            0.75,
            (-264.0, -256.0),
            (4, 5),
            3,
            z_sd_mm=0.8,
            z_from_depth=True,
            sides_mm=(6.0, 10.0),
        ),
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
        "s", "59.0", "10.0", "-260.0", "0.75", "8.25", "-264.0", "-256.0", "0.8", "depth", "4 5",
        "1", "1", "ok", "",
    ]  # fmt: skip
    assert rows[2][9] == "mid-plane"
    assert rows[2][-3:] == ["0", "ok", ""]
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
    markup, roi = content["markups"]
    assert (markup["type"], markup["coordinateSystem"]) == ("Fiducial", "LPS")
    (point,) = markup["controlPoints"]
    assert point["position"] == [59.0, 10.0, -260.0]
    assert point["label"] == "1: 0.75"
    assert (roi["type"], roi["coordinateSystem"], roi["roiType"]) == ("ROI", "LPS", "Box")
    assert roi["center"] == [59.0, 10.0, -260.0]
    assert roi["size"] == [6.0, 10.0, 8.0]
    assert roi["orientation"] == list(two.slab_geometries[0].direction)


def test_the_label_map_has_the_boxes_on_the_inputs_own_voxels(two):
    labels = label_map(two, candidate_records(two))
    assert (labels.shape, labels.dtype) == ((50, 200, 100), np.uint8)
    # x 56 to 62 against the axis: columns 74 to 86; y 5 to 15: rows 30 to 50; z -264 to -256.
    found = np.argwhere(labels == 1)
    assert found.min(axis=0).tolist() == [18, 30, 74]
    assert found.max(axis=0).tolist() == [22, 50, 86]
    assert len(found) == 5 * 21 * 13
    assert np.unique(labels).tolist() == [0, 1]  # the other is below the threshold


def test_where_boxes_meet_the_better_one_is_seen(two):
    both = dataclasses.replace(two, threshold=0.0, candidates=(two.candidates[0],) * 2)
    assert np.unique(label_map(both, candidate_records(both))).tolist() == [0, 1]


def test_a_box_thinner_than_a_voxel_or_partly_outside_is_still_marked(two):
    thin = dataclasses.replace(
        two.candidates[0], centre_xyz_mm=(99.0, -10.2, -300.3), z_range_mm=(-300.4, -300.2),
        sides_mm=(0.1, 30.0),
    )  # fmt: skip
    labels = label_map(one := dataclasses.replace(two, candidates=(thin,)), candidate_records(one))
    # Column 0, slice 0 (-0.15); rows from -0.4 - 30 on are cut off at 0: 0 to 29.
    assert np.argwhere(labels).tolist() == [[0, row, 0] for row in range(30)]


def test_without_a_depth_the_box_is_as_deep_as_its_slabs(two):
    _, record = candidate_records(two)
    assert record["z_from"] == "mid-plane"
    assert record["box"]["centre_xyz_mm"] == [98.0, -10.0, -297.5]
    assert record["box"]["size_mm"] == [4.0, 4.0, 7.0]


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


def test_a_small_nodule_within_a_large_one_is_kept(two):
    mass = dataclasses.replace(two.candidates[0], sides_mm=(20.0, 20.0), score=0.9)
    satellite = dataclasses.replace(two.candidates[0], sides_mm=(3.0, 3.0), score=0.8)
    both = dataclasses.replace(two, candidates=(mass, satellite))
    labels = label_map(both, candidate_records(both))
    assert np.unique(labels).tolist() == [0, 1, 2]
    assert 0 < np.count_nonzero(labels == 2) < np.count_nonzero(labels == 1)
