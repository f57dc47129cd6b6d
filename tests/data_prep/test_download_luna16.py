"""The command: exit codes and messages (the transfer itself is tested in tests/luna16)."""

import os
import subprocess
import sys

import pytest

HEADER = "seriesuid,coordX,coordY,coordZ,diameter_mm\n"


@pytest.fixture
def run(repository):
    def call(*arguments, **environment):
        return subprocess.run(
            [sys.executable, "data_prep/download_luna16.py", *map(str, arguments)],
            cwd=repository,
            env={**os.environ, "PYTHONPATH": str(repository), **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return call


def test_verify_lists_a_missing_series_and_fails(run, tmp_path):
    (tmp_path / "annotations.csv").write_text(HEADER + "1.2.3,0,0,0,5\n")
    done = run(tmp_path, "--verify", "--workers", "0", LUNGDET_OFFLINE="1")
    assert done.returncode == 1
    assert "missing: 1.2.3: no .mhd or .mha file" in done.stdout
    assert "1 series: 0 whole" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["annotations.csv"]


def test_offline_is_an_error_in_one_line(run, tmp_path):
    pytest.importorskip("pooch")
    done = run(tmp_path / "out", LUNGDET_OFFLINE="1")
    assert done.returncode == 1
    # With OpenMMLab's original packages a warning about their versions comes before it.
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: LUNGDET_OFFLINE=1 forbids network access")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
