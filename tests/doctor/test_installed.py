import torch

from lungdet_mmdet import doctor as installed
from lungdet_mmdet import versions
from lungdet_mmdet.doctor import FAIL, NOTE, OK


def by_topic(lines):
    return {line.topic: line for line in lines}


def test_an_unsupported_version_fails_with_its_remedy(monkeypatch):
    narrow = versions.Requirement("torch", {"torch": ">=99"})
    monkeypatch.setattr(versions, "REQUIREMENTS", (narrow,))
    line = by_topic(installed.check_versions())["torch"]
    assert line.level == FAIL
    assert "not supported" in line.text
    assert line.remedy == 'pip install "torch>=99"'


def test_a_module_that_breaks_on_import_does_not_stop_the_rest(monkeypatch):
    def import_module(name):
        if name == "cv2":
            raise OSError("libGL.so.1: cannot open shared object file")
        return torch

    monkeypatch.setattr(installed.importlib, "import_module", import_module)
    lines = by_topic(installed.check_imports())
    assert lines["cv2"].level == FAIL
    assert "libGL" in lines["cv2"].text
    assert "headless" in lines["cv2"].remedy
    assert lines["mmdet.models"].level == OK


def test_extras_that_are_missing_are_notes(monkeypatch):
    def version(name):
        if name == "pydicom":
            raise installed.metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(installed.metadata, "version", version)
    lines = by_topic(installed.check_extras())
    assert lines["pydicom"].level == NOTE
    assert lines["pydicom"].remedy == "pip install 'lungdet-mmdet[dicom]'"
    assert lines["pooch"].level == OK


def test_extras_named_as_remedies_are_extras_of_the_package(repository):
    setup = (repository / "setup.py").read_text(encoding="utf-8")
    for _, extra in installed.EXTRAS.values():
        assert f'"{extra}": ' in setup.split("extras_require", 1)[1]
