from pathlib import Path

import pytest

from lungdet_mmdet.annotations.tables import (
    Finding,
    Nodule,
    read_findings,
    read_nodules,
    read_patients,
    read_series,
    read_subsets,
)
from lungdet_mmdet.errors import LungDetError

HEADER = "seriesuid,coordX,coordY,coordZ,diameter_mm\n"


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_nodules_are_numbered_within_their_series(tmp_path):
    path = write(tmp_path, HEADER + "1.2,1,2,3,4.5\n1.3,0,0,0,9\n1.2,-5,6,7,8\n")
    table = read_nodules(path)
    assert table.rows == (
        Nodule("1.2/0", "1.2", (1.0, 2.0, 3.0), 4.5),
        Nodule("1.3/0", "1.3", (0.0, 0.0, 0.0), 9.0),
        Nodule("1.2/1", "1.2", (-5.0, 6.0, 7.0), 8.0),
    )
    assert table.warnings == ()


def test_byte_order_mark_crlf_blank_lines_and_upper_case_header_are_read(tmp_path):
    text = "\ufeff" + HEADER.upper().replace("\n", "\r\n") + "1.2, 1 ,2,3,4\r\n\r\n,,,,\r\n"
    assert read_nodules(write(tmp_path, text)).rows[0].centre_xyz_mm == (1.0, 2.0, 3.0)


def test_semicolons_with_decimal_commas_are_repaired_and_counted(tmp_path):
    text = HEADER.replace(",", ";") + "1.2;-128,5;2;3;4,25\n"
    table = read_nodules(write(tmp_path, text))
    assert table.rows[0].centre_xyz_mm == (-128.5, 2.0, 3.0)
    assert table.rows[0].diameter_mm == 4.25
    assert "table.csv: decimal commas read as points: 2" in table.warnings
    assert any("instead of commas" in warning for warning in table.warnings)


def test_a_comma_in_a_semicolon_header_does_not_divide_it(tmp_path):
    text = '"remark, free";' + HEADER.replace(",", ";") + "x;1.2;1;2;3;4\n"
    assert read_nodules(write(tmp_path, text)).rows[0].diameter_mm == 4.0


def test_columns_are_found_by_name(tmp_path):
    path = write(tmp_path, "diameter_mm,seriesuid,note,coordZ,coordY,coordX\n5,1.2,hi,3,2,1\n")
    assert read_nodules(path).rows == (Nodule("1.2/0", "1.2", (1.0, 2.0, 3.0), 5.0),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "file is empty"),
        ("seriesuid,coordX,coordY,coordZ\n1.2,1,2,3\n", "no column 'diameter_mm'"),
        (HEADER + "1.2,1,2,3,nan\n", "line 2: diameter_mm is 'nan'"),
        (HEADER + "1.2,1,inf,3,4\n", "line 2: coordY is 'inf'"),
        (HEADER + "1.2,1,2,,4\n", "line 2: coordZ is ''"),
        (HEADER + "1.2,1,2,3,4\n1.2,1,2,3,0\n", "line 3: diameter_mm is 0"),
        (HEADER + "1.2,1,2,3,-1\n", "diameter_mm is -1"),
        (HEADER + "1.2,1,2,3,2000\n", "diameter_mm is 2000"),
        (HEADER + "1.2,1,5,2,3,4\n", "line 2: 6 fields where the header has 5"),
        (HEADER + "../x,1,2,3,4\n", "'../x' is no series UID"),
        (HEADER + "1.2,1,2,3,4\n1.2,1,2,3,5\n", "two diameters"),
        (HEADER.encode() + b"1.2,1,2,3,\xff\n", "not UTF-8"),
    ],
)
def test_what_could_be_a_wrong_number_is_an_error(tmp_path, text, words):
    path = write(tmp_path, text)
    with pytest.raises(LungDetError) as error:
        read_nodules(path)
    assert words in str(error.value)
    assert str(path) in str(error.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(LungDetError, match=r"nothing\.csv: no such file"):
        read_nodules(tmp_path / "nothing.csv")
    with pytest.raises(LungDetError, match="is a folder"):
        read_nodules(tmp_path)


def test_repeated_and_unknown_lines_are_left_out_and_counted(tmp_path):
    path = write(tmp_path, HEADER + "1.2,1,2,3,4\n1.2,1,2,3,4\n9.9,1,2,3,4\n")
    table = read_nodules(path, known_series=["1.2"])
    assert [nodule.nodule_id for nodule in table.rows] == ["1.2/0"]
    assert table.warnings == (
        "table.csv: lines of unknown series left out: 1",
        "table.csv: repeated lines left out: 1",
    )


def test_header_alone_is_a_table_without_nodules(tmp_path):
    assert read_nodules(write(tmp_path, HEADER)).rows == ()


def test_a_finding_of_unknown_size_extends_ten_millimetres(tmp_path):
    path = write(tmp_path, HEADER + "1.2,1,2,3,-1\n1.2,1,2,3,6\n")
    unknown, known = read_findings(path).rows
    assert unknown == Finding("1.2", (1.0, 2.0, 3.0), -1.0)
    assert (unknown.extent_mm, known.extent_mm) == (10.0, 6.0)


@pytest.mark.parametrize("diameter", ["0", "-2"])
def test_a_finding_may_have_no_other_diameter_below_zero(tmp_path, diameter):
    with pytest.raises(LungDetError, match="or be -1 where unknown"):
        read_findings(write(tmp_path, HEADER + f"1.2,1,2,3,{diameter}\n"))


def test_series_without_and_with_a_header(tmp_path):
    assert read_series(write(tmp_path, "1.2\n1.3\n1.2\n")).rows == ("1.2", "1.3")
    table = read_series(write(tmp_path, "seriesuid\n1.2\n"))
    assert table.rows == ("1.2",)
    assert table.warnings == ("table.csv: header line skipped: 1",)


def test_an_empty_series_table_is_an_error(tmp_path):
    with pytest.raises(LungDetError, match="no series UID"):
        read_series(write(tmp_path, "\n\n"))


def test_subsets(tmp_path):
    assert read_subsets(write(tmp_path, "seriesuid,subset\r\n1.2,0\r\n1.3,9\r\n")) == {
        "1.2": 0,
        "1.3": 9,
    }


@pytest.mark.parametrize("subset", ["10", "1.5", "-1"])
def test_a_subset_outside_luna16_is_an_error(tmp_path, subset):
    with pytest.raises(LungDetError, match="subsets 0-9"):
        read_subsets(write(tmp_path, f"seriesuid,subset\n1.2,{subset}\n"))


@pytest.mark.parametrize(
    "header",
    [
        "seriesuid,patient_id",
        "id,series_instance_uid,patient_id",
        '"Series UID","Collection","Subject ID"',
    ],
)
def test_patients_under_the_names_of_pylidc_and_the_archive(tmp_path, header):
    row = {2: "1.2,LIDC-0001", 3: "7,1.2,LIDC-0001"}[len(header.split(","))]
    if "Collection" in header:
        row = "1.2,LIDC,LIDC-0001"
    assert read_patients(write(tmp_path, f"{header}\n{row}\n")) == {"1.2": "LIDC-0001"}


def test_a_series_of_two_patients_is_an_error(tmp_path):
    with pytest.raises(LungDetError, match=r"line 3: series 1\.2 has patient_id 'B', and 'A'"):
        read_patients(write(tmp_path, "seriesuid,patient_id\n1.2,A\n1.2,B\n"))


@pytest.mark.realdata
def test_luna16_tables_hold_what_luna16_says(luna16_sample):
    series = read_series(luna16_sample / "seriesuids.csv").rows
    nodules = read_nodules(luna16_sample / "annotations.csv", known_series=series)
    findings = read_findings(luna16_sample / "annotations_excluded.csv", known_series=series)
    subsets = read_subsets(luna16_sample / "subset_of_series.csv")
    assert (len(series), len(nodules.rows), nodules.warnings) == (888, 1186, ())
    assert len(findings.rows) == 35192 - 11105
    assert set(subsets) == set(series)
    assert set(subsets.values()) == set(range(10))
