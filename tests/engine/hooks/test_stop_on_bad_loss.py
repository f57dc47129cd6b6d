from types import SimpleNamespace

import pytest
import torch
from mmengine.structures import BaseDataElement

from lungdet_mmdet.engine.hooks import StopOnBadLossHook
from lungdet_mmdet.errors import LungDetError

RUNNER = SimpleNamespace(iter=41, epoch=2)
BATCH = {
    "data_samples": [
        BaseDataElement(metainfo={"seriesuid": "1.2.3", "slab_index": 7}),
        BaseDataElement(metainfo={"img_path": "other.png"}),
    ]
}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_it_names_losses_iteration_and_slabs(value):
    outputs = {"loss_cls": torch.tensor(value), "loss_bbox": torch.tensor(1.0)}
    with pytest.raises(LungDetError) as caught:
        StopOnBadLossHook().after_train_iter(RUNNER, 41, BATCH, outputs)
    message = str(caught.value)
    assert "iteration 42 (epoch 3): loss_cls" in message
    assert "loss_bbox" not in message
    assert "1.2.3 slab 7; other.png" in message
    assert "--resume" in message


def test_finite_losses_pass():
    StopOnBadLossHook().after_train_iter(RUNNER, 0, BATCH, {"loss": torch.tensor(3.0)})
    StopOnBadLossHook().after_train_iter(RUNNER, 0, BATCH, {})


def test_it_looks_only_at_its_interval():
    outputs = {"loss": torch.tensor(float("nan"))}
    StopOnBadLossHook(interval=4).after_train_iter(RUNNER, 0, BATCH, outputs)  # 42 of 4: no
    with pytest.raises(LungDetError):
        StopOnBadLossHook(interval=6).after_train_iter(RUNNER, 0, BATCH, outputs)
