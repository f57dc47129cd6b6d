import importlib.util
import json

import pytest

from lungdet_mmdet.preparation.rehearsal import REHEARSAL_STEPS, write_rehearsal_folder


@pytest.fixture
def benchmark(repository):
    path = repository / "tools" / "benchmark.py"
    spec = importlib.util.spec_from_file_location("benchmark", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path):
    return write_rehearsal_folder(tmp_path / "luna16", 2)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(f"prep_pipeline = {REHEARSAL_STEPS!r}\n")
    return str(path)


def test_one_scan_is_measured_step_by_step(benchmark, folder, config, tmp_path, capsys):
    scan = next(folder.glob("subset0/*.mhd"))
    out = tmp_path / "figures.json"
    options = ["--config", config, "--repeat", "1", "--threads", "1", "--json", str(out)]
    assert benchmark.main(["prep", str(scan), *options]) == 0
    figures = json.loads(out.read_text())
    assert figures["ratio_to_read"] == pytest.approx(
        figures["prepare_all_s"][0] / figures["read_all_s"][0], rel=0.5
    )
    steps = figures["steps_s"]
    assert list(steps)[:2] == ["LoadCTScan", "ResampleScan"]
    assert list(steps)[-2:] == ["preview", "encode and write"]
    # Steps are parts of the whole; what is between them is little.
    assert 0.5 * figures["prepare_s"] < sum(steps.values()) <= figures["prepare_s"] + 0.01
    assert 100 < figures["peak_rss_mb"] < 1500
    shown = capsys.readouterr().out
    assert "ratio_to_read" in shown
    assert "peak_rss_mb" in shown


def test_a_folder_is_measured_by_number_of_workers(benchmark, folder, config, tmp_path):
    out = tmp_path / "figures.json"
    options = ["--config", config, "--workers", "0", "--json", str(out)]
    assert benchmark.main(["prep", str(folder), *options]) == 0
    (run,) = json.loads(out.read_text())["runs"]
    assert (run["workers"], run["scans"]) == (0, 2)
    assert run["scans_per_minute"] == pytest.approx(120 / run["seconds"], rel=0.01)


def test_a_folder_needs_workers_and_a_scan_does_not(benchmark, folder, capsys):
    assert benchmark.main(["prep", str(folder)]) == 1
    assert "a folder with --workers" in capsys.readouterr().err


def test_a_scan_that_cannot_be_measured_says_why(benchmark, config, tmp_path, capsys):
    assert benchmark.main(["prep", str(tmp_path / "no.mhd"), "--config", config]) == 1
    assert "no.mhd" in capsys.readouterr().err
