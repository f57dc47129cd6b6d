import pytest

from lungdet_mmdet.errors import LungDetError


@pytest.mark.reliability("control characters of headers and names do not reach the terminal")
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2J.mha: bad", "a\\x1b[2J.mha: bad"),
        ("a\x9b1m\r\x07", "a\\x9b1m\\x0d\\x07"),
        ("a\udcff.mha", "a\\udcff.mha"),
        ("a\u202egnp.mha\u2028b", "a\\u202egnp.mha\\u2028b"),
        ("two\nlines\tof größe", "two\nlines\tof größe"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text, shown):
    assert str(LungDetError(text)) == shown
