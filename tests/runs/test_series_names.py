"""One rule for names of series."""

import pytest

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.files import check_series_name, is_series_name, series_name_of

pytestmark = pytest.mark.reliability("a name or UID taken for unique: names of series")

BAD = ["", ".", "..", ".hidden", "-x", "a/b", "a,b", 'a"b', " a", "a b", "a\u2028b", "a\x85b",
       "a\x1cb", "candidates.csv", "Failures.JSON", "nul", "con.mhd", "a.", "x" * 121,
       "\u00e4" * 61, "=cmd", "../x", "a\0b", "a\u202eb"]  # fmt: skip


@pytest.mark.parametrize("name", ["1.2.840.1", "LIDC-IDRI-0001", "_x", "M\u00fcller", "x" * 120])
def test_plain_names_are_kept(name):
    assert check_series_name(name, source="x") == name


@pytest.mark.parametrize("name", BAD)
def test_other_names_are_refused_with_the_rule(name):
    with pytest.raises(LungDetError, match=r"table, line 3: .* is no series UID \(letters, digits"):
        check_series_name(name, source="table, line 3")


@pytest.mark.parametrize("title", BAD)
def test_any_title_gives_a_name(title):
    assert is_series_name(series_name_of(title))
