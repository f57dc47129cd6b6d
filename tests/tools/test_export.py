import runpy

import pytest

from lungdet_mmdet.apis.model_file import write_model_file
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
