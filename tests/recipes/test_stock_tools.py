"""mmdet's own tools run on this package's configs as they are."""

import importlib.util
import json

import pytest
import torch

from lungdet_mmdet.splits.coco_checks import series_digest

ONE_EPOCH = """
train_cfg = dict(max_epochs=1, val_interval=1)
train_dataloader['num_workers'] = 0
# Visualizers are global by name, and other runs of this process have taken the config's.
visualizer = dict(name='stock')
"""


@pytest.fixture
def stock(run_tool, monkeypatch):
    """Calls one of mmdet's tools by name."""
    import sys

    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "path", list(sys.path))
    return lambda *arguments: run_tool("stock.py", *arguments)


@pytest.mark.slow
def test_train_test_curves_and_inferencer(stock, tiny_config, slab_folder, tmp_path):
    config, run = tiny_config(ONE_EPOCH), tmp_path / "run"
    stock("train", config, "--work-dir", run)
    checkpoint = run / "epoch_1.pth"
    learnt = json.loads((slab_folder / "annotations" / "train.json").read_text())["series"]
    noted = torch.load(checkpoint, weights_only=False)["meta"]["training_series"]
    assert set(noted) == set(map(series_digest, learnt))

    stock("test", config, checkpoint, "--work-dir", tmp_path / "tested")
    (scores,) = (tmp_path / "tested").glob("*/*.json")
    assert json.loads(scores.read_text())["lung/n_slabs"] == 3

    (curves,) = run.glob("*/vis_data/scalars.json")
    plot = tmp_path / "loss.png"
    # Its styles are seaborn's where that is installed, else matplotlib's.
    style = "dark" if importlib.util.find_spec("seaborn") else "default"
    stock("analyze_logs", "plot_curve", curves, "--keys", "loss", "--style", style, "--out", plot)
    assert plot.stat().st_size > 0

    from mmdet.apis import DetInferencer

    inferencer = DetInferencer(
        model=str(config), weights=str(checkpoint), device="cpu", show_progress=False
    )
    slab = sorted(slab_folder.glob("slabs/*/001.png"))[0]
    found = inferencer(str(slab), out_dir=str(tmp_path / "inferred"))["predictions"][0]
    assert len(found["scores"]) == 10  # one per query
    assert (tmp_path / "inferred" / "vis" / "001.png").is_file()


@pytest.mark.slow
def test_browsing_flops_and_loading_speed(stock, tiny_config, tmp_path, capsys):
    config = tiny_config(ONE_EPOCH)
    pictures = tmp_path / "pictures"
    stock("browse_dataset", config, "--output-dir", pictures, "--not-show", "--show-interval", "0")
    assert len(list(pictures.glob("*.png"))) == 3  # named by the slab's file name alone
    stock("get_flops", config, "--num-images", "1")
    assert "Params:" in capsys.readouterr().out
    stock("benchmark", config, "--task", "dataloader", "--dataset-type", "train",
          "--max-iter", "2", "--num-warmup", "1", "--work-dir", tmp_path)  # fmt: skip
    assert "fps" in (tmp_path / "benchmark.log").read_text()


def test_unknown_tools_are_refused(stock):
    from lungdet_mmdet.errors import LungDetError

    with pytest.raises(LungDetError, match="no tool 'trane'; --list"):
        stock("trane")
