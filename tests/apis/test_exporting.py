"""Exported networks say what PyTorch says, or are not written."""

import numpy as np
import pytest

from lungdet_mmdet.apis import exporting
from lungdet_mmdet.apis.exporting import Agreement, export_model
from lungdet_mmdet.apis.model_file import ModelFile
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.evaluation.trained_checkpoint import config_as_data
from tests.support.untrained_model import (
    untrained_config,
    untrained_model,
    untrained_weights,
)

FORMATS = sorted(exporting.SUFFIXES.items())


def variant(**changes):
    """The untrained model with other settings of the detector."""
    config = untrained_config()
    config.model.update(changes)
    return ModelFile(
        name="variant",
        sha256="",
        config=config_as_data(config, source="variant"),
        state_dict=untrained_weights(config),
    )


@pytest.mark.parametrize(("file_format", "suffix"), FORMATS)
def test_the_exported_network_finds_what_the_detector_finds(
    detector, findings, file_format, suffix, tmp_path
):
    height, width = findings.slabs.shape[1:]
    assert height % 32 or width % 32  # the slab is padded inside the network
    path = tmp_path / f"network{suffix}"
    export_model(untrained_model(), path, file_format=file_format, size_yx=(height, width))
    run = {"onnx": exporting.run_onnx, "openvino": exporting.run_openvino}[file_format](path)
    index = len(findings.slabs) // 2
    grey = findings.slabs[index].astype(np.float32)
    boxes, scores = run(np.repeat(grey[None, None], 3, axis=1))
    expected = findings.detections[index]
    order = np.argsort(-scores)
    np.testing.assert_allclose(scores[order], expected.scores, atol=1e-4)
    # The detector clips boxes to the slab.
    clipped = np.clip(boxes[order], 0, [width, height, width, height])
    np.testing.assert_allclose(clipped, expected.boxes_xyxy_px, atol=0.05)


def test_box_refinement_can_be_exported(tmp_path):
    model = variant(with_box_refine=True)
    agreement = export_model(model, tmp_path / "m.onnx", file_format="onnx", size_yx=(64, 96))
    assert agreement.box_px < 0.01
    assert agreement.score < 1e-4


def test_a_network_that_differs_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "_compare", lambda network, run: Agreement(0.2, 0.0))
    with pytest.raises(LungDetError, match=r"differs from PyTorch by 0.2 px"):
        export_model(untrained_model(), tmp_path / "m.onnx", file_format="onnx", size_yx=(64, 64))
    assert not list(tmp_path.iterdir())


def test_the_comparison_sees_a_shifted_box():
    network = exporting.slab_network(untrained_model(), (64, 64))

    def shifted(slab):
        import torch

        with torch.no_grad():
            boxes, scores = network(torch.from_numpy(slab))
        return boxes.numpy() + 0.25, scores.numpy()

    assert exporting._compare(network, shifted) == Agreement(pytest.approx(0.25, abs=1e-4), 0.0)


def test_exporting_leaves_the_package_s_attention_in_place(tmp_path):
    from mmcv.ops import multi_scale_deform_attn

    from lungdet_mmdet.ops import attention_choice

    export_model(untrained_model(), tmp_path / "m.onnx", file_format="onnx", size_yx=(64, 64))
    after = getattr(multi_scale_deform_attn, attention_choice.NAME)
    assert after is attention_choice.embedding_bag_attention


def test_a_detector_without_queries_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "build_model", lambda model, device: object())
    with pytest.raises(LungDetError, match="only DETR"):
        export_model(untrained_model(), tmp_path / "m.onnx", file_format="onnx", size_yx=(64, 64))


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [("m.pth", (64, 64), r"has to end in \.onnx"), ("m.onnx", (0, 64), "must be positive")],
)
def test_a_wrong_name_or_size_is_refused(tmp_path, name, size, message):
    with pytest.raises(LungDetError, match=message):
        export_model(untrained_model(), tmp_path / name, file_format="onnx", size_yx=size)


def test_no_number_is_no_agreement():
    network = exporting.slab_network(untrained_model(), (64, 64))
    n = network.detector.num_queries
    nothing = np.full((n, 4), np.nan, np.float32), np.full(n, np.nan, np.float32)
    assert np.isnan(exporting._compare(network, lambda _: nothing).box_px)


def test_a_network_that_says_no_number_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "_compare", lambda *_: Agreement(float("nan"), 0.0))
    with pytest.raises(LungDetError, match="nothing was written"):
        export_model(untrained_model(), tmp_path / "m.onnx", file_format="onnx", size_yx=(64, 64))
    assert not list(tmp_path.iterdir())


def test_a_model_that_enlarges_its_slabs_is_refused():
    model = untrained_model()
    model.config["test_pipeline"].insert(1, {"type": "Resize", "scale_factor": 2.0})
    with pytest.raises(LungDetError, match=r"resizes slabs before the network sees them \(2\.0\)"):
        exporting.slab_network(model, (64, 64))
