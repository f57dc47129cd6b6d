import logging
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lungdet_mmdet.engine.hooks import FitCheckpointHook
from lungdet_mmdet.errors import LungDetError


def model(classes):
    return nn.ModuleDict({"body": nn.Linear(4, 4), "head": nn.Linear(4, classes)})


def runner(net, *, resume=False):
    return SimpleNamespace(
        model=net,
        _resume=resume,
        cfg={"load_from": "coco.pth"},
        logger=logging.getLogger("fit"),
    )


def test_heads_of_other_classes_are_left_out_and_logged(caplog):
    checkpoint = {"state_dict": model(80).state_dict()}
    with caplog.at_level(logging.INFO):
        FitCheckpointHook().after_load_checkpoint(runner(model(1)), checkpoint)
    assert set(checkpoint["state_dict"]) == {"body.weight", "body.bias"}
    (record,) = caplog.records
    # 20 of 25 values fit.
    assert "coco.pth: 80.0% of the model's values taken; initialised anew:" in record.getMessage()
    assert "head.weight: (80, 4) in the file, (1, 4) here" in record.getMessage()


def test_another_model_is_refused():
    other = {"state_dict": nn.ModuleDict({"neck": nn.Linear(4, 4)}).state_dict()}
    with pytest.raises(LungDetError, match="coco.pth: gives only 0.0% .* another model"):
        FitCheckpointHook().after_load_checkpoint(runner(model(1)), other)


def test_a_bare_state_dict_is_understood():
    state = model(80).state_dict()
    FitCheckpointHook().after_load_checkpoint(runner(model(1)), state)
    assert set(state) == {"body.weight", "body.bias"}


def test_resuming_is_left_alone():
    checkpoint = {"state_dict": {"x": torch.zeros(1)}}
    FitCheckpointHook().after_load_checkpoint(runner(model(1), resume=True), checkpoint)
    assert set(checkpoint["state_dict"]) == {"x"}
