import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from lungdet_mmdet.commands import data
from tests.support.command_calls import left_alone, record


def run(repository, *arguments):
    return subprocess.run(
        [sys.executable, str(repository / "data_prep" / "make_phantom.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=repository,
        env={"PYTHONPATH": str(repository), "PATH": "/usr/bin:/bin"},
    )


def test_one_scan_is_written_and_summed_up(repository, tmp_path):
    result = run(repository, str(tmp_path), "--scans", "1", "--seed", "3", "--workers", "1")
    assert result.returncode == 0, result.stderr
    assert "1 phantom scans" in result.stdout
    assert "phantoms: 100%" in result.stderr
    assert len(list(tmp_path.glob("subset0/*.mhd"))) == 1


def test_bad_number_of_scans_is_one_line(repository, tmp_path):
    result = run(repository, str(tmp_path / "out"), "--scans", "0")
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1].startswith("error: number of phantom")
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_every_option_arrives(monkeypatch):
    required = ["OUT", "--scans", "4"]
    options = shlex.split("--seed 5 --size full --mean-nodules 2.5 --workers 7")
    assert left_alone(data.phantom_options, required, options) == {"out_dir", "scans"}
    plans = record(monkeypatch, "lungdet_mmdet.phantom.cohort.plan_cohort", ["plan"])
    written = record(monkeypatch, "lungdet_mmdet.phantom.cohort.write_cohort", [])
    pool = SimpleNamespace(stop=lambda: None)
    pools = record(monkeypatch, "lungdet_mmdet.runs.workplace.process_pool", lambda: pool)
    assert data.phantom([*required, *options]) == 0
    assert plans == [{"n_scans": 4, "seed": 5, "size": "full", "mean_nodules": 2.5}]
    assert pools == [{"workers": 7}]
    (call,) = written
    assert (call["out_dir"], call["plan"], call["executor"]) == (Path("OUT"), ["plan"], pool)
