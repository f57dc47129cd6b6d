import json
import shlex
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lungdet_mmdet.commands import scoring as command
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.scoring.run_files import Marks, write_submission
from lungdet_mmdet.scoring.split_scores import pooled_froc
from lungdet_mmdet.splits.coco_json import read_slab_set
from lungdet_mmdet.splits.split_writer import write_splits
from tests.support.command_calls import left_alone, record
from tests.support.slab_folder import write_slab_folder


class Runs:
    """Stands in for training and testing: writes the checkpoint, and a mark on every nodule."""

    def __init__(self):
        self.calls = []

    def __call__(self, tool, config, *arguments):
        folder = config.parent
        self.calls.append((tool, folder.name))
        if tool == "train":
            (folder / "epoch_1.pth").touch()
            (folder / "last_checkpoint").write_text(str(folder / "epoch_1.pth"))
            return
        assert arguments[0] == folder / "epoch_1.pth"
        nodules = read_slab_set(folder / "annotations" / "test.json").nodules
        marks = Marks(
            tuple(n.seriesuid for n in nodules),
            np.array([n.centre_xyz_mm for n in nodules]),
            np.ones(len(nodules)),
        )
        write_submission(folder / "submission.csv", marks)


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    folder = write_slab_folder(tmp_path / "data", n_series=20, n_slabs=2)
    monkeypatch.setenv("LUNGDET_DATA", str(folder))
    return folder


@pytest.fixture
def cross_validate(repository, prepared, tmp_path, monkeypatch):
    """The tool on folds 0 and 3, with training and testing stood in for."""
    runs = Runs()
    monkeypatch.setattr(command, "_run", runs)

    def run(*arguments):
        config = str(repository / "configs" / "lung_deform_detr.py")
        folders = ["--data", str(prepared), "--work-dir", str(tmp_path / "cv")]
        command.cross_validate(
            [config, *folders, "--folds", "0", "3", "--bootstrap", "0", *arguments]
        )
        return runs.calls

    return run


def test_folds_are_trained_tested_and_pooled(cross_validate, tmp_path):
    calls = cross_validate("--bootstrap", "20")
    both = ("train", "test")
    assert calls == [(tool, f"fold_{number}") for number in (0, 3) for tool in both]
    result = json.loads((tmp_path / "cv" / "froc.json").read_text())
    # Two series per subset, one nodule in each, every one marked and nothing else.
    assert result["n_scans"] == result["n_nodules"] == result["true_positives"] == 4
    assert result["cpm"] == 1.0
    assert result["cpm_ci95"] is not None
    assert result["folds"] == [0, 3]
    assert len((tmp_path / "cv" / "submission.csv").read_text().splitlines()) == 5


def test_each_fold_has_its_own_annotations_in_its_config(cross_validate, prepared, tmp_path):
    from mmengine.config import Config

    cross_validate()
    config = Config.fromfile(tmp_path / "cv" / "fold_3" / "config.py")
    folder = tmp_path / "cv" / "fold_3" / "annotations"
    for part in ("train", "val", "test"):
        dataset = config[f"{part}_dataloader"].dataset
        assert dataset.ann_file == str(folder / f"{part}.json")
        assert dataset.data_root == str(prepared)
    assert {e.ann_file for e in config.test_evaluator} == {str(folder / "test.json")}
    assert {e.ann_file for e in config.val_evaluator} == {str(folder / "val.json")}


def test_finished_folds_are_not_run_again(cross_validate, tmp_path):
    assert len(cross_validate()) == 4
    assert len(cross_validate()) == 4  # none added
    state = tmp_path / "cv" / "fold_3" / "fold.json"
    state.write_text(state.read_text().replace("true", "false"))  # as if it had been interrupted
    assert cross_validate()[4:] == [("train", "fold_3"), ("test", "fold_3")]


def test_another_number_of_loading_processes_is_the_same_fold(cross_validate, monkeypatch):
    monkeypatch.setenv("LUNGDET_WORKERS", "1")
    assert len(cross_validate()) == 4
    monkeypatch.setenv("LUNGDET_WORKERS", "3")
    assert len(cross_validate()) == 4


def test_labels_of_a_fold_are_those_of_the_folders_split(cross_validate, prepared, tmp_path):
    write_splits(
        prepared, labels="sphere", min_overlap_mm=0.6, excluded="background", patients={"9.9": "x"}
    )
    cross_validate()
    info = json.loads((tmp_path / "cv" / "fold_3" / "annotations" / "train.json").read_text())[
        "info"
    ]
    made = {key: info[key] for key in ("labels", "min_overlap_mm", "excluded", "protocol")}
    assert made == {
        "labels": "sphere", "min_overlap_mm": 0.6, "excluded": "background", "protocol": "fold"
    }  # fmt: skip


@pytest.mark.parametrize(
    "other",
    [("--cfg-options", "train_cfg.max_epochs=3"), ("--seed", "5"), ("--pretrained", "none")],
)
def test_another_config_in_the_same_folder_is_refused_and_leaves_it(
    cross_validate, tmp_path, other
):
    cross_validate()
    files = [path for path in (tmp_path / "cv").rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    with pytest.raises(LungDetError, match="fold_0: was begun with another config"):
        cross_validate(*other)
    assert {path: path.read_bytes() for path in files} == before


def test_a_series_tested_twice_is_refused(cross_validate, tmp_path):
    cross_validate()
    slab_set = read_slab_set(tmp_path / "cv" / "fold_0" / "annotations" / "test.json")
    nothing = Marks((), np.empty((0, 3)), np.empty(0))
    with pytest.raises(LungDetError, match="2 folds, 2 series in several of them"):
        pooled_froc([(slab_set, nothing), (slab_set, nothing)], n_resamples=0)


def test_pooling_uses_one_threshold_for_all_folds(cross_validate, tmp_path):
    # Two folds of two scans with a nodule each. The first model marks its nodules at 0.2 and
    # nothing else; the second marks a place without a nodule at 0.9 in each scan, nodules at 0.1.
    cross_validate()
    folds = []
    for number, hit, false in ((0, 0.2, None), (3, 0.1, 0.9)):
        path = tmp_path / "cv" / f"fold_{number}" / "annotations" / "test.json"
        slab_set = read_slab_set(path)
        rows = [(n.seriesuid, n.centre_xyz_mm, hit) for n in slab_set.nodules]
        if false is not None:
            rows += [(n.seriesuid, (900.0, 900.0, 900.0), false) for n in slab_set.nodules]
        uids, centres, scores = zip(*rows, strict=True)
        folds.append((slab_set, Marks(uids, np.array(centres), np.array(scores))))
    result = pooled_froc(folds, n_resamples=0)
    # Two false positives in four scans come before any hit: nothing below 0.5 per scan.
    assert result.sensitivities[:2] == pytest.approx([0.0, 0.0], abs=1e-6)
    assert result.sensitivities[3:] == pytest.approx([1.0] * 4)
    assert result.matches.false_positives == 2


def test_every_option_arrives(monkeypatch):
    required = ["C.py", "--work-dir", "W"]
    options = shlex.split(
        "--data D --folds 3 --seed 5 --pretrained none --cfg-options train_cfg.max_epochs=3"
        " --bootstrap 20"
    )
    unchanged = left_alone(command.cross_validate_options, required, options)
    assert unchanged == {"config", "work_dir"}
    fold = SimpleNamespace(
        number=3, folder="F", config_path="F/config.py", checkpoint=lambda: "best.pth",
        is_done=lambda: False, remember=lambda done: None,
    )  # fmt: skip
    files = "lungdet_mmdet.apis.config_file"
    read = record(monkeypatch, f"{files}.read_config", "config")
    made = record(monkeypatch, f"{files}.make_fold", fold)
    checked = record(monkeypatch, f"{files}.check_data")
    run = record(monkeypatch, "lungdet_mmdet.commands.scoring._run")
    pooled = record(monkeypatch, "lungdet_mmdet.commands.scoring.pool")
    for given in (options, ["--folds", "3"]):
        assert command.cross_validate([*required, *given]) == 0
    overrides = {"train_cfg.max_epochs": 3}
    assert read[0] == {"path": Path("C.py"), "data": Path("D"), "cfg_options": overrides}
    assert made[0] == {
        "config": "config", "work_dir": Path("W"), "number": 3, "seed": 5, "pretrained": "none"
    }  # fmt: skip
    assert [call["config"] for call in checked] == ["config"] * 2
    first, test, again, _ = (call["arguments"] for call in run)
    begin = ("F/config.py", "--work-dir", "F", "--resume")
    assert (first, again) == ((*begin, "--pretrained", "none"), begin)
    assert test == ("F/config.py", "best.pth", "--work-dir", "F")
    assert [call["n_resamples"] for call in pooled] == [20, 1000]
    assert (pooled[0]["folds"], pooled[0]["work_dir"]) == ([fold], Path("W"))
