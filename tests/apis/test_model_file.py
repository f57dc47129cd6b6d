"""Model files are safe to receive; everything else needs trust."""

import dataclasses
import os
import pickle

import pytest
import torch

from lungdet_mmdet.apis.model_file import file_sha256, read_model_file, write_model_file
from lungdet_mmdet.errors import LungDetError
from tests.support.untrained_model import untrained_model


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_what_is_written_is_read(model_path):
    expected, model = untrained_model(), read_model_file(model_path)
    assert model.config == expected.config
    assert model.name == "model.pth"
    assert model.sha256 == file_sha256(model_path)
    assert model.data == {"name": "nothing: random weights"}
    assert model.state_dict.keys() == expected.state_dict.keys()
    for name, value in model.state_dict.items():
        assert torch.equal(value, expected.state_dict[name])


def test_torch_reads_it_without_running_code(model_path):
    content = torch.load(model_path, weights_only=True)
    assert content["format"] == "lungdet_mmdet model"
    assert content["config"]["prep_pipeline"][0] == {"type": "LoadCTScan"}


@pytest.mark.parametrize("place", ["meta", "state_dict", "whole file"])
@pytest.mark.reliability("hostile model files and configs")
def test_a_crafted_pickle_does_not_run(tmp_path, place):
    path, trap = tmp_path / "m.pth", tmp_path / "it-ran"
    content = {"meta": {}, "state_dict": {}, "format": "lungdet_mmdet model", "format_version": 1}
    torch.save(Payload(trap) if place == "whole file" else content | {place: Payload(trap)}, path)
    with pytest.raises(LungDetError, match="--trust-checkpoint"):
        read_model_file(path)
    assert not trap.exists()


@pytest.mark.reliability("hostile model files and configs")
def test_the_trap_would_have_worked(tmp_path):
    torch.save(Payload(tmp_path / "it-ran"), tmp_path / "m.pth")
    torch.load(tmp_path / "m.pth", weights_only=False)
    assert (tmp_path / "it-ran").is_dir()


@pytest.mark.reliability("hostile model files and configs")
def test_torchs_older_format_is_refused_unread(tmp_path):
    (tmp_path / "m.pth").write_bytes(pickle.dumps(Payload(tmp_path / "it-ran")))
    for trust in (False, True):
        with pytest.raises(LungDetError, match="not a checkpoint"):
            read_model_file(tmp_path / "m.pth", trust=trust)
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.reliability("hostile model files and configs")
def test_a_training_checkpoint_needs_trust(training_checkpoint):
    with pytest.raises(LungDetError, match=r"epoch_1\.pth: .*lungdet publish.*--trust-checkpoint"):
        read_model_file(training_checkpoint)
    model = read_model_file(training_checkpoint, trust=True)
    assert model.data == {"epoch": 1, "iter": 10}
    assert model.config == untrained_model().config


@pytest.mark.reliability("hostile model files and configs")
def test_a_config_with_code_is_neither_written_nor_read(tmp_path, model_path):
    model = read_model_file(model_path)
    config = {**model.config, "model": {"type": "os.system", "command": "true"}}
    with pytest.raises(LungDetError, match=r"os\.system"):
        write_model_file(tmp_path / "m.pth", dataclasses.replace(model, config=config))
    content = torch.load(model_path, weights_only=True)
    torch.save(content | {"config": config}, tmp_path / "m.pth")
    with pytest.raises(LungDetError, match=r"os\.system"):
        read_model_file(tmp_path / "m.pth")


@pytest.mark.reliability("hostile model files and configs")
def test_other_versions_missing_and_truncated_files_are_named(tmp_path, model_path):
    with pytest.raises(LungDetError, match=r"none\.pth: no such checkpoint"):
        read_model_file(tmp_path / "none.pth")
    content = torch.load(model_path, weights_only=True)
    torch.save(content | {"format_version": 99}, tmp_path / "new.pth")
    with pytest.raises(LungDetError, match="version 99"):
        read_model_file(tmp_path / "new.pth")
    (tmp_path / "half.pth").write_bytes(model_path.read_bytes()[:1000])
    with pytest.raises(LungDetError, match=r"half\.pth: .*truncated"):
        read_model_file(tmp_path / "half.pth")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("data", "phantom", "its data is a str"),
        ("state_dict", [1.0], "its state_dict is a list"),
        ("made_with", None, "its made_with is a NoneType"),
        ("threshold", "0.5", "its threshold is a str"),
        ("threshold", 1.5, r"its threshold is 1\.5"),
        ("threshold", float("nan"), "its threshold is nan"),
    ],
)
@pytest.mark.reliability("hostile model files and configs")
def test_a_field_of_another_kind_is_named(tmp_path, model_path, field, value, message):
    content = torch.load(model_path, weights_only=True)
    torch.save(content | {field: value}, tmp_path / "m.pth")
    with pytest.raises(LungDetError, match=rf"m\.pth: {message}"):
        read_model_file(tmp_path / "m.pth")


@pytest.mark.reliability("hostile model files and configs")
def test_a_file_that_lacks_fields_is_named(tmp_path, model_path):
    content = torch.load(model_path, weights_only=True)
    del content["state_dict"]
    torch.save(content, tmp_path / "m.pth")
    with pytest.raises(LungDetError, match=r"m\.pth: .*state_dict"):
        read_model_file(tmp_path / "m.pth")


def test_zeros_in_the_weights_are_damage(model_path, tmp_path):
    content = bytearray(model_path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 1000] = bytes(1000)
    (tmp_path / "m.pth").write_bytes(content)
    for trust in (False, True):
        with pytest.raises(LungDetError, match="damaged .*checksum of .* wrong"):
            read_model_file(tmp_path / "m.pth", trust=trust)


@pytest.mark.reliability("hostile model files and configs")
def test_an_archive_behind_another_file_is_refused(model_path, tmp_path):
    # zipfile looks for an archive at a file's end, torch decides by its beginning.
    old = pickle.dumps(Payload(tmp_path / "it-ran"))
    (tmp_path / "m.pth").write_bytes(old + model_path.read_bytes())
    for trust in (False, True):
        with pytest.raises(LungDetError, match="not a checkpoint"):
            read_model_file(tmp_path / "m.pth", trust=trust)
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize("version", ["2.0.1", "2.5.1+cu121", "2.6.0", "2.9.1", "no version"])
def test_a_torch_with_known_holes_reads_no_untrusted_file(model_path, monkeypatch, version):
    monkeypatch.setattr(torch, "__version__", version)
    with pytest.raises(LungDetError, match=r"use torch >= 2\.10 for files of others"):
        read_model_file(model_path)
    assert read_model_file(model_path, trust=True).name == "model.pth"


@pytest.mark.parametrize("version", ["2.10.0", "2.10.0a0+nv", "2.13.0+cpu", "3.0"])
def test_a_torch_without_known_holes_does(model_path, monkeypatch, version):
    monkeypatch.setattr(torch, "__version__", version)
    assert read_model_file(model_path).name == "model.pth"
