"""Tables of what readers said: read back, checked against the results, joined."""

import csv
import json
import os

import pytest

from lungdet_mmdet.annotations.corrections import COLUMNS, join_corrections, read_corrections
from lungdet_mmdet.commands.scoring import corrections
from lungdet_mmdet.errors import LungDetError


def line(rank="1", verdict="accept", *, at=(1.0, 2.0, 3.0), name="scan", reader="A", comment=""):
    score = "0.9" if rank else ""
    return [name, rank, verdict, *at, 8.0, score, comment, reader, "ab"]


def table(path, *lines):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *lines])
    return path


def test_what_was_written_is_read(tmp_path):
    comment = '=1+1; a "vessel",\nnot a nodule'
    lines = [line(comment=comment), line("", "missed", at=(-5.5, 0.0, 7.25))]
    first, missed = read_corrections(table(tmp_path / "a.csv", *lines))
    assert (first.rank, first.verdict, first.score, first.comment) == (1, "accept", 0.9, comment)
    assert (missed.rank, missed.score, missed.centre_xyz_mm) == (None, None, (-5.5, 0.0, 7.25))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (line(verdict="maybe"), "the verdict is 'maybe'"),
        (line("", "accept"), "missed nodules have no rank"),
        (line("one"), "the rank is 'one'"),
        (line(at=(1.0, "x", 3.0)), "coordY is 'x'"),
        (line(at=(1e9, 0.0, 0.0)), "millimetres are needed"),
        (line(name="../up"), "no series UID"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path, wrong, said):
    with pytest.raises(LungDetError, match="line 3") as error:
        read_corrections(table(tmp_path / "a.csv", line(), wrong))
    assert said in str(error.value)


@pytest.fixture
def results(tmp_path):
    content = {
        "candidates": [{"rank": 1, "centre_xyz_mm": [1.0, 2.0, 3.0]}], "model": {"sha256": "ab"}
    }  # fmt: skip
    path = tmp_path / "results" / "scan" / "candidates.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content))
    return tmp_path / "results"


def test_a_page_of_another_result_is_told(tmp_path, results):
    good = table(tmp_path / "good.csv", line(), line("", "missed", at=(9.0, 9.0, 9.0)))
    assert len(read_corrections(good, results=results)) == 2
    for wrong in (line("2"), line(at=(1.0, 2.0, 4.0))):
        with pytest.raises(LungDetError, match="the page is of another result"):
            read_corrections(table(tmp_path / "wrong.csv", wrong), results=results)
    with pytest.raises(LungDetError, match="name the folder of the results"):
        read_corrections(table(tmp_path / "wrong.csv", line(name="other")), results=results)


def test_the_command_holds_tables_against_the_results(tmp_path, results, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    other = str(table(tmp_path / "other.csv", line(at=(1.0, 2.0, 4.0))))
    assert corrections([other, "--results", str(results)]) == 1
    assert "the page is of another result" in capsys.readouterr().err
    assert not (tmp_path / "corrections").exists()
    assert corrections([other]) == 0
    assert (tmp_path / "corrections" / "corrections.csv").is_file()


def joined_of(tmp_path, *lines):
    return join_corrections([read_corrections(table(tmp_path / "a.csv", *lines))])


def test_the_majority_decides_and_a_tie_is_told(tmp_path):
    joined = joined_of(
        tmp_path,
        line("1", "accept", reader="A"), line("1", "accept", reader="B"),
        line("1", "reject", reader="C"),
        line("2", "accept", reader="A"), line("2", "reject", reader="B"),
        line("3", "reject", reader="A"), line("3", "", reader="B", comment="?"),
    )  # fmt: skip
    assert [n.rank for n in joined.nodules] == [1]
    assert joined.notes == ("scan: readers disagree on candidate 2; it is left out of nodules",)
    assert joined.summary().startswith("3 accepted, 3 rejected, 0 missed, 1 with a comment alone")


def test_a_readers_last_word_counts(tmp_path):
    joined = joined_of(tmp_path, line("1", "accept"), line("1", "reject"))
    assert [row.verdict for row in joined.rows] == ["reject"]
    assert joined.nodules == ()


def test_one_rank_of_two_analyses_is_two_candidates(tmp_path):
    joined = joined_of(
        tmp_path,
        line("1", "accept", at=(0.0, 0.0, 0.0)), line("1", "reject", at=(50.0, 0.0, 0.0)),
    )  # fmt: skip
    assert [row.verdict for row in joined.rows] == ["accept", "reject"]
    assert [n.centre_xyz_mm[0] for n in joined.nodules] == [0.0]


def test_one_missed_nodule_of_two_readers_is_one(tmp_path):
    joined = joined_of(
        tmp_path,
        line("", "missed", at=(0.0, 0.0, 0.0), reader="A"),
        line("", "missed", at=(3.0, 0.0, 0.0), reader="B"),
        line("", "missed", at=(30.0, 0.0, 0.0), reader="B"),
    )
    assert len(joined.rows) == 3
    assert [n.centre_xyz_mm[0] for n in joined.nodules] == [0.0, 30.0]


def test_one_nodule_that_two_models_found_is_one(tmp_path):
    other = line("4", at=(1.4, 2.0, 3.0))[:-1] + ["cd"]
    apart = line("5", at=(31.0, 2.0, 3.0))[:-1] + ["cd"]
    joined = joined_of(tmp_path, line("1"), other, apart)
    assert len(joined.rows) == 3
    assert [n.centre_xyz_mm[0] for n in joined.nodules] == [1.0, 31.0]


def test_all_tables_become_one(tmp_path):
    good = table(tmp_path / "good.csv", line(), line("2", "reject", at=(50.0, 0.0, 0.0)))
    out = tmp_path / "out"
    assert corrections([str(good), "--out", str(out)]) == 0
    assert len(read_corrections(out / "corrections.csv")) == 2
    (row,) = csv.DictReader((out / "annotations.csv").open())
    assert list(row.values()) == ["scan", "1.0", "2.0", "3.0", "8.0"]


def test_what_a_reader_wrote_is_no_formula_and_comes_back(tmp_path):
    given = line(at=(-1.0, 2.0, 3.0), reader="@Bob", comment="=HYPERLINK(A1)")
    out = tmp_path / "out"
    assert corrections([str(table(tmp_path / "a.csv", given)), "--out", str(out)]) == 0
    (row,) = csv.DictReader((out / "corrections.csv").open())
    assert (row["comment"], row["reader"]) == ("'=HYPERLINK(A1)", "'@Bob")
    assert row["coordX"] == "-1.0"
    (read,) = read_corrections(out / "corrections.csv")
    assert (read.comment, read.reader) == ("=HYPERLINK(A1)", "@Bob")


def test_with_a_bad_table_nothing_is_written_over(tmp_path, capsys):
    good = table(tmp_path / "good.csv", line())
    bad = [table(tmp_path / f"{n}.csv", line(verdict="maybe")) for n in ("b", "c")]
    out = tmp_path / "out"
    out.mkdir()
    (out / "corrections.csv").write_text("earlier")
    assert corrections([*map(str, (good, *bad)), "--out", str(out)]) == 1
    said = capsys.readouterr().err
    assert said.count("FAILED") == 2
    assert "nothing was written" in said
    assert [p.name for p in out.iterdir()] == ["corrections.csv"]
    assert (out / "corrections.csv").read_text() == "earlier"


def written(path, at_s, *lines):
    os.utime(table(path, *lines), (at_s, at_s))
    return path


def test_the_table_exported_last_counts_as_a_whole(tmp_path):
    # As a browser names them: the second export comes first by name.
    first = written(tmp_path / "c.csv", 100, line("1"), line("2", at=(50.0, 0.0, 0.0)))
    later = written(tmp_path / "c (1).csv", 200, line("1", "reject"))
    for order in ((first, later), (later, first)):
        assert corrections([*map(str, order), "--out", str(tmp_path / "out")]) == 0
        (row,) = read_corrections(tmp_path / "out" / "corrections.csv")
        assert (row.rank, row.verdict) == (1, "reject")  # that of 2 was taken back


def test_an_empty_table_is_told(tmp_path, capsys):
    paths = [written(tmp_path / "a.csv", 100, line()), written(tmp_path / "b.csv", 200)]
    assert corrections([*map(str, paths), "--out", str(tmp_path / "out")]) == 0
    assert f"{paths[1]} holds no word" in capsys.readouterr().out


def test_tables_of_other_scans_and_readers_stay(tmp_path):
    tables = [
        read_corrections(table(tmp_path / "a.csv", line(reader="A"))),
        read_corrections(table(tmp_path / "b.csv", line(reader="B"))),
        read_corrections(table(tmp_path / "c.csv", line(name="other"))),
    ]
    assert len(join_corrections(tables).rows) == 3


def test_nameless_readers_who_disagree_are_told(tmp_path):
    tables = [
        read_corrections(table(tmp_path / f"{word}.csv", line(verdict=word, reader="")))
        for word in ("accept", "reject")
    ]
    (note,) = join_corrections(tables).notes
    assert "without a reader's name say different things" in note
    assert join_corrections([tables[0], tables[0]]).notes == ()
    other = read_corrections(
        table(tmp_path / "other.csv", line("2", at=(9.0, 9.0, 9.0), reader=""))
    )
    assert len(join_corrections([tables[0], other]).notes) == 1


def test_a_candidate_of_any_size_may_be_rejected(tmp_path):
    giant = line(verdict="reject")
    giant[6] = 212.5
    (row,) = read_corrections(table(tmp_path / "a.csv", giant))
    assert row.diameter_mm == 212.5
    giant[2] = "accept"
    with pytest.raises(LungDetError, match="millimetres are needed"):
        read_corrections(table(tmp_path / "a.csv", giant))
