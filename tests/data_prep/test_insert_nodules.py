"""The command: what it prints and how it ends."""

import os
import subprocess
import sys

import numpy as np
import pytest

from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.scan import write_metaimage
from lungdet_mmdet.phantom.scan import build_scan


def run(repository, *arguments):
    return subprocess.run(
        [sys.executable, "data_prep/insert_nodules.py", *map(str, arguments)],
        cwd=repository,
        env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A phantom, and twelve balls of 6 mm, each of another patient."""
    root = tmp_path_factory.mktemp("inputs")
    scan = build_scan(8, size="small")
    write_metaimage(root / "scans", "chest", scan.volume_hu, scan.geometry, compress=True)
    z, y, x = np.mgrid[-12:13, -12:13, -12:13]
    mask = z**2 + y**2 + x**2 <= 9
    geometry = ScanGeometry(mask.shape, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    for k in range(12):
        image = np.where(mask, 40, -850).astype(np.int16)
        write_metaimage(root / "crops" / "image", f"n{k}", image, geometry)
        write_metaimage(root / "crops" / "mask", f"n{k}", mask.astype(np.uint8), geometry)
    table = "".join(f"n{k},P{k}\n" for k in range(12))
    (root / "crops" / "crops.csv").write_text("crop,patient_id\n" + table)
    return root


def test_a_cohort_is_made_and_summed_up(repository, inputs, tmp_path):
    out = tmp_path / "out"
    done = run(repository, inputs / "scans", inputs / "crops", out, "--seed", 3, "--workers", 0)
    assert done.returncode == 0, done.stderr
    assert "nodules: 12 of 12 are fit to be inserted" in done.stdout
    assert "1 scans of the lungs of 1 patients" in done.stdout
    assert len(list(out.glob("subset0/*.mhd"))) == 1
    assert len(list((tmp_path / "out-nodule-masks").glob("*.mhd"))) == 1
    assert (out / "insertions.html").is_file()


def test_excluded_patients_are_left_out_and_too_few_are_an_error(repository, inputs, tmp_path):
    excluded = [f"P{k}" for k in range(5)]
    done = run(
        repository,
        *(inputs / "scans", inputs / "crops", tmp_path / "out"),
        *("--exclude-patients", *excluded, "--workers", 0),
    )
    assert done.returncode == 1
    assert "nodules: 7 of 12 are of patients to be used" in done.stdout
    assert done.stderr.strip().splitlines()[-1].startswith("error: nodules of 7 patients")
    assert not (tmp_path / "out").exists()


def test_folds_that_make_no_sense_are_one_line(repository, inputs, tmp_path):
    done = run(
        repository, inputs / "scans", inputs / "crops", tmp_path / "out", "--nodule-folds", "4/4"
    )
    assert done.returncode == 1
    assert "write e.g. 0,1,2/4" in done.stderr
    assert "Traceback" not in done.stderr
