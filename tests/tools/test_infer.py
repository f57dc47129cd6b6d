"""tools/infer.py: many scans, failures, resuming, exit codes."""

import csv
import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import SimpleITK as sitk

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.inference.model_file import write_model_file
from lungdet_mmdet.inference.untrained_model import untrained_model, write_training_checkpoint
from lungdet_mmdet.phantom.dicom_export import write_dicom_series
from lungdet_mmdet.phantom.scan import Recipe, build_scan

TOOL = Path(__file__).parents[2] / "tools" / "infer.py"
FILES = {"candidates.csv", "candidates.json", "candidates.mrk.json", "report.html"}


@pytest.fixture(scope="module")
def infer():
    spec = importlib.util.spec_from_file_location("infer_tool", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture(scope="module")
def phantom():
    return build_scan(5, recipe=Recipe(leaves_per_lung=12))


@pytest.fixture(scope="module")
def given(phantom, tmp_path_factory):
    """A folder with one scan, and a model file beside it."""
    root = tmp_path_factory.mktemp("given")
    image = sitk.GetImageFromArray(phantom.volume_hu)
    image.SetSpacing(phantom.geometry.spacing_xyz_mm.tolist())
    image.SetOrigin(phantom.geometry.origin_xyz_mm)
    image.SetDirection(phantom.geometry.direction)
    (root / "scans").mkdir()
    sitk.WriteImage(image, str(root / "scans" / "one.mha"))
    write_model_file(root / "model.pth", untrained_model())
    return root


@pytest.fixture
def options(given, tmp_path):
    return ["--checkpoint", str(given / "model.pth"), "--out", str(tmp_path / "out")]


def test_every_file_of_a_scan_is_written(infer, given, options, tmp_path, capsys):
    assert infer([str(given / "scans"), *options, "--threshold", "0.1"]) == 0
    out = tmp_path / "out"
    assert {p.name for p in (out / "one").iterdir()} == FILES
    content = json.loads((out / "one" / "candidates.json").read_text())
    assert content["threshold"] == 0.1
    rows = list(csv.DictReader((out / "candidates.csv").open()))
    assert len(rows) == len(content["candidates"]) > 0
    assert rows[0]["seriesuid"] == "one"
    assert json.loads((out / "failures.json").read_text()) == []
    assert "1 scans done, 0 finished before, 0 failed" in capsys.readouterr().out
    assert not list(out.glob(".*"))


def test_a_bad_scan_does_not_stop_the_others(infer, given, options, tmp_path, capsys):
    scans = tmp_path / "scans"
    shutil.copytree(given / "scans", scans)
    (scans / "broken.nii.gz").write_bytes(b"nothing")
    assert infer([str(scans), str(scans / "none.mhd"), *options]) == 1
    captured = capsys.readouterr()
    assert "FAILED broken: " in captured.err
    assert "none.mhd: no such file" in captured.err
    assert (tmp_path / "out" / "one" / "report.html").is_file()
    assert not (tmp_path / "out" / "broken").exists()
    failures = json.loads((tmp_path / "out" / "failures.json").read_text())
    assert [f["seriesuid"] for f in failures] == [str(scans / "none.mhd"), "broken"]


def test_finished_scans_are_skipped_until_a_change(
    infer, given, options, tmp_path, capsys
):
    scans = str(given / "scans")
    report = tmp_path / "out" / "one" / "report.html"
    assert infer([scans, *options]) == 0
    first = report.stat().st_mtime_ns
    capsys.readouterr()
    assert infer([scans, *options, "--batch-size", "2"]) == 0
    assert "0 scans done, 1 finished before" in capsys.readouterr().out
    assert report.stat().st_mtime_ns == first
    assert infer([scans, *options, "--stride-mm", "5"]) == 0
    assert "1 scans done, 0 finished before" in capsys.readouterr().out
    assert report.stat().st_mtime_ns > first
    # Cut off in the middle of writing: not finished.
    (tmp_path / "out" / "one" / "candidates.json").write_text("{")
    assert infer([scans, *options, "--stride-mm", "5"]) == 0
    assert "1 scans done, 0 finished before" in capsys.readouterr().out


def test_dicom_gets_a_dicom_report_and_lists_its_series(
    infer, given, options, phantom, tmp_path, capsys
):
    pytest.importorskip("highdicom")
    for uid, step in (("2.999.1", 1), ("2.999.2", 2)):
        geometry = phantom.geometry
        volume = phantom.volume_hu[::step]
        geometry = type(geometry)(
            volume.shape, (2.5 * step, *geometry.spacing_zyx_mm[1:]), geometry.origin_xyz_mm,
            geometry.direction,
        )  # fmt: skip
        paths = write_dicom_series(
            tmp_path / "dicom" / uid, volume, geometry, seriesuid=uid, intercept=-4096
        )
        if step == 2:
            import pydicom

            for path in paths:
                dataset = pydicom.dcmread(path)
                dataset.StudyInstanceUID = "2.999.1.0.1"
                dataset.save_as(path)
    assert infer([str(tmp_path / "dicom"), *options, "--threshold", "0.1"]) == 0
    assert "* 2.999.1  " in capsys.readouterr().out
    folder = tmp_path / "out" / "2.999.1"
    assert {p.name for p in folder.iterdir()} == FILES | {"candidates_sr.dcm"}
    records = json.loads((folder / "candidates.json").read_text())["candidates"]
    assert records[0]["dicom_image"]["sop_instance_uid"].startswith("2.999.1.")


def test_an_unsafe_checkpoint_is_refused_before_any_scan(infer, given, tmp_path):
    checkpoint = tmp_path / "epoch.pth"
    write_training_checkpoint(checkpoint)
    out = tmp_path / "o"
    arguments = [str(given / "scans"), "--checkpoint", str(checkpoint), "--out", str(out)]
    with pytest.raises(LungDetError, match="--trust-checkpoint"):
        infer(arguments)
    assert not out.exists()
    assert infer([*arguments, "--trust-checkpoint"]) == 0


def test_workers_give_the_same_table(infer, given, options, tmp_path):
    assert infer([str(given / "scans"), *options]) == 0
    here = (tmp_path / "out" / "candidates.csv").read_text()
    shutil.rmtree(tmp_path / "out")
    assert infer([str(given / "scans"), *options, "--workers", "1"]) == 0
    there = list(csv.reader((tmp_path / "out" / "candidates.csv").open()))
    for one, other in zip(csv.reader(here.splitlines()), there, strict=True):
        assert one[8:] == other[8:]
