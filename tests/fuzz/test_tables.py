"""CSV tables: read as what they say or refused by line, whatever they hold."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungdet_mmdet.annotations.tables import read_nodules
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.scoring.run_files import Marks, read_submission, write_submission
from tests.fuzz.cases import TRIED, fuzzed
from tests.fuzz.targets import try_tables

pytestmark = pytest.mark.reliability("fuzzing: tables")

COLUMNS = (
    *("seriesuid", "coordX", "coordY", "coordZ", "diameter_mm"),
    *("subset", "patient_id", "probability", "Series UID", ""),
)
ODD_CELLS = (
    *("1.2.3", "nan", "1e999", "-1", "0", "1,5", "1.234,5", '"', "../x", "1_0", "\u0663", "-0"),
    *("seriesuid", "0x1p3", "", "\0", " 7 ", "x" * 300),
)
CELLS = st.one_of(
    st.sampled_from(ODD_CELLS),
    st.floats().map(repr),
    st.integers().map(str),
    st.text(max_size=8),
)
TEXTS = st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass"))
UIDS = st.sampled_from(["1.2.3", "1.2.4", "a_b-c"])
PLACES = st.floats(-1e5, 1e5).map(lambda mm: round(mm, 6))


@fuzzed()
@given(
    header=st.lists(st.sampled_from(COLUMNS), min_size=1, max_size=7),
    rows=st.lists(st.lists(CELLS, max_size=8), max_size=6),
    delimiter=st.sampled_from([",", ";", "\t"]),
    mark=st.sampled_from(["", "\ufeff"]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_cells_of_any_kind(fuzz_dir, header, rows, delimiter, mark, end):
    text = mark + end.join(delimiter.join(row) for row in (header, *rows)) + end
    path = fuzz_dir / "cells.csv"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try_tables(path)


@fuzzed()
@given(content=st.one_of(st.binary(max_size=300), TEXTS))
def test_any_file(fuzz_dir, content):
    path = fuzz_dir / "any.csv"
    path.write_bytes(content)
    try_tables(path)


@fuzzed()
@given(
    row=st.tuples(st.sampled_from(["1.2.3", "../1", ""]), CELLS, CELLS, CELLS, CELLS),
    delimiter=st.sampled_from([",", ";"]),
)
def test_a_nodule_that_is_read_is_a_possible_one(fuzz_dir, row, delimiter):
    lines = [COLUMNS[:5], row]
    path = fuzz_dir / "nodule.csv"
    text = "\n".join(delimiter.join(line) for line in lines) + "\n"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    TRIED["tables"] += 1
    try:
        nodules = read_nodules(path).rows
    except LungDetError:
        return
    for nodule in nodules:
        assert nodule.seriesuid == "1.2.3"
        assert 0 < nodule.diameter_mm <= 200
        assert max(map(abs, nodule.centre_xyz_mm)) <= 1e5


@fuzzed()
@given(
    rows=st.lists(st.tuples(UIDS, PLACES, PLACES, PLACES), max_size=6, unique=True),
    dialect=st.sampled_from([(",", "."), (";", "."), (";", ","), ("\t", ","), ("\t", ".")]),
    mark=st.sampled_from(["", "\ufeff"]),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_every_dialect_gives_the_same_numbers(fuzz_dir, rows, dialect, mark, end):
    delimiter, point = dialect
    lines = [delimiter.join(COLUMNS[:5])]
    for uid, *numbers in rows:
        cells = [f"{value:.6f}".replace(".", point) for value in (*numbers, 7.25)]
        lines.append(delimiter.join([uid, *cells]))
    path = fuzz_dir / "dialect.csv"
    path.write_text(mark + end.join(lines) + end, encoding="utf-8", newline="")
    TRIED["tables"] += 1
    found = [(n.seriesuid, *n.centre_xyz_mm) for n in read_nodules(path).rows]
    assert found == rows


@fuzzed(share=0.5)
@given(marks=st.lists(st.tuples(UIDS, st.tuples(*[st.floats(-1e9, 1e9)] * 3), st.floats(0, 1))))
def test_a_submission_comes_back_to_the_last_digit(fuzz_dir, marks):
    path = fuzz_dir / "submission.csv"
    written = Marks(
        tuple(uid for uid, _, _ in marks),
        np.array([centre for _, centre, _ in marks]).reshape(-1, 3),
        np.array([score for _, _, score in marks]),
    )
    write_submission(path, written)
    TRIED["tables"] += 1
    read = read_submission(path, series=["1.2.3", "1.2.4", "a_b-c"])
    assert read.seriesuids == written.seriesuids
    assert read.centres_xyz_mm.tolist() == written.centres_xyz_mm.tolist()
    assert not any(math.isnan(score) for score in read.scores)
    assert read.scores.tolist() == written.scores.tolist()
