import pytest
import torch
from mmengine.config import Config

from lungdet_mmdet.engine.run_setup import fall_back_from_amp, use_amp


def config_of(kind: str) -> Config:
    return Config(
        {
            "optim_wrapper": {
                "type": kind,
                "dtype": "float16",
                "loss_scale": "dynamic",
                "accumulative_counts": 6,
                "optimizer": {"type": "AdamW", "lr": 1e-4},
                "clip_grad": {"max_norm": 0.1},
            }
        }
    )


@pytest.fixture
def has_gpu(monkeypatch):
    def choose(answer: bool) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: answer)

    return choose


def test_without_a_gpu_only_the_precision_changes(has_gpu):
    has_gpu(False)
    config = config_of("AmpOptimWrapper")
    note = fall_back_from_amp(config)
    assert "mixed precision (AMP) is off" in note
    assert "\n" not in note
    assert config.optim_wrapper.to_dict() == {
        "type": "OptimWrapper",
        "accumulative_counts": 6,
        "optimizer": {"type": "AdamW", "lr": 1e-4},
        "clip_grad": {"max_norm": 0.1},
    }


def test_with_a_gpu_nothing_changes(has_gpu):
    has_gpu(True)
    config = config_of("AmpOptimWrapper")
    assert fall_back_from_amp(config) is None
    assert config.optim_wrapper.to_dict() == config_of("AmpOptimWrapper").optim_wrapper.to_dict()


def test_plain_precision_stays_plain(has_gpu):
    has_gpu(False)
    assert fall_back_from_amp(config_of("OptimWrapper")) is None
    assert fall_back_from_amp(Config({})) is None


def test_amp_on_request():
    config = Config({"optim_wrapper": {"type": "OptimWrapper", "optimizer": {}}})
    use_amp(config)
    assert config.optim_wrapper.type == "AmpOptimWrapper"
    assert config.optim_wrapper.loss_scale == "dynamic"
