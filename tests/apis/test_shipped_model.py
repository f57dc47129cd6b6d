"""The model in the box: small, safe to load, taken where no other is named, and honest about it."""

import hashlib

import numpy as np
import pytest

from lungdet_mmdet.apis.infer import detect_scans
from lungdet_mmdet.apis.model_file import read_model_file
from lungdet_mmdet.apis.scan_detector import ScanDetector
from lungdet_mmdet.ct.geometry import to_canonical
from lungdet_mmdet.ct.scan import CTScan
from lungdet_mmdet.engine.by_name import SHIPPED_MODEL
from lungdet_mmdet.preparation.prep_pipeline import PIXELS_VERSION
from lungdet_mmdet.runs.files import phantom_uid
from lungdet_mmdet.splits.coco_checks import SERIES_KEY, series_digest

TRAINED_ON = "phantom and semi-real"


def test_it_is_small_and_read_without_trust():
    assert SHIPPED_MODEL.stat().st_size < 12e6
    model = read_model_file(SHIPPED_MODEL)
    assert model.data["name"] == TRAINED_ON
    assert model.made_with["pixels_version"] == str(PIXELS_VERSION)


def test_its_card_names_this_very_file():
    card = (SHIPPED_MODEL.parent / "README.md").read_text(encoding="utf-8")
    assert hashlib.sha256(SHIPPED_MODEL.read_bytes()).hexdigest() in card


@pytest.mark.parametrize(("seed", "has_learnt"), [(1, False), (2, True), (3, True)])
def test_it_tells_phantoms_that_it_learnt_from(seed, has_learnt):
    learnt = read_model_file(SHIPPED_MODEL).data[SERIES_KEY]
    phantoms = {series_digest(phantom_uid(size="fine", seed=seed, index=n)) for n in range(36)}
    assert bool(phantoms & learnt.keys()) == has_learnt


@pytest.mark.slow
def test_it_finds_the_largest_nodule_of_a_phantom_and_says_what_it_learnt_from(small_scan):
    volume_hu, geometry = to_canonical(small_scan.volume_hu, small_scan.geometry)
    scan = CTScan(volume_hu, geometry, small_scan.geometry, "phantom")

    findings = ScanDetector().analyse(scan)

    assert any(f"trained on {TRAINED_ON} data" in flag for flag in findings.flags)
    largest = max(small_scan.nodules, key=lambda nodule: nodule.diameter_mm)
    distances = [
        np.linalg.norm(np.subtract(c.centre_xyz_mm, largest.centre_xyz_mm))
        for c in findings.candidates[:10]
    ]
    assert min(distances) < largest.diameter_mm / 2


def test_a_run_without_a_checkpoint_says_which_model_it_takes(tmp_path):
    said = []
    # Nothing to look at: what is said comes before.
    (tmp_path / "in").mkdir()
    run = detect_scans([tmp_path / "in"], tmp_path / "out", say=said.append)
    assert any("model in the box (slab_dino_small.pth)" in text for text in said)
    assert run.exit_code == 1
