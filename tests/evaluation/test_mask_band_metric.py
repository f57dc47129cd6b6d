import json

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.evaluation import MaskBandMetric


def rle(columns):
    image = np.zeros((20, 20), np.uint8)
    image[5:10, columns] = 1
    encoded = coco_mask.encode(np.asfortranarray(image))
    return {"size": [20, 20], "counts": encoded["counts"].decode()}


def annotations(folder, *, segmented=True):
    """One slab with a 5 mm nodule in rows 5..9, columns 5..9."""
    image = {
        "id": 1, "seriesuid": "1.2", "slab_index": 0, "spacing": [1, 1, 7.5], "origin": [0, 0, 0],
        "direction": [1, 0, 0, 0, 1, 0, 0, 0, 1], "width": 64, "height": 64, "z_range_mm": [0, 7.5],
    }  # fmt: skip
    box = {"id": 1, "image_id": 1, "bbox": [5, 5, 5, 5], "diameter_mm": 5.0, "iscrowd": 0}
    if segmented:
        box["segmentation"] = rle(slice(5, 10))
    path = folder / "val.json"
    content = {"images": [image], "annotations": [box], "series": ["1.2"]}
    content |= {"info": {}, "nodules": []}
    path.write_text(json.dumps(content))
    return str(path)


def sample(columns):
    mask = np.zeros((1, 20, 20), bool)
    mask[0, 5:10, columns] = True
    found = InstanceData(
        bboxes=torch.tensor([[5.0, 5.0, 10.0, 10.0]]),
        scores=torch.tensor([0.9]),
        masks=torch.from_numpy(mask),
    )
    return {"img_id": 1, "pred_instances": found}


def figures(folder, columns, **options):
    metric = MaskBandMetric(annotations(folder, **options))
    metric.process({}, [sample(columns)])
    return metric.evaluate(1)


def test_the_outline_decides_and_not_the_box(tmp_path):
    # The box is the true one each time; the outline has four of five columns, then two.
    assert figures(tmp_path, slice(5, 9))["mask/AP50_small"] == pytest.approx(1.0)
    assert figures(tmp_path, slice(5, 7))["mask/AP50_small"] == 0.0


def test_bands_without_a_nodule_are_undefined(tmp_path):
    assert np.isnan(figures(tmp_path, slice(5, 10))["mask/AP50_large"])


def test_annotations_without_outlines_are_refused(tmp_path):
    with pytest.raises(LungDetError, match="prepare with --nodule-masks"):
        figures(tmp_path, slice(5, 10), segmented=False)


def test_slabs_of_another_split_are_refused(tmp_path):
    metric = MaskBandMetric(annotations(tmp_path))
    metric.process({}, [{**sample(slice(5, 10)), "seriesuid": "1.3", "slab_index": 0}])
    with pytest.raises(LungDetError, match=r"was slab 0 of 1\.3 to the model"):
        metric.evaluate(1)
