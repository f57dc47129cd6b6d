"""The folder of the data reaches a config as a value, never as Python text."""

from pathlib import Path

import pytest

from lungdet_mmdet.apis.config_file import read_config

pytestmark = pytest.mark.reliability("folder names and loaders in configs")

CONFIG = Path(__file__).parents[2] / "configs" / "lung_deform_detr.py"


@pytest.mark.parametrize(
    "name",
    ["plain", "o'brien", 'say "hi"', "tab\\test", "back\\new", "{{$HOME:x}}", "a'; import os; '",
     "'+str(open('ran', 'w'))+'"],
)  # fmt: skip
@pytest.mark.parametrize("by_option", [True, False])
def test_any_folder_name_stays_what_it_is(tmp_path, monkeypatch, name, by_option):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / name
    monkeypatch.setenv("LUNGDET_DATA", "elsewhere" if by_option else str(folder))
    config = read_config(CONFIG, data=folder if by_option else None)
    assert config.data_root == str(folder)
    assert config.train_dataloader.dataset.data_root == str(folder)
    assert config.val_evaluator[0].ann_file == f"{folder}/annotations/val.json"
    assert list(tmp_path.iterdir()) == []


def test_a_config_that_a_run_has_written_is_moved_to_other_data(tmp_path, monkeypatch):
    monkeypatch.setenv("LUNGDET_DATA", "elsewhere")
    written = tmp_path / "written.py"
    read_config(CONFIG, data=Path("one"), work_dir=Path("one/work")).dump(written)

    config = read_config(written, data=Path("one-b"))
    assert config.val_dataloader.dataset.data_root == "one-b"
    assert config.val_evaluator[0].ann_file == "one-b/annotations/val.json"
    assert config.work_dir == "one/work"
    assert read_config(written).data_root == "one"


def test_loaders_without_workers_can_be_built():
    import lungdet_mmdet.plugin  # noqa: F401

    parts = ("train", "val", "test")
    options = {f"{part}_dataloader.num_workers": 0 for part in parts}
    config = read_config(CONFIG, cfg_options=options)
    assert not any(config[f"{part}_dataloader"].persistent_workers for part in parts)


@pytest.mark.parametrize(("processes", "rate"), [(1, 1e-4), (4, 4e-4)])
def test_the_scaled_rate_is_of_slabs_per_update(processes, rate):
    # One process of 6 slabs and 6 accumulated batches is what the rate was chosen for.
    import logging
    from types import SimpleNamespace

    import torch
    from mmengine.optim import OptimWrapper
    from mmengine.runner import Runner

    config = read_config(CONFIG)
    config.auto_scale_lr.enable = True
    weights = [torch.nn.Parameter(torch.zeros(1))]
    optimizer = torch.optim.AdamW(weights, lr=config.optim_wrapper.optimizer.lr)
    wrapper = OptimWrapper(optimizer, accumulative_counts=6)
    runner = SimpleNamespace(
        _train_dataloader=config.train_dataloader,
        world_size=processes,
        logger=logging.getLogger("x"),
        param_schedulers=[],
    )
    Runner.scale_lr(runner, wrapper, config.auto_scale_lr)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(rate)
