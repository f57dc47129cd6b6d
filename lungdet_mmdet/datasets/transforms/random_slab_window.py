"""Cut a window of a slab to train on."""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmdet.registry import TRANSFORMS

from lungdet_mmdet.ct.augmentation import cut_window
from lungdet_mmdet.datasets.transforms.augmentation import keep_annotations

TISSUE_GREY = 150
"""Brighter pixels of a prepared slab are vessels, walls and nodules, not lung."""


@TRANSFORMS.register_module()
class RandomSlabWindow(BaseTransform):
    """Cut a square window, about a nodule, about dense tissue or anywhere.

    Most of a slab is healthy. Windows show the detector many more nodules in the same time, and
    every one is of the same size in pixels, so of the same size in millimetres.

    Required Keys:

    - img (array (y, x, c))
    - gt_bboxes (HorizontalBoxes) (optional)
    - gt_bboxes_labels (np.int64 array), gt_ignore_flags (bool array) (optional)

    Modified Keys:

    - img, img_shape
    - gt_bboxes (clipped to the window; boxes whose centre lies outside are dropped)
    - gt_bboxes_labels, gt_ignore_flags (of the boxes kept)

    Parameters
    ----------
    size_px : side of the window. A smaller slab is filled up with black.
    nodule_share : how often the window of a slab with nodules is put about one of them.
    tissue_share : how many of the others are put about a bright pixel, so about vessels and the
        mediastinum, where false positives come from; the rest may lie anywhere.
    """

    def __init__(
        self, size_px: int = 128, nodule_share: float = 0.75, tissue_share: float = 0.5
    ) -> None:
        self.size_px = size_px
        self.nodule_share = nodule_share
        self.tissue_share = tissue_share

    @cache_randomness
    def _start(self, image: np.ndarray, boxes: np.ndarray) -> tuple[int, int]:
        """Draw first row and column; ``boxes`` (N, 4) xyxy are the nodules to be found."""
        low = np.minimum(0, np.array(image.shape[:2]) - self.size_px)
        high = np.maximum(0, np.array(image.shape[:2]) - self.size_px)
        if len(boxes) and np.random.random() < self.nodule_share:
            x0, y0, x1, y1 = boxes[np.random.randint(len(boxes))]
            first, last = np.array([y0, x0]), np.array([y1, x1])
            # The whole nodule lies inside where there is room; one larger than the window does not.
            low = np.clip(np.ceil(last) - self.size_px, low, high)
            high = np.clip(np.floor(first), low, high)
        elif np.random.random() < self.tissue_share:
            bright = np.flatnonzero(image[..., image.shape[2] // 2] > TISSUE_GREY)
            if len(bright):
                pixel = np.array(divmod(bright[np.random.randint(len(bright))], image.shape[1]))
                # Somewhere in the middle half of the window.
                shift = np.random.uniform(0.25, 0.75, size=2) * self.size_px
                low = high = np.clip(pixel - shift, low, high)
        start = np.floor(np.random.uniform(low, np.maximum(low, high) + 1.0)).astype(int)
        return int(start[0]), int(start[1])

    def transform(self, results: dict) -> dict:
        """Cut image and boxes alike."""
        boxes, ignored = results.get("gt_bboxes"), results.get("gt_ignore_flags")
        nodules = np.zeros((0, 4))
        if boxes is not None:
            nodules = boxes.tensor.numpy()
            if ignored is not None:
                nodules = nodules[~np.asarray(ignored, dtype=bool)]
        y, x = self._start(results["img"], nodules)
        results["img"] = cut_window(results["img"], start_yx=(y, x), size_px=self.size_px)
        results["img_shape"] = results["img"].shape[:2]
        if boxes is not None:
            boxes.translate_((-x, -y))
            centres = boxes.centers.numpy()
            kept = np.all((centres >= 0) & (centres < self.size_px), axis=1)
            boxes.clip_((self.size_px, self.size_px))
            keep_annotations(results, kept)
        return results
