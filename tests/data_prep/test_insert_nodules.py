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
from lungdet_mmdet.ct.scan import write_metaimage
from lungdet_mmdet.phantom.scan import build_scan
from lungdet_mmdet.semireal.cohort import CohortOptions, ScreenedCrop
from lungdet_mmdet.semireal.crops import CropFile
from lungdet_mmdet.semireal.job import LungSource, LungSources
from tests.support.command_calls import left_alone, record


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


DONORS = [f"D{k}" for k in range(12)]


@pytest.fixture
def insert(monkeypatch):
    """The command on lungs of patients A and B and a nodule of each donor, as far as the plan."""
    lungs = [LungSource(f"1.{name}", Path(f"{name}.mhd"), name) for name in "AB"]
    crops = [CropFile(f"n{name}", name, Path("image"), Path("mask")) for name in DONORS]
    semireal = "lungdet_mmdet.semireal"
    found = record(monkeypatch, f"{semireal}.job.find_lungs", LungSources(tuple(lungs), ()))
    listed = record(monkeypatch, f"{semireal}.crops.list_crops", crops)
    monkeypatch.setattr(
        f"{semireal}.cohort.screen_crops",
        lambda files: [ScreenedCrop(file, object(), 1.0, ()) for file in files],
    )
    plans = record(monkeypatch, f"{semireal}.cohort.plan_semireal_cohort", "jobs")
    monkeypatch.setattr(f"{semireal}.cohort.cohort_lines", lambda summary: [])
    done = SimpleNamespace(run=SimpleNamespace(exit_code=3))
    written = record(monkeypatch, f"{semireal}.cohort.write_semireal_cohort", done)
    place = SimpleNamespace(make_executor="executor", workers=9)
    places = record(monkeypatch, "lungdet_mmdet.runs.workplace.find_workplace", place)

    def run(*options):
        assert data.insert(["SCANS", "CROPS", "OUT", *options]) == 3
        return SimpleNamespace(
            found=found[-1], listed=listed[-1], plan=plans[-1], written=written[-1],
            place=places[-1],
            lungs=[lung.patient_id for lung in plans[-1]["lungs"]],
            donors=[c.file.patient_id for c in plans[-1]["pool"]],
        )  # fmt: skip

    return run


def test_every_option_arrives(insert):
    options = shlex.split(
        "--seed 5 --scans-per-lung 3 --nodules-per-scan 2.5 --no-variants --patients P.csv"
        " --exclude-patients A D1 --nodule-folds 0/1 --share-nodules --masks M --workers 7"
    )
    positional = ["SCANS", "CROPS", "OUT"]
    assert left_alone(data.insert_options, positional, options) == {"scans", "crops", "out_dir"}
    run = insert(*options)
    assert run.found == {"paths": [Path("SCANS")], "patients": Path("P.csv")}
    assert run.listed == {"folder": Path("CROPS")}
    assert run.plan["options"] == CohortOptions(
        seed=5, scans_per_lung=3, mean_nodules=2.5, vary=False, share_nodules=True
    )
    out = Path("OUT").resolve()
    assert (run.plan["out_dir"], run.plan["mask_dir"]) == (out, Path("M"))
    assert run.place == {"workers": 7}
    assert (run.written["jobs"], run.written["workers"]) == ("jobs", 9)

    plain = insert()
    assert plain.plan["options"] == CohortOptions()
    assert plain.plan["mask_dir"] == out.with_name("OUT-nodule-masks")


def test_neither_lungs_nor_nodules_of_excluded_patients_are_used(insert, capsys):
    run = insert("--exclude-patients", "A", "D1")
    assert run.lungs == ["B"]
    assert run.donors == [name for name in DONORS if name != "D1"]
    assert "left out: 1.A (patient A is excluded)" in capsys.readouterr().out


def test_folds_share_no_patient_and_leave_none_out(insert):
    first, others = (insert("--nodule-folds", folds).donors for folds in ("0/4", "1,2,3/4"))
    assert first
    assert others
    assert sorted([*first, *others]) == sorted(DONORS)
