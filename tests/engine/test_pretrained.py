import urllib.error
import urllib.request
from contextlib import nullcontext

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config

from lungdet_mmdet.engine.run_setup import (
    choose_pretrained,
    choose_start,
    drop_pretrained,
    resume_from,
    why_not_there,
)
from lungdet_mmdet.errors import LungDetError

URL = "https://example.org/weights/resnet50.pth"


def config_of(checkpoint: str | None = URL) -> Config:
    init_cfg = {"type": "Pretrained", "checkpoint": checkpoint} if checkpoint else None
    return Config({"model": {"backbone": {"type": "ResNet", "init_cfg": init_cfg}}})


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """No cached weights and no network: an unexpected request fails the test."""

    def refuse(request, timeout):
        raise AssertionError(f"network asked for {request.full_url}")

    monkeypatch.delenv("LUNGDET_OFFLINE", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def test_a_url_that_answers_is_kept(monkeypatch):
    asked = []

    def answer(request, timeout):
        asked.append((request.get_method(), request.full_url))
        return nullcontext()

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    config = config_of()
    choose_pretrained(config, None)
    assert asked == [("HEAD", URL)]
    assert config.model.backbone.init_cfg.checkpoint == URL


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (urllib.error.URLError("name not known"), "name not known"),
        (urllib.error.HTTPError(URL, 404, "Not Found", None, None), "Not Found"),
        (TimeoutError("timed out"), "timed out"),
    ],
)
def test_a_url_that_does_not_answer_gives_the_three_ways_out(monkeypatch, error, reason):
    def fail(request, timeout):
        raise error

    monkeypatch.setattr(urllib.request, "urlopen", fail)
    with pytest.raises(LungDetError) as caught:
        choose_pretrained(config_of(), None)
    message = str(caught.value)
    assert f"{URL} ({reason})" in message
    for way in ("--pretrained PATH", "--pretrained none", "--pretrained URL"):
        assert way in message


@pytest.mark.reliability("no network: prepare, train, test, infer with sockets forbidden")
def test_offline_no_request_is_made(monkeypatch):
    monkeypatch.setenv("LUNGDET_OFFLINE", "1")
    with pytest.raises(LungDetError, match="LUNGDET_OFFLINE is set"):
        choose_pretrained(config_of(), None)


def test_a_cached_download_is_enough(monkeypatch, tmp_path):
    monkeypatch.setenv("LUNGDET_OFFLINE", "1")
    cached = tmp_path / "hub" / "checkpoints" / "resnet50.pth"
    cached.parent.mkdir(parents=True)
    cached.touch()
    choose_pretrained(config_of(), None)


@pytest.mark.parametrize("choice", ["none", "None", "NONE"])
def test_none_means_random_weights(choice):
    config = config_of()
    choose_pretrained(config, choice)
    assert config.model.backbone.init_cfg is None


def test_nothing_of_a_random_backbone_is_frozen(repository):
    """Frozen at their start, mmdet's residual branches are zero and never learn."""
    config = Config.fromfile(repository / "configs" / "lung_deform_detr.py")
    for choice, learning in ((None, False), ("none", True)):
        if choice:
            choose_pretrained(config, choice)
        config.model.backbone.init_cfg = None
        backbone = MODELS.build(config.model.backbone)
        backbone.init_weights()
        backbone.train()
        last = backbone.layer4[2].bn3.weight
        assert not last.any()
        assert all(p.requires_grad for p in backbone.parameters()) == learning
        assert last.requires_grad == backbone.layer4[2].bn3.training == learning


@pytest.mark.parametrize("stages", [-1, 1])
def test_a_resumed_run_freezes_what_the_run_before_froze(repository, tmp_path, stages):
    config = Config.fromfile(repository / "configs" / "lung_deform_detr.py")
    config.model.backbone.frozen_stages = stages
    torch.save({"meta": {"cfg": config.pretty_text}}, tmp_path / "epoch_1.pth")
    again = Config.fromfile(repository / "configs" / "lung_deform_detr.py")
    assert resume_from(again, str(tmp_path / "epoch_1.pth"))
    assert again.model.backbone.frozen_stages == stages
    assert again.model.backbone.norm_eval == (stages != -1)


@pytest.mark.parametrize("name", ["torchvision://resnet50", "open-mmlab://resnet50_caffe"])
def test_names_of_mmengine_are_left_to_it(name):
    assert why_not_there(name) is None


def test_a_local_file_replaces_the_url(tmp_path):
    weights = tmp_path / "own.pth"
    weights.touch()
    config = config_of()
    choose_pretrained(config, str(weights))
    assert config.model.backbone.init_cfg.checkpoint == str(weights)


def test_a_missing_local_file_is_named(tmp_path):
    with pytest.raises(LungDetError, match=r"own.pth \(no such file\)"):
        choose_pretrained(config_of(), str(tmp_path / "own.pth"))


def test_a_model_that_starts_at_random_asks_nobody():
    choose_pretrained(config_of(None), None)
    choose_pretrained(Config({"model": {"type": "NoBackbone"}}), None)


def test_a_checkpoint_makes_initial_weights_needless():
    config = config_of()
    drop_pretrained(config)
    assert config.model.backbone.init_cfg is None


def test_a_backbone_s_weights_beside_a_detector_s_are_refused():
    config = config_of()
    config.load_from = "coco.pth"
    with pytest.raises(LungDetError, match="--pretrained own.pth has no effect: .* coco.pth"):
        choose_start(config, load_from=None, pretrained="own.pth")
