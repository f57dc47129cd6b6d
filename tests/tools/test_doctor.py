import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import lungdet_mmdet

ROOT = Path(lungdet_mmdet.__file__).parents[1]


@pytest.fixture(scope="module")
def doctor():
    spec = importlib.util.spec_from_file_location("doctor", ROOT / "tools" / "doctor.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["doctor"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["doctor"]


def test_a_working_machine_is_usable(doctor, capsys, monkeypatch):
    monkeypatch.setenv("LUNGDET_OFFLINE", "1")
    monkeypatch.setattr(sys, "argv", ["doctor.py"])
    assert doctor.main() == 0
    out = capsys.readouterr().out
    assert f"Python {sys.version.split()[0]}" in out
    assert torch.__version__ in out
    assert "attention (cpu)   works" in out
    assert out.endswith("Usable.\n")


def test_a_package_that_cannot_be_imported_is_reported(doctor, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["doctor.py"])
    monkeypatch.setitem(sys.modules, "lungdet_mmdet.doctor", None)

    assert doctor.main() == 1
    assert "pip install -e ." in capsys.readouterr().out


def test_an_old_python_is_told_before_anything_is_imported(doctor, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["doctor.py"])
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))

    assert doctor.main() == 1
    assert "use Python 3.10 or newer" in capsys.readouterr().out


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
