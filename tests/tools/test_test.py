"""The test command, from a config and a checkpoint to the report, on a tiny untrained detector."""

import importlib.util
import json
import shlex
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

import lungdet_mmdet.plugin  # noqa: F401
from lungdet_mmdet.apis.config_file import read_config
from lungdet_mmdet.commands import training
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.evaluation.slab_test import NetworkRun, run_slab_test
from lungdet_mmdet.evaluation.trained_checkpoint import config_as_data, what_slabs_differ
from lungdet_mmdet.scoring.slab_scores import OperatingPoint
from lungdet_mmdet.splits.coco_checks import series_digest
from tests.support.command_calls import left_alone, record

REPOSITORY = Path(__file__).parents[2]
CONFIG = """
_base_ = ['{base}']
model = dict(num_queries=10, backbone=dict(depth=18, base_channels=8),
             neck=dict(in_channels=[16, 32, 64]), decoder=dict(num_layers=1),
             test_cfg=dict(max_per_img=5))
test_dataloader = dict(num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
"""
SIDE = 96
POINT = OperatingPoint(0.01, "max_f1", data="phantom", protocol="strict", split="val")


def coco(split, series):
    """Two slabs per scan; the first slab of the first scan holds a nodule of 10 mm."""
    images, number = [], 0
    for uid in series:
        for index in (0, 1):
            number += 1
            images.append({
                "id": number, "file_name": f"{uid}/{index:03d}.png", "width": SIDE, "height": SIDE,
                "seriesuid": uid, "slab_index": index, "spacing": [1.0, 1.0, 7.5],
                "origin": [0.0, 0.0, 7.5 * index], "direction": [1, 0, 0, 0, 1, 0, 0, 0, 1],
                "z_range_mm": [7.5 * index - 3.75, 7.5 * index + 3.75],
            })  # fmt: skip
    nodule = {"nodule_id": f"{series[0]}/0", "seriesuid": series[0], "diameter_mm": 10.0,
              "centre_xyz_mm": [40.0, 40.0, 0.0]}  # fmt: skip
    return {
        "info": {"protocol": "strict", "data": "phantom", "seed": 0, "split": split,
                 "complete_series": True},
        "images": images,
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [35.5, 35.5, 10, 10],
                         "area": 100.0, "iscrowd": 0, "diameter_mm": 10.0, "overlap_mm": 7.5,
                         "kind": "nodule", "nodule_id": nodule["nodule_id"]}],
        "categories": [{"id": 1, "name": "nodule"}],
        "series": series, "nodules": [nodule], "excluded": [], "unseen_nodules": [],
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A prepared folder of six scans, a config of a tiny detector, and two checkpoints of it."""
    root = tmp_path_factory.mktemp("test_tool")
    rng = np.random.default_rng(0)
    splits = {"train": ["1.1", "1.2"], "val": ["1.3", "1.4"], "test": ["1.5", "1.6"]}
    (root / "annotations").mkdir()
    for split, series in splits.items():
        (root / f"annotations/{split}.json").write_text(json.dumps(coco(split, series)))
        for uid in series:
            (root / "slabs" / uid).mkdir(parents=True)
            for index in (0, 1):
                slab = rng.integers(0, 90, (SIDE, SIDE), dtype=np.uint8)
                cv2.imwrite(str(root / "slabs" / uid / f"{index:03d}.png"), slab)
    base = REPOSITORY / "configs" / "phantom" / "main.py"
    (root / "tiny.py").write_text(CONFIG.format(base=base))
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("mmdet"):
        weights = MODELS.build(Config.fromfile(str(root / "tiny.py")).model).state_dict()
    # Built and not initialised, mmdet leaves this one as the memory was, which may be no number.
    torch.nn.init.normal_(weights["level_embed"])
    torch.save({"state_dict": weights, "meta": {}}, root / "bare.pth")
    meta = {"operating_point": POINT.as_record()}
    torch.save({"state_dict": weights, "meta": meta}, root / "validated.pth")
    return root


@pytest.fixture
def run_tool(monkeypatch, folder, tmp_path):
    """Run the command with further arguments; returns the exit code."""
    spec = importlib.util.spec_from_file_location("test_tool", REPOSITORY / "tools" / "test.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv("LUNGDET_DATA", str(folder))

    def run(checkpoint, *more, config="tiny.py"):
        arguments = [
            str(folder / config), str(folder / checkpoint), "--data", str(folder),
            "--work-dir", str(tmp_path), "--bootstrap", "20",
        ]  # fmt: skip
        return module.main([*arguments, *more])

    return run


@pytest.fixture
def figures(tmp_path):
    return lambda: json.loads((tmp_path / "metrics.json").read_text())


def test_writes_table_figures_plots_and_page(run_tool, figures, tmp_path, capsys):
    more = ("--show-dir", str(tmp_path / "show"), "--compare-midplane")
    assert run_tool("validated.pth", *more) == 0

    printed = capsys.readouterr().out
    for part in ("phantom data, strict protocol, test split: 4 slabs of 2 scans", "93.3 %",
                 "chosen by max_f1 on phantom data", "threshold 0.010", "CPM"):  # fmt: skip
        assert part in printed
    written = figures()
    assert written["threshold"] == written["metrics"]["threshold"] == 0.01
    assert written["counts"]["n_scans"] == 2
    assert written["ceiling"]["ceiling_midplane"] == 1.0
    assert "ceiling (mid-plane)" in printed
    assert "ceiling (mid-plane)" in (tmp_path / "report.html").read_text(encoding="utf-8")
    # Prepared without depth: that is said, and both ways are the same.
    assert written["ceiling"]["ceiling_depth"] is None
    assert "4 of 4 slabs have no depth of the maximum" in " ".join(written["warnings"])
    assert "difference +0.000" in written["depth_gain"]
    assert len(written["ci95"]["CPM"]) == 2
    assert written["metrics"]["AP50_large"] is None
    assert (written["data"], written["protocol"], written["split"]) == ("phantom", "strict", "test")
    assert (written["checkpoint"], written["config"]) == ("validated.pth", "tiny.py")
    assert written["parameters"] > 10_000
    assert written["seconds_per_slab"] > 0
    assert len(list((tmp_path / "plots").glob("*.png"))) == 5
    assert "phantom data" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert (tmp_path / "submission.csv").read_text().startswith("seriesuid,coordX")
    assert [path.name for path in (tmp_path / "show").glob("*")]


def test_a_test_leaves_the_config_that_training_left(run_tool, tmp_path):
    (tmp_path / "tiny.py").write_text("left = 1")
    run_tool("bare.pth", "--no-report")
    assert (tmp_path / "tiny.py").read_text() == "left = 1"


def test_without_an_operating_point_nothing_is_chosen(run_tool, figures, tmp_path, capsys):
    run_tool("bare.pth", "--no-report", "--split", "val")

    assert "carries no operating point" in capsys.readouterr().out
    written = figures()
    assert written["threshold"] is None
    assert not {"precision", "F1", "slab_sensitivity", "threshold"} & set(written["metrics"])
    assert not (tmp_path / "report.html").exists()
    assert written["split"] == "val"


def test_table_and_metrics_give_the_same_figures(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LUNGDET_DATA", str(folder))
    config = read_config(folder / "tiny.py", data=folder, work_dir=tmp_path)

    outcome = run_slab_test(config, folder / "validated.pth", split="test", n_resamples=0)

    assert {"AP50", "F1", "scan_AUROC", "CPM"} <= outcome.scores.figures.keys()
    for key, value in outcome.scores.figures.items():
        assert outcome.metrics[key] == pytest.approx(value, nan_ok=True), key
    for key in outcome.scores.counts.keys() & outcome.metrics.keys():
        assert outcome.metrics[key] == outcome.scores.counts[key]


def test_files_are_written_for_others_and_never_read_back(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LUNGDET_DATA", str(folder))
    for name in ("write_predictions", "write_submission"):
        monkeypatch.setattr(f"lungdet_mmdet.evaluation.metrics.{name}", lambda *_: None)
    config = read_config(folder / "tiny.py", data=folder, work_dir=tmp_path)

    outcome = run_slab_test(config, folder / "validated.pth", split="test", n_resamples=0)

    assert [item.img_id for item in outcome.detections] == [1, 2, 3, 4]
    assert len(outcome.scores.matched.outcomes) == 4


def test_annotations_and_checkpoint_are_read_once(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LUNGDET_DATA", str(folder))
    config = read_config(folder / "tiny.py", data=folder, work_dir=tmp_path)
    annotations = (folder / "annotations/test.json").read_text()
    parsed, loaded = [], []
    parse, load = json.loads, torch.load
    monkeypatch.setattr(json, "loads", lambda text, **o: (parsed.append(text), parse(text, **o))[1])
    monkeypatch.setattr(torch, "load", lambda *a, **o: (loaded.append(a[0]), load(*a, **o))[1])

    run_slab_test(config, folder / "validated.pth", split="test", n_resamples=0)

    assert parsed.count(annotations) == 1
    assert [str(path) for path in loaded] == [str(folder / "validated.pth")]


def test_averaged_weights_are_loaded_where_the_config_averages(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LUNGDET_DATA", str(folder))
    # The same other hooks: one of them lays the weights out, which moves the last digits.
    averaging = {"custom_hooks": [{"type": "DetectorSetupHook"}, {"type": "EMAHook"}]}
    scores = []
    for number, options in enumerate((None, averaging)):
        config = read_config(
            folder / "tiny.py", data=folder, work_dir=tmp_path / str(number), cfg_options=options
        )
        outcome = run_slab_test(config, folder / "bare.pth", split="test", n_resamples=0)
        scores.append([item.scores.tolist() for item in outcome.detections])

    assert np.allclose(scores[0], scores[1], atol=1e-6)
    assert max(scores[0][0]) > 0


def test_only_the_first_process_writes(run_tool, tmp_path, monkeypatch):
    # Metrics are computed in the first process alone.
    nothing = NetworkRun({}, [], None, None, 0, None, None)
    monkeypatch.setattr("lungdet_mmdet.evaluation.slab_test.run_network", lambda *_, **__: nothing)

    assert run_tool("bare.pth") == 0
    assert not (tmp_path / "metrics.json").exists()
    assert not (tmp_path / "report.html").exists()


def test_weights_of_another_model_are_refused(run_tool, folder):
    torch.save({"state_dict": {"other": torch.zeros(1)}, "meta": {}}, folder / "other.pth")

    with pytest.raises(LungDetError, match=r"other\.pth.*config that it was trained with"):
        run_tool("other.pth", "--no-report")


def test_a_leaking_split_is_refused_unless_allowed(run_tool, folder, monkeypatch):
    said = []
    monkeypatch.setattr(
        "lungdet_mmdet.evaluation.slab_test.run_slab_test",
        lambda *_, warnings, **__: said.extend(warnings),
    )
    clean = (folder / "annotations/test.json").read_text()
    try:
        (folder / "annotations/test.json").write_text(json.dumps(coco("test", ["1.1", "1.6"])))
        with pytest.raises(LungDetError, match="leaks"):
            run_tool("bare.pth")
        assert said == []
        assert run_tool("bare.pth", "--allow-leak") == 0
    finally:
        (folder / "annotations/test.json").write_text(clean)
    assert "1.1 (train and test)" in said[0]


def test_a_model_is_not_tested_on_what_it_learnt_from(run_tool, folder, figures):
    # The splits of today have no leak; those of the training were others.
    content = torch.load(folder / "bare.pth", weights_only=True)
    content["meta"]["training_series"] = {"1.1": "strict 0", "1.6": "strict 0"}
    torch.save(content, folder / "seen.pth")
    with pytest.raises(LungDetError, match=r"seen\.pth: has learnt from 1 of the 2 .* e\.g\. 1\.6"):
        run_tool("seen.pth", "--no-report")
    assert run_tool("seen.pth", "--no-report", "--allow-leak") == 0
    assert any("has learnt from 1 of the 2" in warning for warning in figures()["warnings"])

    # A published model tells series by digests.
    content["meta"]["training_series"] = {series_digest("1.6"): "strict 0"}
    torch.save(content, folder / "seen.pth")
    with pytest.raises(LungDetError, match=r"has learnt from 1 of the 2 .* e\.g\. 1\.6"):
        run_tool("seen.pth", "--no-report")


def test_a_model_of_other_slabs_is_told(folder):
    config = read_config(folder / "tiny.py", data=folder)
    other = {**config_as_data(config, source="tiny")}
    other["prep_pipeline"] = [*other["prep_pipeline"][:-1], {"type": "MIPSlabs", "thickness_mm": 9}]
    content = {"config": other, "made_with": {"pixels_version": "1"}}
    told = what_slabs_differ(Path("m.pth"), content, config)
    assert "Only in the checkpoint's prep_pipeline: " in told[0]
    assert "pixels of version 1" in told[1]
    same = {"config": config_as_data(config, source="tiny"), "made_with": {}}
    assert what_slabs_differ(Path("m.pth"), same, config) == ()


def test_several_sets_give_one_table_and_a_bad_one_costs_only_itself(
    run_tool, folder, tmp_path, monkeypatch, capsys
):
    import shutil

    others = [tmp_path / name for name in ("other", "empty")]
    for other in others:
        shutil.copytree(folder, other)
    path = others[1] / "annotations" / "test.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"images": [], "annotations": []}))
    sets = [str(path) for path in (folder, *others)]
    assert run_tool("validated.pth", "--no-report", "--data", *sets) == 1
    printed = capsys.readouterr()
    assert f"FAILED empty: {path}: holds no slab; prepare more scans" in printed.err
    header, _, *rows = printed.out[printed.out.index("| set |") :].splitlines()
    assert header == "| set | CPM | AP50 | AR50 | paper_F1 | slab_AUROC |"
    written = [json.loads((tmp_path / name / "metrics.json").read_text())["metrics"]["CPM"]
               for name in (folder.name, "other")]  # fmt: skip
    for row, name, cpm in zip(rows, (folder.name, "other"), written, strict=False):
        assert row.startswith(f"| {name} | {cpm:.3f} ")
    assert rows[2] == f"{folder.name}: phantom data, strict protocol, test split"
    with pytest.raises(LungDetError, match="folders of different names"):
        run_tool("validated.pth", "--data", sets[0], sets[0])


OPTIONS = (
    "--split val --out P.json --show-dir S --show-score 0.6 --threshold 0.25 --bootstrap 20"
    " --compare-midplane --no-report --allow-leak --cfg-options train_cfg.max_epochs=3"
    " --launcher pytorch --local_rank 3"
)


def test_every_option_arrives(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("LOCAL_RANK", "0")  # so that what the command sets is forgotten
    options = shlex.split(f"{OPTIONS} --data D --work-dir '{tmp_path}'")
    unchanged = left_alone(training.run_test_options, ["C.py", "m.pth"], options)
    assert unchanged == {"config", "checkpoint"}
    config = SimpleNamespace(work_dir=str(tmp_path))
    files, outputs = "lungdet_mmdet.apis.config_file", "lungdet_mmdet.evaluation.outputs"
    read = record(monkeypatch, f"{files}.read_config", config)
    data = record(monkeypatch, f"{files}.check_data")
    leaks = record(monkeypatch, f"{files}.check_config_leaks", ("leak",))
    record(monkeypatch, f"{files}.check_prep_pipeline", ("prep",))
    joined = record(monkeypatch, "lungdet_mmdet.engine.run_setup.join_processes")
    outcome = SimpleNamespace(run="run", scores="scores", depth_gain="gain", submission_path="s")
    calls = record(monkeypatch, "lungdet_mmdet.evaluation.slab_test.run_slab_test", outcome)
    tables = record(monkeypatch, f"{outputs}.print_table")
    metrics = record(monkeypatch, f"{outputs}.write_metrics", "metrics.json")
    reports = record(monkeypatch, f"{outputs}.write_report", "report.html")
    shown = record(monkeypatch, f"{outputs}.write_overlays", 4)
    for given in ([], options):
        assert training.run_test(["C.py", "m.pth", *given]) == 0
    assert read[1] == {
        "path": Path("C.py"), "data": Path("D"), "work_dir": tmp_path,
        "cfg_options": {"train_cfg.max_epochs": 3},
    }  # fmt: skip
    assert [call["parts"] for call in data] == [("test",), ("val",)]
    assert [call["allow"] for call in leaks] == [False, True]
    assert [call["launcher"] for call in joined] == ["none", "pytorch"]
    always = {"config": config, "checkpoint": Path("m.pth"), "warnings": ("leak", "prep")}
    assert calls == [
        {**always, "split": "test", "predictions": None, "threshold": None, "n_resamples": 1000,
         "compare_midplane": False, "allow_leak": False},
        {**always, "split": "val", "predictions": Path("P.json"), "threshold": 0.25,
         "n_resamples": 20, "compare_midplane": True, "allow_leak": True},
    ]  # fmt: skip
    assert len(tables) == len(metrics) == 2
    assert len(reports) == 1  # --no-report
    assert shown == [{"outcome": outcome, "folder": Path("S"), "min_score": 0.6}]
    assert "depth:      gain" in capsys.readouterr().out


def test_each_of_several_sets_has_its_own_files(monkeypatch, tmp_path):
    monkeypatch.setenv("LOCAL_RANK", "0")
    calls = record(monkeypatch, "lungdet_mmdet.commands.training._test")
    monkeypatch.setattr("lungdet_mmdet.scoring.run_files.read_run", str)
    monkeypatch.setattr("lungdet_mmdet.scoring.run_files.comparison_of_sets", str)
    options = shlex.split(f"{OPTIONS.replace('--launcher pytorch', '')} --data a b")
    for given in (["--work-dir", "W"], []):
        assert training.run_test(["C.py", "m.pth", *options, *given]) == 0
    folders = [call["args"].work_dir for call in calls]
    assert folders == [Path(root) / name for root in ("W", "work_dirs/C") for name in "ab"]
    for call, name in zip(calls, "abab", strict=True):
        args = call["args"]
        assert (args.data, args.threshold) == (Path(name), 0.25)
        assert (args.show_dir, args.out) == (Path("S") / name, Path(name) / "P.json")
