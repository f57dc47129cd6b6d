"""tools/publish_model.py: a training checkpoint in, a safe model file out."""

import importlib.util
import json
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lungdet_mmdet.apis.model_file import read_model_file
from lungdet_mmdet.apis.publishing import without_places
from lungdet_mmdet.commands.models import publish_options
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.splits.coco_checks import series_digest
from tests.support.command_calls import left_alone, record
from tests.support.untrained_model import (
    untrained_config,
    untrained_weights,
    write_training_checkpoint,
)

TOOL = Path(__file__).parents[2] / "tools" / "publish_model.py"


@pytest.fixture(scope="module")
def publish():
    spec = importlib.util.spec_from_file_location("publish_tool", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("training") / "epoch_1.pth"
    write_training_checkpoint(path)
    return path


@pytest.fixture
def metrics(tmp_path):
    path = tmp_path / "metrics.json"
    content = {"data": "phantom", "protocol": "strict", "split": "val"}
    # What a receiver must not learn.
    content |= {"warnings": ["1.2.3 of Jane is on both sides"], "config": "/home/jane/own.py"}
    path.write_text(json.dumps(content | {"metrics": {"AP50": 0.5, "threshold": 0.375}}))
    return path


@pytest.fixture
def prepared(tmp_path):
    folder = tmp_path / "prepared"
    (folder / "annotations").mkdir(parents=True)
    content = {
        "info": {"data": "phantom", "protocol": "strict", "seed": 3},
        "images": [{}] * 5, "series": ["a", "b"], "nodules": [{}],
    }  # fmt: skip
    (folder / "annotations" / "train.json").write_text(json.dumps(content))
    (folder / "manifest.json").write_text(json.dumps({"pixels_version": 3}))
    return folder


@pytest.mark.parametrize(
    ("tested", "refused"),
    [("epoch_1.pth", False), ("model.pth", False), ("best_lung_AP50_epoch_3.pth", True)],
)
def test_figures_of_another_checkpoint_are_refused(
    publish, checkpoint, metrics, tmp_path, tested, refused
):
    content = json.loads(metrics.read_text())
    metrics.write_text(json.dumps(content | {"checkpoint": tested}))
    out = tmp_path / "model.pth"
    arguments = [str(checkpoint), str(out), "--metrics", str(metrics)]
    if refused:
        with pytest.raises(LungDetError, match=rf"of {tested}, not of epoch_1\.pth"):
            publish(arguments)
        assert not out.exists()
    else:
        assert publish(arguments) == 0
        assert read_model_file(out).metrics["checkpoint"] == tested


def test_the_model_file_holds_all_that_a_receiver_needs(
    publish, checkpoint, metrics, prepared, tmp_path, capsys
):
    out = tmp_path / "model.pth"
    arguments = [str(checkpoint), str(out), "--metrics", str(metrics), "--data", str(prepared)]
    assert publish([*arguments, "--note", "for a test"]) == 0
    model = read_model_file(out)
    assert model.threshold == 0.375
    assert model.metrics["metrics"]["AP50"] == 0.5
    assert model.metrics["n_warnings"] == 1
    assert "jane" not in json.dumps(model.metrics).lower()
    assert model.data == {
        "name": "phantom",
        "train": {
            "info": {"data": "phantom", "protocol": "strict", "seed": 3},
            "series": 2, "slabs": 5, "nodules": 1,
        },
        "training": {"epoch": 1, "iter": 10},
        "note": "for a test",
    }  # fmt: skip
    assert set(model.made_with) >= {"lungdet_mmdet", "torch", "mmdet", "pixels_version"}
    expected = untrained_weights(untrained_config())
    assert all(torch.equal(model.state_dict[name], expected[name]) for name in expected)
    printed = capsys.readouterr().out
    assert model.sha256 in printed
    assert "trained on: phantom" in printed


def test_the_threshold_given_wins(publish, checkpoint, metrics, tmp_path):
    out = tmp_path / "model.pth"
    publish([str(checkpoint), str(out), "--metrics", str(metrics), "--threshold", "0.25"])
    assert read_model_file(out).threshold == 0.25


def test_without_metrics_there_is_no_threshold(publish, checkpoint, tmp_path, capsys):
    publish([str(checkpoint), str(tmp_path / "model.pth")])
    assert read_model_file(tmp_path / "model.pth").threshold is None
    assert "no threshold" in capsys.readouterr().out


def test_weights_of_another_config_are_refused(publish, checkpoint, repository, tmp_path):
    config = repository / "configs" / "lung_deform_detr_phantom.py"
    out = tmp_path / "model.pth"
    with pytest.raises(LungDetError, match="cannot be built from its config and weights"):
        publish([str(checkpoint), str(out), "--config", str(config)])
    assert not out.exists()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--threshold", "2"], "threshold is 2"),
        (["--config", "none.py"], r"none\.py: no such config"),
        (["--metrics", "none.json"], r"none\.json: cannot be read"),
        (["--data", "none"], r"none: no annotations"),
    ],
)
def test_bad_arguments_are_named(publish, checkpoint, tmp_path, extra, message):
    with pytest.raises(LungDetError, match=message):
        publish([str(checkpoint), str(tmp_path / "model.pth"), *extra])
    assert not (tmp_path / "model.pth").exists()


def test_a_missing_checkpoint_is_named(publish, tmp_path):
    with pytest.raises(LungDetError, match=r"none\.pth: no such checkpoint"):
        publish([str(tmp_path / "none.pth"), str(tmp_path / "model.pth")])


def test_the_threshold_chosen_at_validation_travels_with_the_model(
    publish, checkpoint, metrics, tmp_path
):
    validated, out = tmp_path / "validated.pth", tmp_path / "model.pth"
    content = torch.load(checkpoint, weights_only=False)
    point = {"threshold": 0.625, "rule": "max_f1", "data": "phantom", "split": "val"}
    content["meta"]["operating_point"] = point
    torch.save(content, validated)
    assert publish([str(validated), str(out), "--metrics", str(metrics)]) == 0
    model = read_model_file(out)
    assert model.threshold == 0.625
    assert model.data["operating_point"]["rule"] == "max_f1"
    assert read_model_file(validated, trust=True).threshold == 0.625


def test_a_threshold_given_by_hand_wins(publish, checkpoint, tmp_path):
    validated, out = tmp_path / "validated.pth", tmp_path / "model.pth"
    content = torch.load(checkpoint, weights_only=False)
    content["meta"]["operating_point"] = {"threshold": 0.625, "rule": "max_f1"}
    torch.save(content, validated)
    assert publish([str(validated), str(out), "--threshold", "0.25"]) == 0
    assert read_model_file(out).threshold == 0.25


@pytest.mark.parametrize(
    ("content", "message"), [("{", "cannot be read as JSON"), ("[]", "no split, but a list")]
)
def test_a_damaged_split_file_is_named(publish, checkpoint, prepared, tmp_path, content, message):
    (prepared / "annotations" / "train.json").write_text(content)
    with pytest.raises(LungDetError, match=rf"train\.json: {message}"):
        publish([str(checkpoint), str(tmp_path / "model.pth"), "--data", str(prepared)])
    assert not (tmp_path / "model.pth").exists()


def test_the_mean_over_trainings_is_published(publish, checkpoint, tmp_path):
    alone, doubled, out = tmp_path / "alone.pth", tmp_path / "doubled.pth", tmp_path / "mean.pth"
    assert publish([str(checkpoint), str(alone)]) == 0
    content = torch.load(checkpoint, weights_only=False)
    content["state_dict"] = {
        name: 2 * tensor if tensor.is_floating_point() else tensor
        for name, tensor in content["state_dict"].items()
    }
    content["meta"]["operating_point"] = {"threshold": 0.625, "rule": "max_f1"}
    torch.save(content, doubled)
    assert publish([str(doubled), str(out), "--average", str(alone)]) == 0
    expected, found = read_model_file(alone), read_model_file(out)
    for name, tensor in expected.state_dict.items():
        factor = 1.5 if tensor.is_floating_point() else 1
        torch.testing.assert_close(found.state_dict[name], factor * tensor)
    assert found.data["averaged"] == ["alone.pth"]
    # It was chosen for other scores than the mean's.
    assert found.threshold is None
    assert "operating_point" not in found.data


def test_every_option_arrives(publish, metrics, monkeypatch):
    options = shlex.split(
        f"--config C.py --metrics '{metrics}' --threshold 0.25 --data D --average a.pth b.pth"
        " --note 'for a test'"
    )
    files = ["in.pth", "out.pth"]
    assert left_alone(publish_options, files, options) == {"checkpoint", "out"}
    model = SimpleNamespace(state_dict={}, sha256="ab", data={}, threshold=None)
    calls = record(monkeypatch, "lungdet_mmdet.apis.publishing.publish_model", model)
    for given in ([], options):
        assert publish([*files, *given]) == 0
    always = {"checkpoint": Path("in.pth"), "out": Path("out.pth")}
    assert calls == [
        {**always, "config_path": None, "metrics": {}, "threshold": None, "data_root": None,
         "note": "", "average": []},
        {**always, "config_path": Path("C.py"), "metrics": json.loads(metrics.read_text()),
         "threshold": 0.25, "data_root": Path("D"), "note": "for a test",
         "average": [Path("a.pth"), Path("b.pth")]},
    ]  # fmt: skip


def test_no_mean_is_taken_over_different_networks(publish, checkpoint, tmp_path):
    other = tmp_path / "other.pth"
    content = torch.load(checkpoint, weights_only=False)
    name = next(iter(content["state_dict"]))
    content["state_dict"][name] = content["state_dict"][name].flatten()
    torch.save(content, other)
    with pytest.raises(LungDetError, match="other.pth: weights of another network"):
        publish([str(checkpoint), str(tmp_path / "out.pth"), "--average", str(other)])


def test_nothing_is_stated_of_data_that_is_not_at_hand(publish, checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # what lies in the working folder is no training data
    assert publish([str(checkpoint), "m.pth"]) == 0
    model = read_model_file("m.pth")
    assert "name" not in model.data
    assert "pixels_version" not in model.made_with


def test_the_version_of_the_pixels_is_that_of_the_data(publish, checkpoint, prepared, tmp_path):
    assert publish([str(checkpoint), str(tmp_path / "m.pth"), "--data", str(prepared)]) == 0
    assert read_model_file(tmp_path / "m.pth").made_with["pixels_version"] == "3"


def test_data_that_the_model_has_not_learnt_from_is_refused(
    publish, checkpoint, prepared, tmp_path
):
    content = torch.load(checkpoint, weights_only=False)
    content.setdefault("meta", {})["training_series"] = {"a": "strict 3", "b": "strict 3", "c": "x"}
    torch.save(content, tmp_path / "learnt.pth")
    arguments = [str(tmp_path / "learnt.pth"), str(tmp_path / "m.pth"), "--data", str(prepared)]
    assert publish(arguments) == 0
    model = read_model_file(tmp_path / "m.pth")
    # No series by its name, and none in what every result says of the model.
    assert sorted(model.data["training_series"]) == sorted(map(series_digest, "abc"))
    assert "training_series" not in model.about()["data"]
    assert "train" in model.data
    # Of another split of the same data only the name is told.
    content["meta"]["training_series"] = {"a": "fold"}
    torch.save(content, tmp_path / "learnt.pth")
    assert publish(arguments) == 0
    told = read_model_file(tmp_path / "m.pth").data
    assert told["name"] == "phantom"
    assert "train" not in told
    content["meta"]["training_series"] = {"z": "strict 3"}
    torch.save(content, tmp_path / "learnt.pth")
    with pytest.raises(LungDetError, match="lists no series that this checkpoint has learnt from"):
        publish(arguments)


def test_a_mean_has_learnt_from_all_that_its_parts_have(publish, checkpoint, tmp_path):
    content = torch.load(checkpoint, weights_only=False)
    for name, series in (("a.pth", "1.1"), ("b.pth", "2.2")):
        content["meta"]["training_series"] = {series: "strict 0", "3.3": f"paper {name}"}
        torch.save(content, tmp_path / name)
    out, both = tmp_path / "m.pth", [str(tmp_path / name) for name in ("a.pth", "b.pth")]
    assert publish([both[0], str(out), "--average", both[1]]) == 0
    noted = read_model_file(out).data["training_series"]
    assert sorted(noted) == sorted(map(series_digest, ("1.1", "2.2", "3.3")))
    assert noted[series_digest("3.3")] == "several splits"


def test_a_checkpoint_whose_own_config_cannot_be_read_is_published_with_another(
    publish, checkpoint, repository, tmp_path
):
    content = torch.load(checkpoint, weights_only=False)
    own = content["meta"]["cfg"]
    (tmp_path / "own.py").write_text(own)
    content["meta"]["cfg"] = f"custom_imports = dict(imports=['not_installed_here'])\n{own}"
    torch.save(content, tmp_path / "other.pth")
    arguments = [str(tmp_path / "other.pth"), str(tmp_path / "m.pth")]
    assert publish([*arguments, "--config", str(tmp_path / "own.py")]) == 0


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("C:\\Users\\John Smith\\data\\model.pth", "model.pth"),
        ("/home/John Smith/luna/x.json", "x.json"),
        ("D:/Dr Smith/a.json", "a.json"),
        ("read from /home/jane/a.csv, then 3/4", "read from a.csv, then 3/4"),
        ("CPM 0.5 / 2", "CPM 0.5 / 2"),
    ],
)
def test_folders_are_left_out_of_figures(text, kept):
    assert without_places({"note": text}) == {"note": kept}
