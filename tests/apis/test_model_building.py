"""From a model file to a network on a device."""

import dataclasses

import pytest
import torch

from lungdet_mmdet.apis.model_building import build_model, build_slab_pipeline, choose_device
from lungdet_mmdet.errors import LungDetError
from tests.support.untrained_model import untrained_model


def test_weights_of_another_model_are_refused():
    model = untrained_model()
    fewer = dict(list(model.state_dict.items())[:-1])
    broken = dataclasses.replace(model, state_dict=fewer)
    with pytest.raises(LungDetError, match=r"untrained: its model cannot be built.*Missing key"):
        build_model(broken, torch.device("cpu"))


def test_a_pipeline_that_begins_otherwise_is_refused():
    model = untrained_model()
    config = {**model.config, "test_pipeline": model.config["test_pipeline"][1:]}
    with pytest.raises(LungDetError, match="begins with .*Resize"):
        build_slab_pipeline(dataclasses.replace(model, config=config))


def test_cuda_without_a_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"
    with pytest.raises(LungDetError, match="no GPU"):
        choose_device("cuda")


@pytest.mark.parametrize("name", ["cuda:99", "meta", "mps", "nonsense"])
def test_a_device_that_is_not_there_is_named(name):
    with pytest.raises(LungDetError, match=f"device '{name}'(: torch sees| is)"):
        choose_device(name)
