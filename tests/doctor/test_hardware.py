import pytest
import torch

from lungdet_mmdet import doctor as hardware
from lungdet_mmdet.doctor import FAIL, NOTE, OK, WARN


def by_topic(lines):
    return {line.topic: line for line in lines}


def test_an_attention_that_raises_fails_with_the_remedy(monkeypatch):
    def broken(device):
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(hardware, "_attention_output", broken)
    line = by_topic(hardware.check_attention())["attention (cpu)"]
    assert line.level == FAIL
    assert "no kernel image" in line.text
    assert "mim install" in line.remedy


@pytest.mark.parametrize("standing_in", [True, False])
def test_a_gpu_without_compiled_ops_is_told_how_to_get_them(monkeypatch, standing_in):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("lungdet_mmdet.ops.stand_in.is_stand_in", lambda: standing_in)
    monkeypatch.setattr(hardware, "_attention_output", lambda device: torch.zeros(1))
    lines = by_topic(hardware.check_attention())
    assert lines["attention (cuda)"].level == (WARN if standing_in else OK)
    assert ("mim install" in lines["attention (cuda)"].remedy) == standing_in


def test_a_gpu_that_disagrees_with_the_cpu_fails(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        hardware, "_attention_output", lambda device: torch.full((1,), float(device == "cuda"))
    )
    line = by_topic(hardware.check_attention())["attention (cuda)"]
    assert line.level == FAIL
    assert "differs" in line.text


def test_devices_with_and_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(hardware.shutil, "which", lambda name: None)
    lines = by_topic(hardware.check_devices())
    assert lines["cuda"].level == NOTE
    assert "falls back" in lines["amp"].text
    monkeypatch.setattr(hardware.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    assert "built for CPU only" in by_topic(hardware.check_devices())["cuda"].text
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "H100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
    lines = by_topic(hardware.check_devices())
    assert "H100, capability 9.0" in lines["cuda:0"].text
    assert lines["amp"].level == OK
