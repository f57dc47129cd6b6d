"""Figure 2: the numbers in the blocks are the config's."""

from pathlib import Path

import pytest
from mmengine.config import Config

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.reports.method_figures import architecture_figure, detector_blocks

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def texts_of(name, **changes):
    config = Config.fromfile(CONFIGS / name, import_custom_modules=False)
    config.merge_from_dict(changes)
    columns = detector_blocks(config.model, thickness_mm=7.5)
    return [text for column in columns for block in column for text in (block.title, *block.lines)]


def test_the_papers_detector():
    texts = texts_of("lung_deform_detr.py")

    assert {"7.5 mm MIP", "ResNet-50", "strides 8, 16, 32", "strides 8, 16, 32, 64"} <= set(texts)
    assert {"Encoder, 6 layers", "Decoder, 6 layers", "300 queries", "learnt"} <= set(texts)
    assert "gamma 2, alpha 0.25" in texts
    assert texts.count("deformable, 8 heads, 4 points") == 2


def test_changes_of_a_config_are_drawn():
    texts = texts_of(
        "lung_deform_detr.py", **{"model.encoder.num_layers": 2, "model.num_queries": 77}
    )

    assert {"Encoder, 2 layers", "Decoder, 6 layers", "77 queries"} <= set(texts)


def test_a_plain_detr_has_one_level_and_looks_everywhere():
    texts = texts_of("lung_detr.py")

    assert {"level C5", "stride 32", "attention to all, 8 heads", "CrossEntropyLoss"} <= set(texts)


def test_a_detector_without_a_transformer_is_refused():
    with pytest.raises(LungDetError, match="RetinaNet.*of that family"):
        texts_of("lung_retinanet.py")


def test_the_figure_is_a_png():
    model = Config.fromfile(CONFIGS / "lung_dino.py", import_custom_modules=False).model

    assert architecture_figure(model, thickness_mm=5, note="x").startswith(b"\x89PNG")
