"""Lower precision is checked against 32 bits on every scan, and several GPUs are shared out."""

import multiprocessing

import numpy as np
import pytest
import torch

from lungdet_mmdet.apis import infer
from lungdet_mmdet.apis.model_building import detection_change, device_of_worker
from lungdet_mmdet.apis.scan_detector import ScanDetector
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.scoring.slab_records import SlabDetections


def found(boxes, scores, img_id=0):
    return SlabDetections(img_id, np.array(boxes, float).reshape(-1, 4), np.array(scores, float))


@pytest.mark.parametrize(
    ("other", "change"),
    [
        (found([[10, 10, 20, 20]], [0.9]), (0.0, 0.0)),
        (found([[10, 10.5, 20, 18]], [0.8]), (0.1, 2.0)),
        (found([], []), (0.9, 0.0)),
        # A second faint box is compared as well, a fainter one is not.
        (found([[10, 10, 20, 20], [40, 40, 50, 50]], [0.9, 0.01]), (0.0, 0.0)),
        (found([[10, 10, 20, 20], [13, 10, 20, 20]], [0.9, 0.2]), (0.7, 3.0)),
    ],
)
def test_what_a_precision_changes_is_measured_box_by_box(other, change):
    assert detection_change(found([[10, 10, 20, 20]], [0.9]), other) == pytest.approx(change)


def test_bfloat16_is_what_runs_and_heads_stay_exact(model_path, scan):
    detector = ScanDetector(model_path, device="cpu", batch_size=8, precision="bf16")
    seen = {"backbone": set(), "bbox_head": set()}
    for name in seen:
        module = getattr(detector._models[0][1], name)
        module.register_forward_hook(lambda *a, n=name: seen[n].add(a[2][0].dtype))
    findings = detector.analyse(scan)
    assert torch.bfloat16 in seen["backbone"]
    assert seen["bbox_head"] == {torch.float32}
    assert {"precision", "score_change", "box_change_px"} <= set(findings.model)


@pytest.mark.parametrize(("shift_px", "precision"), [(0.5, "bf16"), (3.0, "fp32")])
def test_a_scan_that_changes_too_much_is_looked_at_in_32_bits(
    model_path, scan, monkeypatch, shift_px, precision
):
    detector = ScanDetector(model_path, device="cpu", precision="bf16")
    asked = []

    def detect(self, images, slabs, name):
        asked.append((name, len(slabs)))
        moved = shift_px if name == "bf16" else 0.0
        return [
            found([[30 + moved, 30, 42 + moved, 42]], [0.2 + 0.5 * (slab.img_id == 3)], slab.img_id)
            for slab in slabs
        ]

    monkeypatch.setattr(ScanDetector, "_detect_slabs", detect)
    findings = detector.analyse(scan)
    slabs = len(findings.slabs)
    assert asked[:2] == [("bf16", slabs), ("fp32", 1)]
    assert asked[2:] == ([("fp32", slabs)] if precision == "fp32" else [])
    assert findings.model["precision"] == precision
    assert findings.model["box_change_px"] == shift_px
    flags = [flag for flag in findings.flags if "bf16" in flag]
    assert len(flags) == (precision == "fp32")
    assert all("3.0 px on slab 3: the network looked at this scan in fp32" in f for f in flags)
    assert findings.detections[0].boxes_xyxy_px[0, 0] == (30 if precision == "fp32" else 30.5)


def test_precisions_that_cannot_be_had_are_refused(model_path):
    with pytest.raises(LungDetError, match="'half' is unknown: use fp32, tf32, fp16, bf16"):
        ScanDetector(model_path, device="cpu", precision="half")
    with pytest.raises(LungDetError, match="'tf32' is one of GPUs"):
        ScanDetector(model_path, device="cpu", precision="tf32")


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def test_workers_share_out_the_gpus(two_gpus, monkeypatch):
    process = multiprocessing.current_process()
    assert device_of_worker("auto") == "auto"  # the main process takes what it is given
    for number, device in ((1, "cuda:0"), (2, "cuda:1"), (3, "cuda:0")):
        monkeypatch.setattr(process, "_name", f"SpawnProcess-{number}")
        assert device_of_worker("auto") == device_of_worker("cuda") == device
        assert device_of_worker("cuda:1") == "cuda:1"
        assert device_of_worker("cpu") == "cpu"


class StoppedError(Exception):
    """Raised in place of working."""


@pytest.mark.parametrize(
    ("options", "workers"),
    [({}, 2), ({"device": "cuda:1"}, 0), ({"device": "cpu"}, 0), ({"workers": 5}, 5)],
)
def test_several_gpus_work_on_a_scan_each(
    two_gpus, monkeypatch, model_path, tmp_path, options, workers
):
    asked = []

    def stop(number, **_):
        asked.append(number)
        raise StoppedError

    monkeypatch.setattr(infer, "find_workplace", stop)
    with pytest.raises(StoppedError):
        infer.detect_scans(
            [tmp_path],
            tmp_path / "out",
            infer.DetectorOptions((model_path,), device=options.get("device", "auto")),
            workers=options.get("workers", 0),
        )
    assert asked == [workers]
