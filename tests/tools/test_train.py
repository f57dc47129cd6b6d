import json
import os
import runpy
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config

from lungdet_mmdet.commands import training
from lungdet_mmdet.engine import run_setup
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.atomic_files import DiskFullError
from lungdet_mmdet.runs.command_line import Terminated
from lungdet_mmdet.splits.split_writer import write_splits
from tests.support.command_calls import left_alone, record
from tests.support.slab_folder import write_slab_folder


@pytest.fixture
def prepared(tmp_path, monkeypatch, repository):
    """A prepared folder whose manifest names the main config's pipeline."""
    from lungdet_mmdet.preparation.prep_pipeline import prep_steps

    monkeypatch.setenv("LUNGDET_DATA", "unused")
    config = Config.fromfile(repository / "configs" / "lung_deform_detr.py")
    steps = prep_steps(config, source="main config")
    folder = write_slab_folder(tmp_path / "data", n_series=6, n_slabs=2, prep_pipeline=steps)
    write_splits(folder, protocol="strict")
    return folder


class StoppedBeforeBuildingError(Exception):
    """Raised in place of building the run."""


@pytest.fixture
def train(repository, prepared, tmp_path, monkeypatch):
    """Runs tools/train.py as far as the runner, and returns the config it would build."""
    built = []

    class StopRunner:
        @classmethod
        def from_cfg(cls, config):
            built.append(config)
            raise StoppedBeforeBuildingError

    monkeypatch.setattr(run_setup, "QuietRunner", StopRunner)
    main = runpy.run_path(str(repository / "tools" / "train.py"))["main"]

    def run(name="lung_deform_detr.py", *arguments, pretrained="none"):
        config = repository / "configs" / name
        start = [] if pretrained is None else ["--pretrained", str(pretrained)]
        with pytest.raises(StoppedBeforeBuildingError):
            main(
                [str(config), "--data", str(prepared), "--work-dir", str(tmp_path / "run"),
                 *start, *map(str, arguments)]
            )  # fmt: skip
        return built[-1]

    return run


def leak(prepared):
    """Put a training series on the validation side, too."""
    train, val = (prepared / "annotations" / f"{part}.json" for part in ("train", "val"))
    content = json.loads(val.read_text())
    content["series"].append(json.loads(train.read_text())["series"][0])
    val.write_text(json.dumps(content))


def test_a_sound_split_passes(train):
    config = train()
    assert config.model.backbone.init_cfg is None
    assert config.work_dir.endswith("run")


def test_a_leaking_split_stops_the_run_with_the_series(train, prepared):
    leak(prepared)
    with pytest.raises(LungDetError, match=r"the split leaks: 1 series .*2\.999\.7426866"):
        train()
    train("lung_deform_detr.py", "--allow-leak")


def test_slabs_of_another_pipeline_stop_the_run(train):
    with pytest.raises(LungDetError) as caught:
        train("lung_deform_detr_mip10.py")
    message = str(caught.value)
    assert '"thickness_mm": 10' in message
    assert '"thickness_mm": 7.5' in message
    assert "lungdet prepare" in message
    assert "order" not in message
    train("lung_deform_detr_mip10.py", "--allow-other-prep")


def test_another_order_of_the_same_steps_is_another_pipeline(train):
    with pytest.raises(LungDetError, match="steps are the same, their order differs"):
        train("lung_deform_detr_clahe_after.py")


def test_pixels_of_another_version_stop_the_run(train, prepared):
    path = prepared / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pixels_version": 1}))
    with pytest.raises(LungDetError, match="Their pixels are of version 1, those of this package"):
        train()
    train("lung_deform_detr.py", "--allow-other-prep")


def test_the_mask_method_may_differ(train, prepared):
    path = prepared / "manifest.json"
    text = path.read_text()
    assert '"otsu"' in text
    path.write_text(text.replace('"otsu"', '"luna16"'))
    train()


def test_an_initial_checkpoint_replaces_the_backbones_weights(train, tmp_path):
    (tmp_path / "coco.pth").touch()
    config = train("lung_deform_detr.py", "--load-from", tmp_path / "coco.pth")
    assert config.load_from == str(tmp_path / "coco.pth")
    assert config.custom_hooks[-1].type == "FitCheckpointHook"


def test_a_checkpoint_to_start_from_stays_in_the_folder_of_the_run(train, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for number in (1, 2):
        torch.save({"meta": {}}, folder / f"epoch_{number}.pth")
    train("lung_deform_detr.py", "--load-from", folder / "epoch_1.pth", pretrained=None)
    (aside,) = folder.glob("before_*")
    assert [path.name for path in aside.iterdir()] == ["epoch_2.pth"]
    assert (folder / "epoch_1.pth").is_file()


def test_resuming_takes_the_latest_checkpoint(train, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    torch.save({"meta": {}}, folder / "epoch_4.pth")
    (folder / "last_checkpoint").write_text(str(folder / "epoch_4.pth"))
    config = train("lung_deform_detr.py", "--resume", pretrained=None)
    assert config.resume is True
    assert config.load_from == str(folder / "epoch_4.pth")
    # The checkpoint has the backbone's weights: none are fetched.
    assert config.model.backbone.init_cfg is None


def test_resuming_with_nothing_there_starts_anew(train):
    config = train("lung_deform_detr.py", "--resume")
    assert not config.resume
    assert config.load_from is None


def test_tensorboard_is_used_where_it_is_installed(train, monkeypatch):
    import importlib.machinery
    import importlib.util

    find_spec = importlib.util.find_spec
    spec = importlib.machinery.ModuleSpec("tensorboard", None)

    def with_tensorboard(installed):
        def find(name, package=None):
            if name == "tensorboard":
                return spec if installed else None
            return find_spec(name, package)

        return find

    for installed in (True, False):
        monkeypatch.setattr(importlib.util, "find_spec", with_tensorboard(installed))
        types = [backend.type for backend in train().visualizer.vis_backends]
        assert types == ["LocalVisBackend"] + ["TensorboardVisBackend"] * installed


def test_a_second_training_in_the_same_folder_is_refused(train, tmp_path, monkeypatch):
    from lungdet_mmdet.commands import training
    from lungdet_mmdet.runs.atomic_files import only_run_in

    monkeypatch.setattr(training, "LOADERS_LEAVE_S", 0.1)
    with (
        only_run_in(tmp_path / "run"),
        pytest.raises(LungDetError, match="another run is writing there"),
    ):
        train()
    train()  # free again


def test_a_gpu_that_torch_cannot_use_stops_training_with_a_way_out(train, monkeypatch):

    from lungdet_mmdet import doctor as hardware

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(hardware.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    with pytest.raises(LungDetError, match="finds no usable GPU.*CUDA_VISIBLE_DEVICES="):
        train()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    train()


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, Terminated, DiskFullError])
def test_an_interrupted_training_names_the_option_that_goes_on(train, monkeypatch, interrupt):
    class InterruptedRunner:
        @classmethod
        def from_cfg(cls, config):
            return cls()

        def train(self):
            raise interrupt

    monkeypatch.setattr(run_setup, "QuietRunner", InterruptedRunner)
    with pytest.raises(interrupt, match="--resume"):
        train()


def test_every_option_arrives(monkeypatch, tmp_path):
    monkeypatch.setenv("LOCAL_RANK", "0")  # so that what the command sets is forgotten
    (tmp_path / "coco.pth").touch()
    options = shlex.split(
        f"--data D --work-dir '{tmp_path}' --load-from '{tmp_path}/coco.pth' --amp"
        " --pretrained none --resume e.pth --allow-leak --allow-other-prep --auto-scale-lr"
        " --launcher pytorch --cfg-options train_cfg.max_epochs=3 --local_rank 3"
    )
    assert left_alone(training.train_options, ["C.py"], options) == {"config"}
    monkeypatch.delenv("LOCAL_RANK")
    model = {"backbone": {"type": "ResNet"}}
    config = Config({"work_dir": str(tmp_path), "model": model, "auto_scale_lr": {"enable": False}})
    files, setup = "lungdet_mmdet.apis.config_file", "lungdet_mmdet.engine.run_setup"
    read = record(monkeypatch, f"{files}.read_config", config)
    data = record(monkeypatch, f"{files}.check_data")
    leaks = record(monkeypatch, f"{files}.check_config_leaks", ())
    prep = record(monkeypatch, f"{files}.check_prep_pipeline", ())
    monkeypatch.setattr("lungdet_mmdet.doctor.unused_gpu", lambda: None)
    amp, joined, pretrained, resumed = (
        record(monkeypatch, f"{setup}.{name}", answer)
        for name, answer in (
            ("use_amp", None), ("join_processes", None), ("choose_pretrained", None),
            ("resume_from", False),
        )
    )  # fmt: skip
    for name in ("fall_back_from_amp", "choose_log_backends"):
        record(monkeypatch, f"{setup}.{name}")
    kept = record(monkeypatch, f"{setup}.set_aside")
    told = record(monkeypatch, "mmengine.logging.print_log")
    built = []
    runner = SimpleNamespace(train=lambda: None)
    monkeypatch.setattr(
        run_setup, "QuietRunner", SimpleNamespace(from_cfg=lambda c: built.append(c) or runner)
    )
    assert training.train(["C.py", *options]) == 0
    assert os.environ["LOCAL_RANK"] == "3"
    assert config.auto_scale_lr.enable is True
    assert config.load_from == f"{tmp_path}/coco.pth"
    config.merge_from_dict({"load_from": None, "auto_scale_lr.enable": False})
    assert training.train(["C.py", "--pretrained", "own.pth"]) == 0
    assert (config.load_from, config.auto_scale_lr.enable) == (None, False)
    assert built == [config] * 2
    assert read[0] == {
        "path": Path("C.py"), "data": Path("D"), "work_dir": tmp_path,
        "cfg_options": {"train_cfg.max_epochs": 3},
    }  # fmt: skip
    assert data[1]["parts"] == ("train", "val")
    assert [call["allow"] for call in (*leaks, *prep)] == [True, False] * 2
    assert len(amp) == 1
    assert [call["launcher"] for call in joined] == ["pytorch", "none"]
    assert [call["choice"] for call in pretrained] == ["none", "own.pth"]
    assert [call["choice"] for call in resumed] == ["e.pth"]
    assert sum("no checkpoint to resume from" in call["msg"] for call in told) == 1
    assert [call["keep"] for call in kept] == [f"{tmp_path}/coco.pth", "own.pth"]
