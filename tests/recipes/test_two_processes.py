"""Two processes on a CPU train together, and measure what one process measures."""

import json
import math
import os
import subprocess
import sys

import pytest

# Five of the six slabs of the validation set: one process gets a slab that the other one has too.
FIVE_SLABS = """
train_cfg = dict(max_epochs=1, val_interval=1)
val_dataloader['dataset']['indices'] = 5
"""

# mmengine's mixed precision asks for a GPU: this is the same with a CPU's autocast and scaler. One
# slab at a time, because rounding in 16 bits is another in other batches.
AMP = """
custom_imports = dict(imports=['lungdet_mmdet.plugin', 'cpu_amp'], allow_failed_imports=False)
optim_wrapper = dict(
    _delete_=True, type='CpuAmpOptimWrapper', accumulative_counts=2,
    optimizer=dict(type='AdamW', lr=1e-3), clip_grad=dict(max_norm=0.1))
val_cfg = dict(fp16=True)
test_cfg = dict(fp16=True)
val_dataloader['batch_size'] = 1
"""
CPU_AMP = """
import contextlib
import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS

@OPTIM_WRAPPERS.register_module()
class CpuAmpOptimWrapper(AmpOptimWrapper):
    def __init__(self, **kwargs):
        OptimWrapper.__init__(self, **kwargs)
        self._scale_update_param = None
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=1024.0)

    @contextlib.contextmanager
    def optim_context(self, model):
        with torch.autocast('cpu', dtype=torch.bfloat16), OptimWrapper.optim_context(self, model):
            yield
"""


def scores(work_dir):
    (path,) = work_dir.glob("*/vis_data/scalars.json")
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("more", ["", AMP], ids=["fp32", "amp"])
def test_torchrun_trains_and_measures_the_same(
    repository, tiny_config, tmp_path, monkeypatch, more
):
    from lungdet_mmdet.apis.config_file import read_config

    (tmp_path / "cpu_amp.py").write_text(CPU_AMP)
    monkeypatch.syspath_prepend(str(tmp_path))
    config = tiny_config(FIVE_SLABS + more)
    (tmp_path / "elsewhere").mkdir()
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
        *(repository / "tools" / "train.py", config, "--work-dir", tmp_path / "two"),
        *("--launcher", "pytorch"),
    ]
    done = subprocess.run(
        [str(word) for word in command],
        env={
            **os.environ,
            "PYTHONPATH": f"{repository}{os.pathsep}{tmp_path}",
            "OMP_NUM_THREADS": "1",
        },
        cwd=tmp_path / "elsewhere",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = scores(tmp_path / "two")
    # Seven slabs each in batches of three: three iterations instead of five.
    assert [row["iter"] for row in rows if "loss" in row] == [1, 2, 3]
    together = next(row for row in rows if "lung/n_slabs" in row)
    assert together["lung/n_slabs"] == 5
    assert all(math.isfinite(row["loss"]) for row in rows if "loss" in row)
    assert (tmp_path / "two" / "best_lung_AP50_epoch_1.pth").is_file()
    # Machines that share no folder: nothing is handed over by files in the working directory.
    assert list((tmp_path / "elsewhere").iterdir()) == []

    from mmengine.runner import Runner

    alone = read_config(config, work_dir=tmp_path / "one")
    alone.load_from = str(tmp_path / "two" / "epoch_1.pth")
    alone.test_dataloader, alone.test_evaluator = alone.val_dataloader, alone.val_evaluator
    figures = Runner.from_cfg(alone).test()
    assert figures["lung/n_slabs"] == 5
    for key, value in figures.items():
        assert together[key] == pytest.approx(value, abs=1e-6, nan_ok=True), key


def test_other_launchers_need_a_gpu(read_tiny, monkeypatch):
    import torch

    from lungdet_mmdet.engine.run_setup import join_processes
    from lungdet_mmdet.errors import LungDetError

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(LungDetError, match="--launcher slurm needs a GPU .* torchrun"):
        join_processes(read_tiny("lung_deform_detr.py"), "slurm")
