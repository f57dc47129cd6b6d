import runpy
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

from lungdet_mmdet.apis.model_file import write_model_file
from lungdet_mmdet.commands.models import export_options
from tests.support.command_calls import left_alone, record
from tests.support.untrained_model import untrained_model


@pytest.fixture
def export(repository):
    return runpy.run_path(str(repository / "tools" / "export.py"))["main"]


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "small.pth"
    write_model_file(path, untrained_model())
    return path


def test_the_file_stands_beside_the_model_and_its_agreement_is_told(export, checkpoint, capsys):
    assert export([str(checkpoint), "--format", "openvino", "--size", "64", "96"]) == 0
    assert (checkpoint.with_suffix(".xml")).is_file()
    assert (checkpoint.with_suffix(".bin")).is_file()
    assert sorted(p.name for p in checkpoint.parent.iterdir()) == [
        "small.bin", "small.pth", "small.xml",
    ]  # fmt: skip
    assert "agree with PyTorch to" in capsys.readouterr().out


def test_every_option_arrives(export, monkeypatch):
    required = ["m.pth", "--format", "onnx"]
    options = shlex.split("--size 64 96 --out OUT.onnx --trust-checkpoint")
    assert left_alone(export_options, required, options) == {"checkpoint", "format"}
    read = record(monkeypatch, "lungdet_mmdet.apis.model_file.read_model_file", "model")
    agreement = SimpleNamespace(box_px=0.0, score=0.0)
    calls = record(monkeypatch, "lungdet_mmdet.apis.exporting.export_model", agreement)
    for given in ([], options):
        assert export([*required, *given]) == 0
    assert read == [{"path": Path("m.pth"), "trust": trust} for trust in (False, True)]
    always = {"model": "model", "file_format": "onnx"}
    assert calls == [
        {**always, "path": Path("m.onnx"), "size_yx": (352, 512)},
        {**always, "path": Path("OUT.onnx"), "size_yx": (64, 96)},
    ]
