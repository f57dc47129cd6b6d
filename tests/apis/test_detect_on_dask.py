"""Inference on a Dask cluster writes what inference here writes."""

import pytest

pytest.importorskip("distributed")

import SimpleITK as sitk

from lungdet_mmdet.apis.infer import CSV_NAME, DetectorOptions, detect_scans


@pytest.mark.slow
def test_candidates_are_the_same_bytes(model_path, phantom_image, tmp_path, monkeypatch):
    from distributed import LocalCluster

    monkeypatch.chdir(tmp_path)
    sitk.WriteImage(phantom_image, "a.mhd")
    # One thread, as on the cluster: more of them add up in another order.
    options = DetectorOptions((model_path,), device="cpu")
    detect_scans(["a.mhd"], "here", options, workers=1)
    with LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address=None, silence_logs="CRITICAL"
    ) as cluster:
        # Workers elsewhere start in another folder: relative paths must mean the same there.
        cluster_run = detect_scans(["a.mhd"], "there", options, dask=cluster.scheduler_address)
    assert cluster_run.exit_code == 0
    here, there = (tmp_path / side / CSV_NAME for side in ("here", "there"))
    assert len(here.read_text().splitlines()) > 1
    assert there.read_bytes() == here.read_bytes()
