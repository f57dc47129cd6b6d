import contextlib
import urllib.error
import urllib.request

import pytest
import torch

from lungdet_mmdet.doctor import OK, WARN, check_weights


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.delenv("LUNGDET_OFFLINE", raising=False)
    return tmp_path / "hub" / "checkpoints"


def test_weights_in_the_cache(empty_cache, monkeypatch):
    monkeypatch.setattr(urllib.request, "urlopen", None)  # calling it would raise
    empty_cache.mkdir(parents=True)
    (empty_cache / "net.pth").touch()
    (line,) = check_weights("https://example.org/net.pth")
    assert line.level == OK
    assert str(empty_cache / "net.pth") in line.text


def test_weights_offline_are_not_looked_for(empty_cache, monkeypatch):
    monkeypatch.setenv("LUNGDET_OFFLINE", "1")
    monkeypatch.setattr(urllib.request, "urlopen", None)
    (line,) = check_weights("https://example.org/net.pth")
    assert line.level == WARN
    assert "local path" in line.remedy


def test_weights_by_url(empty_cache, monkeypatch):
    asked = []

    def urlopen(request, timeout):
        asked.append((request.get_method(), request.full_url))
        return contextlib.nullcontext()

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    (line,) = check_weights("https://example.org/net.pth")
    assert line.level == OK
    assert asked == [("HEAD", "https://example.org/net.pth")]


def test_unreachable_weights_name_the_ways_out(empty_cache, monkeypatch):
    def urlopen(request, timeout):
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    (line,) = check_weights("https://example.org/net.pth")
    assert line.level == WARN
    assert "no route" in line.text
    for way_out in ("local path", "without pretrained weights", "another URL"):
        assert way_out in line.remedy
