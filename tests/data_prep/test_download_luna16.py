"""The command: exit codes and messages (the transfer itself is tested in tests/luna16)."""

import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lungdet_mmdet.commands import data
from lungdet_mmdet.luna16.download import ALL_SUBSETS, DownloadSettings
from tests.support.command_calls import left_alone, record

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
    report = ("--report", tmp_path / "whole.txt")
    done = run(tmp_path, "--verify", "--workers", "0", *report, LUNGDET_OFFLINE="1")
    assert done.returncode == 1
    assert "missing: 1.2.3: no .mhd or .mha file" in done.stdout
    assert "1 series: 0 whole" in done.stdout
    # A report stands for a folder that is whole.
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


def test_every_option_arrives(monkeypatch, tmp_path):
    report = tmp_path / "whole.txt"
    fetching = shlex.split("--subsets 1 3 --masks --keep-zips --api http://mirror")
    verifying = ["--verify", "--workers", "7", "--report", str(report)]
    assert left_alone(data.download_options, ["D"], [*fetching, *verifying]) == {"out_dir"}

    fetched = record(monkeypatch, "lungdet_mmdet.luna16.download.download_luna16", [])
    for given in ([], fetching):
        assert data.download(["D", *given]) == 0
    assert [call["subsets"] for call in fetched] == [ALL_SUBSETS, [1, 3]]
    assert [call["out_dir"] for call in fetched] == [Path("D")] * 2
    assert [call["settings"] for call in fetched] == [
        DownloadSettings(),
        DownloadSettings(api="http://mirror", keep_zips=True, lung_masks=True),
    ]

    pools = record(monkeypatch, "lungdet_mmdet.runs.workplace.process_pool", "pool")
    whole = SimpleNamespace(lines=lambda: ["all there"], bad=[])
    verified = record(monkeypatch, "lungdet_mmdet.luna16.verifying.verify_luna16", whole)
    assert data.download(["D", *fetching, *verifying]) == 0
    assert verified == [
        {"folder": Path("D"), "make_executor": "pool", "workers": 7, "subsets": [1, 3]}
    ]
    assert pools == [{"workers": 7}]
    assert report.read_text() == "all there\n"
    assert len(fetched) == 2  # nothing more
