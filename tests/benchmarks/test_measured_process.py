import numpy as np
import pytest

from benchmarks.measured_process import measure_in_process, peak_rss_mb
from lungdet_mmdet.errors import LungDetError


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module that a fresh process can run."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def write(text):
        (tmp_path / "measured_module.py").write_text(text)
        return "measured_module"

    return write


def test_the_order_arrives_and_the_last_line_comes_back(module):
    name = module(
        "import json, sys\nprint('chatter')\nprint(json.dumps({'got': json.load(sys.stdin)}))"
    )
    assert measure_in_process(name, {"a": [1, 2]}, about="x") == {"got": {"a": [1, 2]}}


def test_a_failure_tells_what_was_measured_and_why_it_failed(module):
    name = module("raise ValueError('no such scan')")
    with pytest.raises(LungDetError, match=r"scan\.mhd: .*no such scan"):
        measure_in_process(name, {}, about="scan.mhd")


def test_the_peak_grows_with_what_is_held():
    before = peak_rss_mb()
    held = np.ones(300 * 2**20, dtype=np.uint8)
    assert peak_rss_mb() >= before
    assert peak_rss_mb() >= held.nbytes / 2**20
