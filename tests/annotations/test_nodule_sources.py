"""Annotations of other datasets: columns, coordinate systems, sizes, names of scans."""

import json
import math

import numpy as np
import pytest

from lungdet_mmdet.annotations.lidc import xml_files
from lungdet_mmdet.annotations.mark_places import (
    ScanNames,
    place_marks,
    question_of_lungs,
    question_of_scans,
)
from lungdet_mmdet.annotations.nodule_sources import AnnotationSource, parse_columns, read_marks
from lungdet_mmdet.annotations.tables import Finding, Nodule
from lungdet_mmdet.ct.geometry import FileGrid
from lungdet_mmdet.errors import LungDetError

# Rows run to the right: voxel (1, 2, 3) lies at (100 - 2, 50 + 4, 10 + 15).
GRID = FileGrid(
    (20, 40, 40), np.array([2.0, 2.0, 5.0]), np.array([100.0, 50.0, 10.0]), np.diag([-1.0, 1, 1])
)
NAMES = ScanNames({"a": ["sub/a.nii.gz", "sub"], "LNDb-0007": [], "b": ["p1"], "c": ["p1"]})


def placed(path, text=None, **options):
    if text is not None:
        path.write_text(text)
    source = AnnotationSource(path, **options)
    return place_marks(read_marks(source), NAMES, lambda uid: GRID, source=str(path))


@pytest.fixture
def table(tmp_path):
    return tmp_path / "table.csv"


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("seriesuid,coordX,coordY,coordZ,diameter_mm\na,98,54,25,6\n", {}),
        ("SeriesInstanceUID;x;y;z;volume\nA.nii.gz;-98;-54;25;113.097336\n", {"coords": "ras"}),
        ("file,x,y,z,w,h,d\nsub/a.nii.gz,1,2,3,3,3,1.2\n", {"coords": "voxel"}),
        ("scan,xmin,ymin,zmin,xmax,ymax,zmax\nsub,95,51,22,101,57,28\n", {}),
        ("scan,xmin,ymin,zmin,xmax,ymax,zmax\na,0,1,3,2,3,3\n", {"coords": "voxel"}),
        ("who,px,py,pz\na,98,54,25\n", {"columns": parse_columns(["scan=who", "x=px", "y=py",
         "z=pz"]), "diameter_mm": 6.0}),
    ],
)  # fmt: skip
def test_one_nodule_in_many_tables(table, text, options):
    (nodule,) = placed(table, text, **options).nodules
    assert nodule.nodule_id == "a/0"
    assert nodule.centre_xyz_mm == pytest.approx((98, 54, 25))
    # Three voxels of 2, 2 and 5 mm, one of them in z: the last box is 6 x 6 x 5 mm.
    expected = math.cbrt(180) if "a,0,1,3" in text else 6.0
    assert nodule.diameter_mm == pytest.approx(expected, abs=1e-6)


def test_rows_that_are_not_kept_are_findings_and_rows_without_a_place_healthy_scans(table):
    text = "LNDbID,x,y,z,Volume,AgrLevel,kind\n7,1,2,3,100,2,n\n7,4,5,6,0,1,n\na,,,,,,\n"
    found = placed(table, text, keep=("AgrLevel>=2", "kind=n"))
    assert [n.seriesuid for n in found.nodules] == ["LNDb-0007"]
    assert found.findings == (Finding("LNDb-0007", (4.0, 5.0, 6.0), -1.0),)
    assert found.listed == {"a", "LNDb-0007"}
    assert "scans without a nodule: 1" in found.warnings[0]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("scan,x,y,z\na,1,2,3\n", {}, "no column tells the size"),
        ("scan,x,y,diameter\na,1,2,3\n", {}, "--columns z=NAME"),
        ("what,x,y,z,diameter\na,1,2,3,4\n", {}, "--columns scan=NAME"),
        ("scan,x,y,z,diameter\n,1,2,3,4\n", {}, "line 2: the scan is blank"),
        ("scan,x,y,z,diameter\na,1,,3,4\n", {}, "line 2: the centre is"),
        ("scan,x,y,z,diameter\na,1,2,3,nan\n", {}, r"line 2: diameter_mm is 0; it must lie"),
        ("scan,x,y,z,diameter\na,1,2,3,4\na,1,2,3,5\n", {}, "two diameters"),
        ("scan,x,y,z,diameter\nzz,1,2,3,4\n", {}, "none of them is here"),
        ("scan,x,y,z,diameter\np1,1,2,3,4\n", {}, "can be 2 scans"),
        ("scan,x,y,z,diameter\na,1,2,3,4\n", {"keep": ("x",)}, "COLUMN>=VALUE"),
        ("scan,x,y,z,diameter\na,1,2,3,4\n", {"keep": ("score>1",)}, "no column 'score'"),
        ("scan,x,y,z,diameter\na,1,2,3,4\n", {"columns": {"q": "x"}}, "no such role"),
        ("scan,x,y,z,diameter\na,1,2,3,4\n", {"coords": "LAS"}, "known are lps, ras, voxel"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place_and_remedy(table, text, options, message):
    with pytest.raises(LungDetError, match=message):
        placed(table, text, **options)


def test_a_scan_without_a_readable_grid_does_not_stop_the_others(table):
    asked = []

    def grid_of(uid):
        asked.append(uid)
        if uid == "a":
            raise LungDetError("a.nii.gz: cannot be read")
        return GRID

    table.write_text("scan,x,y,z,diameter\na,1,2,3,4\nLNDb-0007,1,2,3,4\na,5,6,7,4\n")
    marks = read_marks(AnnotationSource(table, coords="voxel"))
    found = place_marks(marks, NAMES, grid_of, source=str(table))
    assert [n.seriesuid for n in found.nodules] == ["LNDb-0007"]
    assert found.listed == {"a", "LNDb-0007"}
    assert found.unknown == {"a": "its nodules cannot be placed: a.nii.gz: cannot be read"}
    assert asked == ["a", "LNDb-0007"]


def test_scans_that_are_not_here_are_counted(table):
    found = placed(table, "scan,x,y,z,diameter\na,1,2,3,4\nzz,1,2,3,4\n")
    assert found.missing == ("zz",)


def markup(kind, points, *, coords="LPS", **more):
    return {
        "type": kind,
        "coordinateSystem": coords,
        "coordinateUnits": "mm",
        "controlPoints": [{"position": p} for p in points],
        **more,
    }


def test_slicers_lines_boxes_and_points(tmp_path):
    markups = [
        markup("Line", [[-98, -54, 22], [-98, -54, 28]], coords="RAS"),
        markup("ROI", [[1, 2, 3]], center=[1.0, 2.0, 3.0], size=[4.0, 4.0, 4.0]),
        markup("Fiducial", [[1.0, 2.0, 3.2], [7.0, 8.0, 9.0]]),
    ]
    # The folder names the scan.
    path = tmp_path / "sub" / "nodules.mrk.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"markups": markups}))
    found = placed(tmp_path, diameter_mm=5.0)
    assert [(n.centre_xyz_mm, n.diameter_mm) for n in found.nodules] == [
        ((98.0, 54.0, 25.0), 6.0),
        ((1.0, 2.0, 3.0), pytest.approx(4.0)),
        ((7.0, 8.0, 9.0), 5.0),
    ]


def test_what_a_detector_found_is_not_the_truth(tmp_path):
    for path in ("a/nodules.mrk.json", "results/a/candidates.mrk.json"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(json.dumps({"markups": [markup("Fiducial", [[1, 2, 3]])]}))
    (tmp_path / "results" / "a" / "candidates.json").write_text("{}")
    found = placed(tmp_path, diameter_mm=5.0)
    assert len(found.nodules) == 1
    assert "1 folders with a result" in found.warnings[0]
    with pytest.raises(LungDetError, match="no annotations here .* with a result .* passed over"):
        placed(tmp_path / "results", diameter_mm=5.0)


@pytest.mark.parametrize(("system", "sign"), [("LPS", 1), ("RAS", -1), ("0", -1), ("1", 1)])
def test_slicers_lists_of_points(tmp_path, system, sign):
    lines = [
        f"# CoordinateSystem = {system}",
        "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID",
        f"1,{sign * 98},{sign * 54},25,0,0,0,1,1,1,0,F-1,,",
    ]
    path = tmp_path / "a.fcsv"
    (nodule,) = placed(path, "\n".join(lines), diameter_mm=6.0).nodules
    assert nodule == Nodule("a/0", "a", (98.0, 54.0, 25.0), 6.0)


@pytest.mark.parametrize("text", ["", "{}", '{"markups": [{"type": "ROI"}]}', '{"markups": 3}'])
def test_damaged_markups_are_told(tmp_path, text):
    with pytest.raises(LungDetError, match=r"a\.mrk\.json: cannot be read as 3D Slicer's"):
        placed(tmp_path / "a.mrk.json", text)


def test_most_nodules_outside_their_scans_are_a_question_and_few_are_none():
    inside = Nodule("a/0", "a", (98.0, 54.0, 25.0), 6.0)
    turned = Nodule("a/1", "a", (-98.0, -54.0, 25.0), 6.0)
    assert question_of_scans([((inside,), GRID), ((turned,), GRID)]) is None
    asked = question_of_scans([((turned, turned, inside), GRID)])
    assert "2 of 3 nodules lie outside their scans" in asked
    assert "with x and y turned round 2 lie inside" in asked
    assert question_of_scans([]) is None


def test_most_nodules_in_nothing_but_air_are_a_question():
    air = {"coverage": 1.0, "hu": -860.0, "hu_turned": 20.0}
    solid = {"coverage": 1.0, "hu": -300.0, "hu_turned": None}
    old = {"coverage": 0.9}  # of a record without densities
    assert question_of_lungs([solid, air]) is None
    assert question_of_lungs([old]) is None
    asked = question_of_lungs([air, air, solid, {"coverage": 0.0, "hu": 30.0}])
    assert "3 of 4 nodules lie outside the lungs" in asked
    assert "turned round 2 lie on tissue" in asked


def test_forks_of_annotations_are_no_annotations(tmp_path):
    markups = {"markups": [markup("Fiducial", [[98.0, 54.0, 25.0]])]}
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.mrk.json").write_text(json.dumps(markups))
    for name in ("._a.mrk.json", "._a.xml"):
        (tmp_path / "sub" / name).write_bytes(b"\x00\x05\x16\x07")
    assert len(placed(tmp_path, diameter_mm=6.0).nodules) == 1
    assert xml_files(tmp_path) == []
