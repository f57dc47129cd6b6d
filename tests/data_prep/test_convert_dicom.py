"""The command: what it prints and how it ends."""

import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lungdet_mmdet.commands import data
from lungdet_mmdet.ct.geometry import ScanGeometry
from tests.support.command_calls import left_alone, record


def test_a_series_is_converted_and_a_scout_left_out(repository, tmp_path):
    pytest.importorskip("pydicom")
    from tests.support.dicom_export import write_dicom_series

    for uid, slices in (("1.2.3", 9), ("1.2.4", 2)):
        geometry = ScanGeometry(
            size_zyx=(slices, 4, 4),
            spacing_zyx_mm=(1.0, 1.0, 1.0),
            origin_xyz_mm=(0.0, 0.0, 0.0),
            direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
        )
        volume = np.full((slices, 4, 4), -1000, dtype=np.int16)
        volume[:, 1:3, 1:3] = 40  # without tissue it is no patient
        write_dicom_series(tmp_path / "in" / uid, volume, geometry, seriesuid=uid)
    command = [sys.executable, "data_prep/convert_dicom.py", str(tmp_path / "in")]
    done = subprocess.run(
        [*command, str(tmp_path / "out"), "--workers", "0"],
        cwd=repository,
        env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "1 series done, 0 done before, 0 failed, 1 left out" in done.stdout
    assert "has no annotations.csv" in done.stdout
    assert (tmp_path / "out" / "scans" / "1.2.3.raw").stat().st_size == 9 * 4 * 4 * 2
    assert not (tmp_path / "out" / "patients.csv").exists()  # nobody asked for names


def test_every_option_arrives(monkeypatch, tmp_path):
    (tmp_path / "only.csv").write_text("1.2.3\n")
    only = f"--only '{tmp_path / 'only.csv'}'"
    options = shlex.split(f"--tables T {only} --compress --patients --workers 7 --dask tcp://h:1")
    folders = ["IN", "OUT"]
    assert left_alone(data.convert_options, folders, options) == {"dicom_dir", "out_dir"}
    place = SimpleNamespace(make_executor="executor", workers=9)
    places = record(monkeypatch, "lungdet_mmdet.runs.workplace.find_workplace", place)
    summary = SimpleNamespace(lines=list, exit_code=3)
    calls = record(monkeypatch, "lungdet_mmdet.luna16.conversion.convert_dicom_tree", summary)
    for given in ([], options):
        assert data.convert([*folders, *given]) == 3
    where = {"read_from": [Path("IN")], "write_to": Path("OUT")}
    assert places[1] == {"workers": 7, "dask": "tcp://h:1", **where}
    without, given = calls
    always = {"root": Path("IN"), "out_dir": Path("OUT"), "make_executor": "executor"}
    assert without == {
        **always, "workers": 9, "tables": None, "only": None, "compress": False,
        "keep_patient_ids": False,
    }  # fmt: skip
    assert given == {
        **always, "workers": 9, "tables": Path("T"), "only": ("1.2.3",), "compress": True,
        "keep_patient_ids": True,
    }  # fmt: skip
