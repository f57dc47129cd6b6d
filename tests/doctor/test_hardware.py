import pytest
import torch

from lungdet_mmdet import doctor as hardware
from lungdet_mmdet.doctor import FAIL, NOTE, OK, WARN
from lungdet_mmdet.ops import attention_choice


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


@pytest.mark.parametrize("slow", [True, False])
def test_a_gpu_is_told_which_attention_runs_and_how_to_get_a_fast_one(monkeypatch, slow):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(hardware, "_attention_output", lambda device: torch.zeros(1))
    monkeypatch.setattr(
        attention_choice, "is_slow_on", lambda device: slow and device.type == "cuda"
    )
    monkeypatch.setattr(attention_choice, "describe_attention", lambda device: f"on {device}: one")
    lines = by_topic(hardware.check_attention())
    assert lines["attention (cpu)"].level == OK
    assert lines["attention (cuda)"].level == (WARN if slow else OK)
    assert lines["attention (cuda)"].text == "works; on cuda: one"
    assert ("triton" in lines["attention (cuda)"].remedy) == slow


def test_a_gpu_that_disagrees_with_the_cpu_fails(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        hardware, "_attention_output", lambda device: torch.full((1,), float(device == "cuda"))
    )
    line = by_topic(hardware.check_attention())["attention (cuda)"]
    assert line.level == FAIL
    assert "differs" in line.text


@pytest.mark.parametrize(
    ("built_for", "driver", "visible", "found"),
    [
        ("13.0", True, None, "built for CUDA 13.0 but finds no usable GPU"),
        (None, True, None, "built for CPU only"),
        ("13.0", False, None, None),  # no GPU
        ("13.0", True, "", None),  # the CPU is what is wanted
    ],
)
def test_a_gpu_that_cannot_be_used_is_told_from_none(
    monkeypatch, tmp_path, built_for, driver, visible, found
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built_for)
    monkeypatch.setattr(hardware.shutil, "which", lambda name: None)
    monkeypatch.setattr(hardware, "NVIDIA_DRIVER", tmp_path / "version")
    if driver:
        (tmp_path / "version").write_text("NVRM version: 470")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    fault = hardware.unused_gpu()
    assert fault is None if found is None else found in fault
    line = by_topic(hardware.check_devices())["cuda"]
    assert line.level == (NOTE if found is None else WARN)


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
