"""A cohort prepared on a Dask cluster is the cohort prepared here, byte for byte."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("distributed")

from mmengine.config import Config

from lungdet_mmdet.luna16.folder import read_luna16_folder
from lungdet_mmdet.preparation.cohort_preparation import prepare_cohort
from lungdet_mmdet.preparation.prep_pipeline import prep_steps
from lungdet_mmdet.preparation.scan_job import limit_threads
from lungdet_mmdet.runs.workplace import DaskCluster

FOR_WORKERS = Path(__file__).parent / "for_workers"


def files_below(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def scans_of(folder, uids):
    """The manifest's entries of some scans, without how long they took."""
    scans = json.loads((folder / "manifest.json").read_text())["scans"]
    return [
        {key: value for key, value in scan.items() if "seconds" not in key}
        for scan in scans
        if scan["seriesuid"] in uids
    ]


@pytest.mark.slow
@pytest.mark.reliability("Dask workers and schedulers killed")
def test_a_worker_killed_in_mid_scan_leaves_no_trace(
    prepared_phantoms, repository, tmp_path, monkeypatch
):
    from distributed import LocalCluster

    monkeypatch.setenv("LUNGDET_TEST_KILLED", str(tmp_path / "killed"))
    monkeypatch.setattr(sys, "path", [str(FOR_WORKERS), *sys.path])
    config = repository / "configs" / "_base_" / "prep_luna16.py"
    out = tmp_path / "out"
    cohort = read_luna16_folder(prepared_phantoms.luna16_dir)
    cohort = replace(cohort, scans=cohort.scans[:2])
    uids = [scan.seriesuid for scan in cohort.scans]
    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs="CRITICAL"
    ) as cluster:
        summary = prepare_cohort(
            cohort,
            out,
            prep_steps(Config.fromfile(config), source=str(config)),
            DaskCluster(cluster.scheduler_address, limit_threads, tell=lambda line: None),
            workers=2,
            imports=("kill_in_mid_scan",),
            tell=lambda line: None,
        )
    assert (tmp_path / "killed").exists()
    assert summary.failures == []
    assert summary.exit_code == 0
    here = prepared_phantoms.prepared_dir
    for uid in uids:
        files = files_below(here / "slabs" / uid)
        assert {"scan.json", "000.png"} <= {path.name for path in files}
        assert files_below(out / "slabs" / uid) == files
    assert len(scans_of(out, uids)) == 2
    assert scans_of(out, uids) == scans_of(here, uids)
