"""tools/infer.py: many scans, failures, resuming, exit codes."""

import csv
import importlib.util
import json
import re
import shlex
import shutil
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk

from lungdet_mmdet.apis.infer import DetectJob, DetectorOptions, detector_for, fingerprint
from lungdet_mmdet.apis.model_file import write_model_file
from lungdet_mmdet.commands.models import infer_options
from lungdet_mmdet.ct.scan_inputs import ScanInput
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.phantom.scan import Recipe, build_scan
from tests.support.command_calls import left_alone, record
from tests.support.dicom_export import write_dicom_series
from tests.support.untrained_model import untrained_model, write_training_checkpoint

TOOL = Path(__file__).parents[2] / "tools" / "infer.py"
FILES = {"candidates.csv", "candidates.json", "candidates.mrk.json", "report.html", "thumbnail.jpg"}


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


@pytest.fixture(scope="module")
def first_run(infer, given):
    """Output of one run with default options."""
    out = given / "first"
    assert (
        infer([str(given / "scans"), "--checkpoint", str(given / "model.pth"), "--out", str(out)])
        == 0
    )
    return out


def test_every_file_of_a_scan_is_written(first_run):
    assert {p.name for p in (first_run / "one").iterdir()} == FILES
    content = json.loads((first_run / "one" / "candidates.json").read_text())
    rows = list(csv.DictReader((first_run / "candidates.csv").open()))
    assert len(rows) == len(content["candidates"]) > 0
    assert rows[0]["seriesuid"] == "one"
    assert json.loads((first_run / "failures.json").read_text()) == []
    assert [path.name for path in first_run.glob(".*")] == [".lock"]


def test_the_label_map_lies_on_the_grid_of_the_input(infer, given, options, tmp_path):
    assert infer([str(given / "scans"), *options, "--label-map", "--threshold", "0"]) == 0
    labels = sitk.ReadImage(str(tmp_path / "out" / "one" / "candidates_boxes.nii.gz"))
    image = sitk.ReadImage(str(given / "scans" / "one.mha"))
    assert labels.GetSize() == image.GetSize()
    for of in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(labels, of)() == pytest.approx(getattr(image, of)(), abs=1e-4)
    content = json.loads((tmp_path / "out" / "one" / "candidates.json").read_text())
    ranks = set(np.unique(sitk.GetArrayViewFromImage(labels)).tolist())
    assert {0, 1} <= ranks <= set(range(len(content["candidates"]) + 1))


def test_a_label_map_that_cannot_be_written_costs_nothing_else(
    infer, given, options, tmp_path, monkeypatch
):
    def full(path, *_):
        raise LungDetError(f"{path}: disk full")

    monkeypatch.setattr("lungdet_mmdet.apis.scan_results.write_nifti", full)
    assert infer([str(given / "scans"), *options, "--label-map"]) == 0
    assert {p.name for p in (tmp_path / "out" / "one").iterdir()} == FILES
    content = json.loads((tmp_path / "out" / "one" / "candidates.json").read_text())
    assert any("disk full" in flag for flag in content["flags"])


@pytest.mark.parametrize("broken", ["report_html", "scan_overview"])
def test_a_page_that_cannot_be_made_costs_nothing_else(
    infer, given, options, tmp_path, monkeypatch, capsys, broken
):
    def fails(*_, **__):
        raise MemoryError

    monkeypatch.setattr(f"lungdet_mmdet.apis.scan_results.{broken}", fails)
    assert infer([str(given / "scans"), *options]) == 0
    missing = {"report_html": "report.html", "scan_overview": "thumbnail.jpg"}[broken]
    assert {p.name for p in (tmp_path / "out" / "one").iterdir()} == FILES - {missing}
    content = json.loads((tmp_path / "out" / "one" / "candidates.json").read_text())
    assert f"no {missing}: MemoryError" in content["flags"]
    assert f"no {missing}: MemoryError" in capsys.readouterr().out


def test_a_page_that_a_full_disk_did_not_take_is_written_by_the_next_run(
    infer, given, options, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(
            "lungdet_mmdet.apis.scan_results.report_html",
            lambda page: (_ for _ in ()).throw(OSError(28, "No space left on device")),
        )
        assert infer([str(given / "scans"), *options]) == 0
    page = tmp_path / "out" / "one" / "report.html"
    assert not page.exists()
    assert infer([str(given / "scans"), *options]) == 0
    assert page.is_file()


def test_the_same_counts_and_cautions_stand_everywhere(given, first_run):
    content = json.loads((first_run / "one" / "candidates.json").read_text())
    *_, caution = content["cautions"]
    assert caution.startswith(
        "not trained on patients as they are: the model was trained on nothing"
    )
    n, above = len(content["candidates"]), sum(c["above_threshold"] for c in content["candidates"])
    page = (first_run / "one" / "report.html").read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.S).group(1))
    assert data["warnings"] == content["cautions"]
    assert len(data["candidates"]) == n
    assert sum(c["positive"] for c in data["candidates"]) == above
    for shown, written in zip(data["candidates"], content["candidates"], strict=True):
        assert (shown["rank"], shown["score"]) == (written["rank"], written["score"])
    rows = list(csv.DictReader((first_run / "one" / "candidates.csv").open()))
    assert {row["caution"] for row in rows} == {"not trained on patients"}
    assert sum(int(row["above_threshold"]) for row in rows) == above
    index = (first_run / "index.html").read_text()
    assert f"{above} of {n} candidates" in index
    assert caution in index


def test_a_smaller_page_or_none(infer, given, options, tmp_path):
    sizes = []
    for kind in ("full", "slabs", "none"):
        assert infer([str(given / "scans"), *options, "--report", kind]) == 0
        page = tmp_path / "out" / "one" / "report.html"
        sizes.append(page.stat().st_size if page.exists() else 0)
    assert sizes[0] > sizes[1] > sizes[2] == 0


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
    index = (tmp_path / "out" / "index.html").read_text()
    states = re.findall(r'article data-state="([a-z ]+)"', index)
    assert states[:2] == ["failed", "failed"]
    assert len(states) == 3
    assert "none.mhd: no such file" in index


def test_finished_scans_are_skipped(infer, given, options, first_run, tmp_path, capsys):
    shutil.copytree(first_run, tmp_path / "out")
    assert infer([str(given / "scans"), *options, "--batch-size", "2"]) == 0
    assert "0 scans done, 1 done before, 0 failed" in capsys.readouterr().out


def test_what_was_cut_off_or_asked_differently_is_done_again(
    infer, given, options, first_run, tmp_path, capsys
):
    out = tmp_path / "out"
    shutil.copytree(first_run, out)
    (out / "one" / "candidates.json").write_text("{")
    assert infer([str(given / "scans"), *options]) == 0
    assert "1 scans done, 0 done before" in capsys.readouterr().out
    assert (out / "candidates.csv").read_text() == (first_run / "candidates.csv").read_text()
    assert infer([str(given / "scans"), *options, "--stride-mm", "5"]) == 0
    assert "1 scans done, 0 done before" in capsys.readouterr().out
    n_slabs = [
        json.loads((folder / "one" / "candidates.json").read_text())["n_slabs"]
        for folder in (first_run, out)
    ]
    assert n_slabs[1] > n_slabs[0]


def test_folders_of_other_files_are_never_replaced(infer, given, options, tmp_path, capsys):
    scan = tmp_path / "out" / "one" / "0001.dcm"
    scan.parent.mkdir(parents=True)
    scan.write_text("an image")
    assert infer([str(given / "scans"), *options]) == 1
    assert "0001.dcm lies where the results would go" in capsys.readouterr().err
    assert scan.read_text() == "an image"


def test_dicom_gets_a_dicom_report_and_lists_its_series(
    infer, given, options, phantom, tmp_path, capsys, monkeypatch
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
                dataset.StudyInstanceUID, dataset.PatientID = "2.999.1.0.1", "2.999.1"
                dataset.save_as(path)
    run = [str(tmp_path / "dicom"), *options, "--threshold", "0.1"]
    assert infer(run) == 0
    assert "* 2.999.1  " in capsys.readouterr().out
    folder = tmp_path / "out" / "2.999.1"
    assert {p.name for p in folder.iterdir()} == FILES | {"candidates_sr.dcm"}
    assert infer([*run, "--dicom", "sr,sc,seg"]) == 0
    assert {p.name for p in folder.glob("*.dcm")} == {
        "candidates_sr.dcm", "candidates_sc.dcm", "candidates_seg.dcm"
    }  # fmt: skip
    capsys.readouterr()
    monkeypatch.setattr("lungdet_mmdet.apis.infer.has_highdicom", lambda: False)
    monkeypatch.setattr("lungdet_mmdet.apis.scan_results.has_highdicom", lambda: False)
    assert infer(run) == 0
    (line,) = [t for t in capsys.readouterr().out.splitlines() if "highdicom" in t]
    assert line.startswith("no DICOM files (sr): highdicom is not installed; pip install")
    assert not list(folder.glob("*.dcm"))
    with pytest.raises(LungDetError, match=r"DICOM files \['jpeg'\]"):
        infer([*run, "--dicom", "jpeg"])
    records = json.loads((folder / "candidates.json").read_text())["candidates"]
    assert records[0]["dicom_image"]["sop_instance_uid"].startswith("2.999.1.")


@pytest.mark.reliability("hostile model files and configs")
def test_an_unsafe_checkpoint_is_refused_before_any_scan(infer, given, tmp_path):
    checkpoint = tmp_path / "epoch.pth"
    write_training_checkpoint(checkpoint)
    out = tmp_path / "o"
    arguments = [str(given / "scans"), "--checkpoint", str(checkpoint), "--out", str(out)]
    with pytest.raises(LungDetError, match="--trust-checkpoint"):
        infer(arguments)
    assert not out.exists()
    assert infer([*arguments, "--trust-checkpoint"]) == 0


def test_workers_give_the_same_candidates(infer, given, options, first_run, tmp_path):
    assert infer([str(given / "scans"), *options, "--workers", "1"]) == 0
    one, other = (
        json.loads((folder / "one" / "candidates.json").read_text())
        for folder in (first_run, tmp_path / "out")
    )
    assert one["fingerprint"] == other["fingerprint"]
    for first, second in zip(one["candidates"][:10], other["candidates"][:10], strict=True):
        assert first["score"] == pytest.approx(second["score"], abs=1e-3)


def test_several_models_and_looks_are_named_in_the_result(infer, given, tmp_path):
    model, out = str(given / "model.pth"), tmp_path / "out"
    scans = str(given / "scans")

    assert infer([scans, "--looks", "2", "--checkpoint", model, model, "--out", str(out)]) == 0
    content = json.loads((out / "one" / "candidates.json").read_text())
    assert len(content["model"]["ensemble"]) == 2


# Each option of the detector with another value than its default.
CHOSEN = DetectorOptions(
    (Path("a.pth"), Path("b.pth")),
    checkpoint_sha256="ab",
    device="cpu",
    threshold=0.25,
    batch_size=3,
    stride_mm=5.0,
    looks=4,
    trust_checkpoint=True,
    label_map=True,
    precision="bf16",
    report="slabs",
    dicom=("sc", "seg"),
    anonymous=True,
)


def test_every_option_arrives(infer, monkeypatch):
    options = shlex.split(
        "--checkpoint a.pth b.pth --out OUT --device cpu --threshold 0.25 --batch-size 3"
        " --precision bf16 --workers 7 --dask tcp://h:1 --stride-mm 5 --looks 4 --label-map"
        " --report slabs --dicom sc,seg --series 1.2 --anonymous --trust-checkpoint"
    )
    assert left_alone(infer_options, ["s.mhd"], options) == {"inputs"}
    run = SimpleNamespace(lines=list, failures=[], exit_code=3)
    calls = record(monkeypatch, "lungdet_mmdet.apis.infer.detect_scans", run)
    for given in ([], options, ["--dicom", "none"]):
        assert infer(["s.mhd", *given]) == 3
    without, given, no_dicom = calls
    always = {"inputs": [Path("s.mhd")], "say": print}
    assert without == {
        **always, "out_dir": Path("results"), "options": DetectorOptions(), "workers": 0,
        "dask": None, "series_uid": None,
    }  # fmt: skip
    assert given == {
        **always, "out_dir": Path("OUT"), "options": replace(CHOSEN, checkpoint_sha256=""),
        "workers": 7, "dask": "tcp://h:1", "series_uid": "1.2",
    }  # fmt: skip
    assert no_dicom["options"].dicom == ()


def test_the_detector_is_built_by_the_options(monkeypatch):
    calls = record(monkeypatch, "lungdet_mmdet.apis.infer.ScanDetector")
    detector_for.__wrapped__(CHOSEN)
    assert calls == [
        {"checkpoint": (Path("a.pth"), Path("b.pth")), "device": "cpu", "threshold": 0.25,
         "batch_size": 3, "stride_mm": 5.0, "looks": 4, "trust_checkpoint": True,
         "precision": "bf16"}
    ]  # fmt: skip


def test_a_result_depends_on_what_was_asked_for_and_not_on_how_it_was_computed(tmp_path):
    scan = tmp_path / "one.nii.gz"
    scan.write_bytes(b"pixels")

    def mark(options=DetectorOptions()):  # noqa: B008  (frozen)
        return fingerprint(DetectJob(ScanInput(scan, "one"), tmp_path, options))

    names = {field.name for field in fields(DetectorOptions)}
    changed = {n: replace(DetectorOptions(), **{n: getattr(CHOSEN, n)}) for n in names}
    same = {name for name, options in changed.items() if mark(options) == mark()}
    # The digest stands for the files.
    assert same == {"checkpoints", "device", "batch_size", "trust_checkpoint"}
    before = mark()
    scan.write_bytes(b"others")
    assert mark()["scan"] != before["scan"]


@pytest.mark.parametrize("order", ["scan first", "model first", "no scan"])
def test_a_scan_is_no_model_wherever_it_stands(order, capsys):
    model = ["--checkpoint", "a.pth", "b.pth"]
    if order == "no scan":
        with pytest.raises(SystemExit):
            infer_options(model)
        assert "INPUT is missing" in capsys.readouterr().err
        return
    args = infer_options(["s.mhd", *model] if order == "scan first" else [*model, "s.mhd"])
    assert args.inputs == [Path("s.mhd")]
    assert args.checkpoint == [Path("a.pth"), Path("b.pth")]


def test_what_systems_leave_in_a_folder_does_no_harm(
    infer, given, options, first_run, tmp_path, capsys
):
    out = tmp_path / "out"
    shutil.copytree(first_run, out)
    (out / "one" / ".DS_Store").touch()
    (out / "one" / "notes.txt").write_text("mine")
    assert infer([str(given / "scans"), *options]) == 0  # nothing is to be written there
    assert "0 scans done, 1 done before" in capsys.readouterr().out
    (out / "one" / "notes.txt").unlink()
    (out / "one" / "candidates.csv").unlink()
    assert infer([str(given / "scans"), *options]) == 0
    assert "1 scans done, 0 done before" in capsys.readouterr().out
    assert (out / "candidates.csv").read_text() == (first_run / "candidates.csv").read_text()


def test_results_of_several_kinds_in_one_table_are_told(
    infer, given, options, first_run, tmp_path, capsys
):
    out = tmp_path / "out"
    shutil.copytree(first_run, out)
    shutil.copytree(out / "one", out / "another")
    assert infer([str(given / "scans"), *options]) == 0
    assert "joins results of" not in capsys.readouterr().out
    assert infer([str(given / "scans"), *options, "--threshold", "0.9", "--report", "none"]) == 0
    assert "joins results of" not in capsys.readouterr().out  # the same scores
    assert infer([str(given / "scans"), *options, "--looks", "2", "--report", "none"]) == 0
    assert "candidates.csv joins results of 2 kinds" in capsys.readouterr().out


def test_anonymous_results_lie_apart_from_others(infer, given, options, first_run, tmp_path):
    shutil.copytree(first_run, tmp_path / "out")
    with pytest.raises(LungDetError, match="one: of a run that was not --anonymous"):
        infer([str(given / "scans"), *options, "--anonymous"])
    shutil.rmtree(tmp_path / "out" / "one")
    (tmp_path / "out" / "failures.json").write_text('[{"seriesuid": "x", "reason": "/a/b.mha"}]')
    with pytest.raises(LungDetError, match="failures.json: of a run"):
        infer([str(given / "scans"), *options, "--anonymous"])
