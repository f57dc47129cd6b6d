"""A run that is killed and resumed gives the losses of one that was never interrupted."""

import json
import os
import signal
import subprocess
import sys

import pytest

KILLER = """
import os, signal
from mmdet.registry import HOOKS
from mmengine.hooks import Hook

@HOOKS.register_module()
class KillHook(Hook):
    def __init__(self, iteration):
        self.iteration = iteration
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == self.iteration:
            os.kill(os.getpid(), signal.SIGKILL)
"""
BY_ITERATION = """
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=9, val_interval=20)
param_scheduler = [dict(type='StepLR', step_size=8, by_epoch=False)]
default_hooks = dict(
    logger=dict(interval=1),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=3))
"""
INFINITE = (
    BY_ITERATION
    + "train_dataloader['sampler'] = dict(_delete_=True, type='InfiniteSampler', shuffle=True)"
)
KILLED = """
custom_imports = dict(imports=['lungdet_mmdet.plugin', 'killer'], allow_failed_imports=False)
custom_hooks = [*_base_.custom_hooks, dict(type='KillHook', iteration={iteration})]
"""


def losses(work_dir):
    """Loss by iteration, of all the logs of a work directory."""
    found = {}
    for path in sorted(work_dir.glob("*/vis_data/scalars.json")):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            if "loss" in row:
                found[row.get("iter", row["step"])] = (row["loss"], row["loss_bbox"])
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    # Killed in the third epoch; killed after the checkpoint of iteration 3, in the second pass over
    # the data, with one batch of two accumulated.
    ("lines", "iteration", "total"),
    [("", 12, 15), (BY_ITERATION, 7, 9), (INFINITE, 7, 9)],
    ids=["by epoch", "by iteration", "by iteration, skipping what was trained"],
)
@pytest.mark.reliability("a process killed at a chosen point of train (to 1e-6)")
def test_killed_and_resumed_equals_uninterrupted(
    repository, tiny_config, run_tool, tmp_path, lines, iteration, total
):
    config = tiny_config(lines)
    assert run_tool("train.py", config, "--work-dir", tmp_path / "whole") == 0
    whole = losses(tmp_path / "whole")
    assert len(whole) == total

    (tmp_path / "killer.py").write_text(KILLER)
    config = tiny_config(lines + KILLED.format(iteration=iteration))
    done = subprocess.run(
        [sys.executable, repository / "tools" / "train.py", config, "--work-dir", tmp_path / "cut"],
        env={**os.environ, "PYTHONPATH": f"{repository}:{tmp_path}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
    before = losses(tmp_path / "cut")
    assert 0 < len(before) < total

    config = tiny_config(lines)
    assert run_tool("train.py", config, "--work-dir", tmp_path / "cut", "--resume") == 0
    resumed = losses(tmp_path / "cut")
    assert set(resumed) == set(whole)
    for step, values in whole.items():
        assert resumed[step] == pytest.approx(values, rel=1e-6), step


def test_resuming_nothing_starts_anew_with_the_initial_weights(tiny_config, run_tool, tmp_path):
    from lungdet_mmdet.errors import LungDetError

    # The initial weights are still asked for: here by a path that is not there.
    with pytest.raises(LungDetError, match="pretrained weights cannot be had"):
        run_tool(
            "train.py", tiny_config(), "--work-dir", tmp_path / "new", "--resume",
            "--pretrained", tmp_path / "none.pth",
        )  # fmt: skip


def test_resuming_from_a_file_that_is_not_there(tiny_config, run_tool, tmp_path):
    from lungdet_mmdet.errors import LungDetError

    with pytest.raises(LungDetError, match=r"cannot resume from .*epoch_9\.pth"):
        run_tool("train.py", tiny_config(), "--resume", tmp_path / "epoch_9.pth")
