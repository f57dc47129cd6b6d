"""What a run says, and where it stops, when its loss or its data are no good."""

import pytest

from lungdet_mmdet.errors import LungDetError

# The first slab of a series is healthy.
BAD = """
model['bbox_head'] = dict(loss_iou=dict(loss_weight=float('nan')))
train_dataloader['num_workers'] = 0
val_dataloader['dataset']['indices'] = 1
"""


def test_a_bad_loss_stops_with_its_slabs_and_a_useless_validation_set_is_named(
    tiny_config, run_tool, tmp_path, capsys
):
    with pytest.raises(LungDetError) as caught:
        run_tool("train.py", tiny_config(BAD), "--work-dir", tmp_path / "run")
    message = str(caught.value)
    assert message.startswith("iteration 1 (epoch 1): loss = nan, ")
    assert "loss_iou = nan" in message
    assert "loss_bbox" not in message
    slabs = message.split("Slabs of the batch: ")[1].split(". Look")[0].split("; ")
    assert len(slabs) == 3
    assert all(slab.startswith("2.999.7426866.9.0.") and " slab " in slab for slab in slabs)
    assert not list((tmp_path / "run").glob("*.pth"))
    (log,) = (tmp_path / "run").glob("*/*.log")
    text, shown = log.read_text(), "".join(capsys.readouterr())
    assert "the validation set has no slab with a nodule" in text
    # The terminal has what there is to be read, the file all that may be looked up.
    assert "the validation set has no slab with a nodule" in shown
    for looked_up in ("Config:\n", "System environment:", "Hooks will be"):
        assert looked_up in text
        assert looked_up not in shown
    assert len(shown.splitlines()) < 60
