"""How weights lie in memory, which a wrapper for several processes must not find changed."""

import logging
from types import SimpleNamespace

import pytest
import torch
import torch.distributed
from mmengine.model import BaseModel, MMDistributedDataParallel

from lungdet_mmdet.engine.hooks.training import DetectorSetupHook


class Detector(BaseModel):
    def __init__(self):
        super().__init__()
        self.backbone = torch.nn.Conv2d(3, 4, 3)

    def forward(self, inputs, data_samples=None, mode="tensor"):
        return self.backbone(inputs)


@pytest.fixture
def process_group(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


def prepared(model):
    DetectorSetupHook().before_run(SimpleNamespace(model=model, logger=logging.getLogger("test")))


def test_weights_lie_for_speed():
    detector = Detector()
    prepared(detector)
    assert detector.backbone.weight.is_contiguous(memory_format=torch.channels_last)


def test_gradients_of_several_processes_are_those_of_one(process_group):
    pictures = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    alone, wrapped = Detector(), Detector()
    wrapped.load_state_dict(alone.state_dict())
    together = MMDistributedDataParallel(wrapped)
    for model in (alone, together):
        prepared(model)
        (model(pictures) ** 2).sum().backward()
    assert torch.allclose(wrapped.backbone.weight.grad, alone.backbone.weight.grad, atol=1e-4)
