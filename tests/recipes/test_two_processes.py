"""Two processes on a CPU train together, and measure what one process measures."""

import json
import os
import subprocess
import sys

import pytest

# Five of the six slabs of the validation set: one process gets a slab that the other one has too.
FIVE_SLABS = """
train_cfg = dict(max_epochs=1, val_interval=1)
val_dataloader['dataset']['indices'] = 5
"""


def scores(work_dir):
    (path,) = work_dir.glob("*/vis_data/scalars.json")
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_torchrun_trains_and_measures_the_same(repository, tiny_config, tmp_path):
    from lungdet_mmdet.apis.config_file import read_config

    config = tiny_config(FIVE_SLABS)
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
        *(repository / "tools" / "train.py", config, "--work-dir", tmp_path / "two"),
        *("--launcher", "pytorch"),
    ]
    done = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"},
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
    assert (tmp_path / "two" / "best_lung_AP50_epoch_1.pth").is_file()

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
