import importlib.util
import json

import pytest

from lungdet_mmdet.apis.model_file import write_model_file
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.luna16.folder import read_luna16_folder
from lungdet_mmdet.preparation.cohort_preparation import prepare_cohort
from lungdet_mmdet.runs.workplace import process_pool
from lungdet_mmdet.splits.split_writer import write_splits
from tests.support.rehearsal import REHEARSAL_STEPS, write_rehearsal_folder
from tests.support.slab_folder import write_slab_folder
from tests.support.untrained_model import untrained_model


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


def test_ways_to_read_a_depth_are_compared(benchmark, folder, config, tmp_path, capsys):
    source = read_luna16_folder(folder)
    prepare_cohort(
        source,
        tmp_path / "out",
        REHEARSAL_STEPS,
        process_pool(0),
        workers=0,
        tell=lambda line: None,
    )
    out = tmp_path / "figures.json"
    assert benchmark.main(["depth", str(tmp_path / "out"), "--json", str(out)]) == 0
    rows = {row["estimate"]: row for row in json.loads(out.read_text())["rows"]
            if row["band"] == "all"}  # fmt: skip
    # Two spheres of 20 mm, the same in both scans: any depth within a slab of 7.5 mm is inside.
    assert {row["n"] for row in rows.values()} == {2}
    assert {row["inside"] for row in rows.values()} == {1.0}
    assert "mean, core (used)" in capsys.readouterr().out


def test_a_folder_without_depths_has_no_trial(benchmark, tmp_path):
    write_slab_folder(tmp_path)
    with pytest.raises(LungDetError, match="depths"):
        benchmark.main(["depth", str(tmp_path)])


def test_a_folder_is_measured_by_number_of_workers(benchmark, folder, config, tmp_path):
    out = tmp_path / "figures.json"
    options = ["--config", config, "--workers", "0", "--json", str(out)]
    assert benchmark.main(["prep", str(folder), *options]) == 0
    (run,) = json.loads(out.read_text())["runs"]
    assert (run["workers"], run["scans"]) == (0, 2)
    assert run["scans_per_minute"] == pytest.approx(120 / run["seconds"], rel=0.01)


def test_a_folder_needs_workers_and_a_scan_does_not(benchmark, folder):
    with pytest.raises(LungDetError, match="a folder with --workers"):
        benchmark.main(["prep", str(folder)])


def test_a_scan_that_cannot_be_measured_says_why(benchmark, config, tmp_path):
    with pytest.raises(LungDetError, match=r"no\.mhd"):
        benchmark.main(["prep", str(tmp_path / "no.mhd"), "--config", config])


def test_a_scan_is_taken_through_stock_and_ours(benchmark, prepared_phantoms, tmp_path, capsys):
    scan = next(prepared_phantoms.luna16_dir.rglob("*.mhd"))
    checkpoint = tmp_path / "model.pth"
    write_model_file(checkpoint, untrained_model())
    out = tmp_path / "figures.json"
    options = ["--checkpoint", str(checkpoint), "--threads", "1", "--json", str(out)]
    assert benchmark.main(["infer", str(scan), *options]) == 0
    figures = json.loads(out.read_text())
    stock, cropped, ours = (figures["runs"][w] for w in ("stock", "stock, cropped", "ours"))
    # Whole slabs are larger than those cut to the lungs, which both other ways see.
    assert stock["slab_px"][0] > ours["slab_px"][0]
    assert cropped["slab_px"] == ours["slab_px"]
    assert ours["total_s"] == pytest.approx(sum(ours["seconds"].values()), abs=0.01)
    assert figures["differences"]["box_px"] < 0.05
    assert figures["differences"]["score"] < 1e-4
    assert figures["differences"]["candidate_mm"] < 0.3
    assert "times as fast as stock" in capsys.readouterr().out


def test_training_and_its_loader_are_measured(benchmark, repository, tmp_path, capsys):
    data = write_slab_folder(tmp_path / "slabs", n_series=6, size_px=64)
    write_splits(data, protocol="strict")
    config = tmp_path / "tiny.py"
    config.write_text(
        f"_base_ = ['{repository}/configs/lung_deform_detr_phantom.py']\n"
        "model = dict(num_queries=10, encoder=dict(num_layers=1), decoder=dict(num_layers=1),\n"
        "             test_cfg=dict(max_per_img=10))\n"
        "train_dataloader = dict(batch_size=2)\n"
    )
    out = tmp_path / "figures.json"
    options = ["--workers", "1", "--batches", "4", "--iters", "2", "--assumed-it-per-s", "50"]
    arguments = ["train", str(config), "--data", str(data), "--json", str(out)]
    assert benchmark.main([*arguments, *options]) == 0
    figures = json.loads(out.read_text())
    (loader,) = figures["loader"]
    assert (loader["workers"], loader["batch_size"]) == (1, 2)
    assert loader["slabs_per_s"] > 0
    assert 0 <= loader["wait_share"] < 1
    training = figures["training"]
    assert training["iterations"] == 2
    assert training["slabs_per_s"] == pytest.approx(2 * training["it_per_s"], rel=0.02)
    assert 0 <= training["data_share"] < 1
    assert "slabs/s" in capsys.readouterr().out


def test_runtimes_are_measured_on_slabs_of_a_scan(prepared_phantoms, tmp_path, monkeypatch):
    from benchmarks import runtimes

    # This process goes on with other tests.
    monkeypatch.setattr("lungdet_mmdet.preparation.scan_job.set_threads", lambda threads: None)
    scan = next(prepared_phantoms.luna16_dir.rglob("*.mhd"))
    checkpoint = tmp_path / "model.pth"
    write_model_file(checkpoint, untrained_model())
    order = {"scan": str(scan), "checkpoint": str(checkpoint), "threads": 1, "slabs": 2}
    for name in ("PyTorch, fused batch norm, channels_last", "ONNX Runtime"):
        found = runtimes._measured_process({**order, "trust": False, "name": name})
        assert found["seconds"] > 0
        assert found["box_px"] < 0.05
        assert found["score"] < 1e-3
    found = runtimes._measured_process({**order, "trust": False, "name": "PyTorch, bfloat16"})
    # Eight bits of precision show: else the slabs did not run in them.
    assert found["box_px"] > 1e-3


@pytest.mark.slow
def test_the_table_for_a_gpu_runs_on_a_cpu_and_a_fault_is_a_row(repository, monkeypatch):
    import torch

    from benchmarks import gpu

    def broken(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setenv("LUNGDET_DATA", "unused")
    monkeypatch.setattr(gpu, "_infer", broken)
    monkeypatch.setattr(gpu, "PRECISIONS", {"bf16": torch.bfloat16})
    rows = list(
        gpu.benchmark_gpu(
            repository / "configs" / "lung_deform_detr_phantom.py",
            device="cpu",
            size_px=96,
            batches=[1],
            repeats=1,
        )
    )
    ops = [row for row in rows if row.what.startswith("attention, bf16 values")]
    assert len(ops) == 2  # no compiled op and no Triton on a CPU
    assert all(row.milliseconds > 0 and "relative error" in row.remark for row in ops)
    (step,) = [row for row in rows if row.what == "training step, 1 slabs, bf16"]
    assert step.fault == ""
    assert "slabs/s" in step.remark
    lines = gpu.report_lines(rows, "cpu")
    assert "| network alone, one slab, fp32 |  |  | FAULT RuntimeError: out of memory |" in lines
