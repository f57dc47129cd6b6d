import importlib.util
import os
import subprocess
import sys
import urllib.error
from pathlib import Path

import pytest
import torch

import lungdet_mmdet
from lungdet_mmdet import versions

ROOT = Path(lungdet_mmdet.__file__).parents[1]


@pytest.fixture(scope="module")
def doctor():
    spec = importlib.util.spec_from_file_location("doctor", ROOT / "tools" / "doctor.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["doctor"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["doctor"]


def by_topic(lines):
    return {line.topic: line for line in lines}


def test_a_working_machine_is_usable(doctor, capsys, monkeypatch):
    monkeypatch.setenv("LUNGDET_OFFLINE", "1")
    monkeypatch.setattr(sys, "argv", ["doctor.py"])
    assert doctor.main() == 0
    out = capsys.readouterr().out
    assert f"Python {sys.version.split()[0]}" in out
    assert torch.__version__ in out
    assert "attention (cpu)   works" in out
    assert out.endswith("Usable.\n")


def test_problems_come_with_remedies_and_exit_code_1(doctor, capsys):
    lines = [
        doctor.Line(doctor.OK, "torch", "2.13"),
        doctor.Line(doctor.FAIL, "mmcv", "is missing", "pip install onedl-mmcv"),
    ]
    assert doctor.report(lines) == 1
    out = capsys.readouterr().out
    assert "FAIL  mmcv              is missing\n" in out
    assert "-> pip install onedl-mmcv\n" in out
    assert "Not usable: 1 problem(s)" in out


def test_warnings_alone_leave_it_usable(doctor):
    assert doctor.report([doctor.Line(doctor.WARN, "weights", "unreachable", "use a path")]) == 0


def test_an_unsupported_version_fails_with_its_remedy(doctor, monkeypatch):
    narrow = versions.Requirement("torch", {"torch": ">=99"})
    monkeypatch.setattr(versions, "REQUIREMENTS", (narrow,))
    line = by_topic(doctor.check_versions())["torch"]
    assert line.level == doctor.FAIL
    assert "not supported" in line.text
    assert line.remedy == 'pip install "torch>=99"'


def test_a_module_that_breaks_on_import_does_not_stop_the_rest(doctor, monkeypatch):
    def import_module(name):
        if name == "cv2":
            raise OSError("libGL.so.1: cannot open shared object file")
        return torch

    monkeypatch.setattr(doctor.importlib, "import_module", import_module)
    lines = by_topic(doctor.check_imports())
    assert lines["cv2"].level == doctor.FAIL
    assert "libGL" in lines["cv2"].text
    assert "headless" in lines["cv2"].remedy
    assert lines["mmdet.models"].level == doctor.OK


def test_an_attention_that_raises_fails_with_the_remedy(doctor, monkeypatch):
    def broken(device):
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(doctor, "_attention_output", broken)
    line = by_topic(doctor.check_attention())["attention (cpu)"]
    assert line.level == doctor.FAIL
    assert "no kernel image" in line.text
    assert "mim install" in line.remedy


@pytest.mark.parametrize("standing_in", [True, False])
def test_a_gpu_without_compiled_ops_is_told_how_to_get_them(doctor, monkeypatch, standing_in):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("lungdet_mmdet.ops.stand_in.is_stand_in", lambda: standing_in)
    monkeypatch.setattr(doctor, "_attention_output", lambda device: torch.zeros(1))
    lines = by_topic(doctor.check_attention())
    assert lines["attention (cuda)"].level == (doctor.WARN if standing_in else doctor.OK)
    assert ("mim install" in lines["attention (cuda)"].remedy) == standing_in


def test_a_gpu_that_disagrees_with_the_cpu_fails(doctor, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        doctor, "_attention_output", lambda device: torch.full((1,), float(device == "cuda"))
    )
    line = by_topic(doctor.check_attention())["attention (cuda)"]
    assert line.level == doctor.FAIL
    assert "differs" in line.text


def test_devices_with_and_without_a_gpu(doctor, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    lines = by_topic(doctor.check_devices())
    assert lines["cuda"].level == doctor.NOTE
    assert "falls back" in lines["amp"].text
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    assert "built for CPU only" in by_topic(doctor.check_devices())["cuda"].text
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "H100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
    lines = by_topic(doctor.check_devices())
    assert "H100, capability 9.0" in lines["cuda:0"].text
    assert lines["amp"].level == doctor.OK


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.delenv("LUNGDET_OFFLINE", raising=False)
    return tmp_path / "hub" / "checkpoints"


def test_weights_in_the_cache(doctor, empty_cache, monkeypatch):
    monkeypatch.setattr(doctor.urllib.request, "urlopen", None)  # calling it would raise
    empty_cache.mkdir(parents=True)
    (empty_cache / "net.pth").touch()
    (line,) = doctor.check_weights("https://example.org/net.pth")
    assert line.level == doctor.OK
    assert str(empty_cache / "net.pth") in line.text


def test_weights_offline_are_not_looked_for(doctor, empty_cache, monkeypatch):
    monkeypatch.setenv("LUNGDET_OFFLINE", "1")
    monkeypatch.setattr(doctor.urllib.request, "urlopen", None)
    (line,) = doctor.check_weights("https://example.org/net.pth")
    assert line.level == doctor.WARN
    assert "local path" in line.remedy


def test_weights_by_url(doctor, empty_cache, monkeypatch):
    class Answer:
        def close(self):
            pass

    asked = []

    def urlopen(request, timeout):
        asked.append((request.get_method(), request.full_url))
        return Answer()

    monkeypatch.setattr(doctor.urllib.request, "urlopen", urlopen)
    (line,) = doctor.check_weights("https://example.org/net.pth")
    assert line.level == doctor.OK
    assert asked == [("HEAD", "https://example.org/net.pth")]


def test_unreachable_weights_name_the_ways_out(doctor, empty_cache, monkeypatch):
    def urlopen(request, timeout):
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(doctor.urllib.request, "urlopen", urlopen)
    (line,) = doctor.check_weights("https://example.org/net.pth")
    assert line.level == doctor.WARN
    assert "no route" in line.text
    for way_out in ("local path", "without pretrained weights", "another URL"):
        assert way_out in line.remedy


def test_extras_that_are_missing_are_notes(doctor, monkeypatch):
    def version(name):
        if name == "pydicom":
            raise doctor.metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(doctor.metadata, "version", version)
    lines = by_topic(doctor.check_extras())
    assert lines["pydicom"].level == doctor.NOTE
    assert lines["pydicom"].remedy == "pip install pydicom"
    assert lines["openvino"].level == doctor.OK


def test_as_a_command_it_outlives_a_refused_version(tmp_path):
    # Metadata found first on the path hides that of the real torch.
    info = tmp_path / "torch-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 1.0\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "doctor.py")],
        env={**os.environ, "PYTHONPATH": path, "LUNGDET_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "FAIL  torch             torch 1.0 is not supported" in done.stdout
    assert '-> pip install "torch' in done.stdout
    assert "Traceback" not in done.stderr
