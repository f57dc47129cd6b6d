import pytest

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.scoring.candidates import Candidate
from lungdet_mmdet.scoring.run_files import marks_of_candidates, read_submission, write_submission

HEADER = "seriesuid,coordX,coordY,coordZ,probability\n"


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "submission.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_reads_marks_in_any_column_order(written):
    path = written("probability,coordZ,coordY,coordX,seriesuid\n0.5,3,2,1,a\n")

    marks = read_submission(path, series=["a"])

    assert marks.seriesuids == ("a",)
    assert marks.centres_xyz_mm.tolist() == [[1.0, 2.0, 3.0]]
    assert marks.scores.tolist() == [0.5]
    assert marks.warnings == ()


def test_byte_order_mark_and_windows_line_ends_change_nothing(written):
    plain = read_submission(written(HEADER + "a,1,2,3,0.5\n"), series=["a"])
    windows = read_submission(
        written(b"\xef\xbb\xbf" + (HEADER + "a,1,2,3,0.5\n").replace("\n", "\r\n").encode()),
        series=["a"],
    )

    assert windows.centres_xyz_mm.tolist() == plain.centres_xyz_mm.tolist()
    assert windows.seriesuids == plain.seriesuids
    assert windows.warnings == ()


def test_unknown_series_are_left_out_and_counted(written):
    marks = read_submission(written(HEADER + "a,1,2,3,0.5\nz,1,2,3,0.9\n"), series=["a"])

    assert marks.seriesuids == ("a",)
    assert "not evaluated, left out: 1" in marks.warnings[0]


def test_only_unknown_series_is_an_error(written):
    with pytest.raises(LungDetError, match="none of its 1 lines"):
        read_submission(written(HEADER + "z,1,2,3,0.9\n"), series=["a"])


def test_repeated_lines_are_kept_and_counted(written):
    marks = read_submission(written(HEADER + "a,1,2,3,0.5\n" * 3), series=["a"])

    assert len(marks.scores) == 3
    assert marks.warnings[0].endswith(": 2")


def test_scores_outside_the_unit_interval_are_kept_and_counted(written):
    marks = read_submission(written(HEADER + "a,1,2,3,1.5\na,1,2,9,-2\n"), series=["a"])

    assert marks.scores.tolist() == [1.5, -2.0]
    assert marks.warnings[0].endswith("(only their order matters): 2")


def test_series_without_a_line_are_counted(written):
    marks = read_submission(written(HEADER + "a,1,2,3,0.5\n"), series=["a", "b", "c"])

    assert marks.warnings[0].endswith("series without a line, kept in the denominator: 2")


def test_a_submission_without_marks_is_a_submission(written):
    assert len(read_submission(written(HEADER), series=["a"]).scores) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("seriesuid,coordX,coordY,probability\na,1,2,0.5\n", "coordZ"),
        (HEADER + "a,1,2,3,nan\n", "line 2: probability is 'nan'"),
        (HEADER + "a,1,2,3,0.5\na,inf,2,3,0.5\n", "line 3: coordX is 'inf'"),
        (HEADER + "a,1,2,3,high\n", "probability is 'high'"),
        (HEADER + "a,1,2,3\n", "line 2: 4 fields"),
        (HEADER + "a,1,2,3,\n", "line 2: probability is ''"),
    ],
)
def test_what_could_change_a_number_is_an_error(written, text, message):
    with pytest.raises(LungDetError, match=message):
        read_submission(written(text), series=["a"])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(LungDetError, match=r"none\.csv"):
        read_submission(tmp_path / "none.csv", series=["a"])


def test_what_is_written_reads_back_exactly(tmp_path):
    candidate = Candidate("a", (1 / 3, -2.5, 1e-7), 8.0, 0.1 + 0.2, (0.0, 7.5), (0,))
    path = tmp_path / "new" / "submission.csv"

    write_submission(path, marks_of_candidates([candidate]))

    marks = read_submission(path, series=["a"])
    assert tuple(marks.centres_xyz_mm[0].tolist()) == candidate.centre_xyz_mm
    assert marks.scores.tolist() == [candidate.score]
    assert path.read_text().startswith(HEADER)


def test_no_candidates_write_a_header_alone(tmp_path):
    write_submission(tmp_path / "s.csv", marks_of_candidates([]))

    assert (tmp_path / "s.csv").read_text() == HEADER
