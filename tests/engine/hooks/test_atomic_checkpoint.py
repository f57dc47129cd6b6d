"""Runs that are cut off at the worst moments end, once resumed, as undisturbed ones."""

import errno
import os
from pathlib import Path

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import Runner

import lungdet_mmdet.plugin  # noqa: F401
from lungdet_mmdet.engine.hooks import checkpoints as atomic_checkpoint
from lungdet_mmdet.runs import atomic_files
from lungdet_mmdet.runs.atomic_files import DiskFullError
from lungdet_mmdet.splits.coco_checks import SERIES_KEY, series_digest

pytestmark = pytest.mark.reliability("train cut off in a write, a removal, a validation")

# By epoch: the second is the best, the third worse.
SCORES = {1: 0.5, 2: 0.9, 3: 0.1}


class CutOff(BaseException):
    """As a kill: nothing catches it."""


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, inputs, data_samples=None, mode="tensor"):
        return {"loss": (self.weight - 1).square().sum()} if mode == "loss" else [0]


class Score(BaseMetric):
    """Score of the epoch from the table; may cut the run off."""

    default_prefix = "lung"

    def __init__(self, cut_off_at=None):
        super().__init__()
        self.cut_off_at = cut_off_at
        self.runner = None

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        if self.runner.epoch == self.cut_off_at:
            raise CutOff
        return {"AP50": SCORES[self.runner.epoch]}


class OneSlab(torch.utils.data.Dataset):
    def __getitem__(self, index):
        return {"inputs": 0}

    def __len__(self):
        return 1


@pytest.fixture
def train(tmp_path):
    """Trains three epochs, or goes on with them."""

    def run(*, resume=False, cut_off_at=None, keep=2, load_from=None):
        loader = {
            "batch_size": 1, "num_workers": 0, "dataset": OneSlab(),
            "sampler": {"type": "DefaultSampler", "shuffle": False},
        }  # fmt: skip
        metric = Score(cut_off_at)
        runner = Runner(
            model=Model(),
            work_dir=str(tmp_path / "run"),
            train_dataloader=loader,
            val_dataloader=loader,
            train_cfg={"by_epoch": True, "max_epochs": 3, "val_interval": 1},
            val_cfg={},
            optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1}},
            val_evaluator=[metric],
            default_hooks={
                "checkpoint": {
                    "type": "AtomicCheckpointHook", "interval": 1, "max_keep_ckpts": keep,
                    "save_best": "lung/AP50", "rule": "greater",
                },
            },
            resume=resume,
            load_from=load_from,
            default_scope="mmdet",
            log_level="ERROR",
            experiment_name=f"{tmp_path.name}_{resume}",
        )  # fmt: skip
        metric.runner = runner
        runner.train()

    return run


@pytest.fixture
def checkpoints(tmp_path):
    def read():
        folder = tmp_path / "run"
        return {
            path.name: float(torch.load(path, weights_only=False)["state_dict"]["weight"])
            for path in folder.glob("*.pth")
        }

    return read


# The weight after one, two, three steps of 0.2 of the way to 1.
WHOLE = {"epoch_2.pth": 0.36, "epoch_3.pth": 0.488, "best_lung_AP50_epoch_2.pth": 0.36}


def test_the_last_two_and_the_best_are_kept(train, checkpoints, tmp_path):
    train()
    assert checkpoints() == pytest.approx(WHOLE)
    assert (tmp_path / "run" / "last_checkpoint").read_text().endswith("epoch_3.pth")


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_validation_cut_off_is_made_up_for(train, checkpoints, epoch):
    with pytest.raises(CutOff):
        train(cut_off_at=epoch)
    assert f"best_lung_AP50_epoch_{epoch}.pth" not in checkpoints()
    train(resume=True)
    assert checkpoints() == pytest.approx(WHOLE)


def test_a_validation_that_is_done_is_not_repeated(train, checkpoints):
    train()
    train(resume=True, cut_off_at=2)  # the latest checkpoint is the third's
    with pytest.raises(CutOff):
        train(resume=True, cut_off_at=3)  # which no validation has been saved in


# How many writes and removals there are in an undisturbed run; one more is none.
N_WRITES = 7


def _cut_off_at_write(monkeypatch, number):
    """Cut the run off in the midst of its so manieth write of a checkpoint."""
    replace, count = os.replace, 0

    def counting(source, destination):
        nonlocal count
        if str(destination).endswith(".pth"):
            count += 1
            if count == number:
                Path(source).write_bytes(b"half")
                raise CutOff
        replace(source, destination)

    monkeypatch.setattr(atomic_files.os, "replace", counting)


@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("write", range(1, N_WRITES + 1))
def test_cut_off_in_the_midst_of_a_write(train, checkpoints, monkeypatch, write, keep):
    with monkeypatch.context() as patch:
        _cut_off_at_write(patch, write)
        with pytest.raises(CutOff):
            train(keep=keep)
    if write > 1:
        assert checkpoints()
    train(resume=True, keep=keep)
    kept = WHOLE if keep == 2 else {n: w for n, w in WHOLE.items() if n != "epoch_2.pth"}
    assert checkpoints() == pytest.approx(kept)


@pytest.mark.parametrize("removal", [1, 2])
def test_cut_off_before_a_removal(train, checkpoints, monkeypatch, removal):
    remove, count = atomic_checkpoint.AtomicLocalBackend.remove, 0

    def counting(self, path):
        nonlocal count
        count += 1
        if count == removal:
            raise CutOff
        remove(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(atomic_checkpoint.AtomicLocalBackend, "remove", counting)
        with pytest.raises(CutOff):
            train()
    train(resume=True)
    assert checkpoints() == pytest.approx(WHOLE)


def test_a_full_disk_names_the_remedy_and_leaves_the_checkpoints_whole(
    train, checkpoints, monkeypatch
):
    replace = os.replace

    def full(source, destination):
        if str(destination).endswith("epoch_2.pth"):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, destination)

    with monkeypatch.context() as patch:
        patch.setattr(atomic_files.os, "replace", full)
        with pytest.raises(DiskFullError, match="free some space"):
            train()
    assert checkpoints() == pytest.approx({"epoch_1.pth": 0.2, "best_lung_AP50_epoch_1.pth": 0.2})
    train(resume=True)
    assert checkpoints() == pytest.approx(WHOLE)


def test_what_was_learnt_from_before_is_named_too(train, tmp_path):
    begun_with = tmp_path / "begun_with.pth"
    meta = {SERIES_KEY: {"old": "strict 1"}}
    torch.save({"state_dict": {"weight": torch.zeros(1)}, "meta": meta}, begun_with)

    def named(epoch):
        path = tmp_path / "run" / f"epoch_{epoch}.pth"
        return torch.load(path, weights_only=False)["meta"][SERIES_KEY]

    with pytest.raises(CutOff):
        train(load_from=str(begun_with), cut_off_at=1)
    assert named(1) == {series_digest("old"): "strict 1"}
    train(resume=True)
    assert named(3) == {series_digest("old"): "strict 1"}
