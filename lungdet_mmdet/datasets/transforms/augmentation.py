"""Random changes of training slabs: rotation, brightness, noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmdet.registry import TRANSFORMS

from lungdet_mmdet.ct.augmentation import (
    add_gaussian_noise,
    rotate_boxes,
    rotate_slab,
    scale_brightness,
)


@TRANSFORMS.register_module()
class RandomSlabRotate(BaseTransform):
    """Rotate by a random angle about the image centre.

    A nodule is modelled as a sphere, so its box keeps its size and only its centre turns; mmdet's
    own Rotate would let every box grow. Where masks are loaded they turn too, and the boxes are the
    tight ones of the turned masks.

    Required Keys:

    - img (array (y, x, c))
    - gt_bboxes (HorizontalBoxes) (optional)
    - gt_masks (BitmapMasks) (optional)
    - gt_bboxes_labels (np.int64 array), gt_ignore_flags (bool array) (optional)

    Modified Keys:

    - img, gt_bboxes (clipped to the image; boxes whose centre leaves it are dropped)
    - gt_masks, gt_bboxes_labels, gt_ignore_flags (of the boxes kept)

    Parameters
    ----------
    max_angle_deg : angles are uniform in ``[-max_angle_deg, max_angle_deg]``.
    prob : probability of rotating at all.
    """

    def __init__(self, max_angle_deg: float = 15.0, prob: float = 1.0) -> None:
        self.max_angle_deg = max_angle_deg
        self.prob = prob

    @cache_randomness
    def _angle(self) -> float:
        if np.random.random() >= self.prob:
            return 0.0
        return float(np.random.uniform(-self.max_angle_deg, self.max_angle_deg))

    def transform(self, results: dict) -> dict:
        """Rotate image and boxes by the same angle."""
        angle = self._angle()
        if angle == 0.0:
            return results
        height, width = results["img"].shape[:2]
        results["img"] = rotate_slab(results["img"], angle_deg=angle)
        if "gt_bboxes" in results:
            _rotate_annotations(results, angle_deg=angle, height=height, width=width)
        return results


def _rotate_annotations(results: dict, *, angle_deg: float, height: int, width: int) -> None:
    boxes = results["gt_bboxes"]
    rotated = rotate_boxes(boxes.tensor.numpy(), angle_deg=angle_deg, height=height, width=width)
    if "gt_masks" in results:
        rotated = _rotate_masks(results, rotated, angle_deg=angle_deg)
    boxes.tensor = boxes.tensor.new_tensor(rotated)
    centres = 0.5 * (rotated[:, :2] + rotated[:, 2:])
    # Less than half of such a nodule is still to be seen: no target for a detector.
    kept = np.all((centres >= 0) & (centres <= (width, height)), axis=1)
    boxes.clip_((height, width))
    keep_annotations(results, kept)


def keep_annotations(results: dict, kept: np.ndarray) -> None:
    """Drop annotations in place; ``kept`` (N,) bool says which boxes stay, with all they have."""
    results["gt_bboxes"] = results["gt_bboxes"][kept]
    if "gt_masks" in results:
        results["gt_masks"] = results["gt_masks"][np.flatnonzero(kept)]
    for key in ("gt_bboxes_labels", "gt_ignore_flags"):
        if key in results:
            results[key] = results[key][kept]


def _rotate_masks(results: dict, boxes: np.ndarray, *, angle_deg: float) -> np.ndarray:
    """Turn the masks; return their tight boxes, and the given ones where nothing is left."""
    masks = results["gt_masks"]
    boxes = boxes.copy()
    turned = np.zeros_like(masks.masks)
    for row, mask in enumerate(masks.masks):
        # Cut at one half: an outline as smooth as the image's own.
        turned[row] = rotate_slab(255 * mask, angle_deg=angle_deg) > 127
        if turned[row].any():
            ys, xs = np.nonzero(turned[row])
            boxes[row] = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
    results["gt_masks"] = type(masks)(turned, masks.height, masks.width)
    return boxes


@TRANSFORMS.register_module()
class RandomSlabBrightness(BaseTransform):
    """Multiply grey levels by a random factor.

    Required Keys:

    - img (array (y, x, c))

    Modified Keys:

    - img (same dtype; clipped to 0..255)

    Parameters
    ----------
    max_change : factors are uniform in ``[1 - max_change, 1 + max_change]``.
    """

    def __init__(self, max_change: float = 0.15) -> None:
        self.max_change = max_change

    @cache_randomness
    def _factor(self) -> float:
        return float(np.random.uniform(1.0 - self.max_change, 1.0 + self.max_change))

    def transform(self, results: dict) -> dict:
        """Scale ``results['img']``; black stays black."""
        results["img"] = scale_brightness(results["img"], factor=self._factor())
        return results


@TRANSFORMS.register_module()
class RandomSlabNoise(BaseTransform):
    """Add Gaussian noise of a random standard deviation.

    Required Keys:

    - img (array (y, x, c))

    Modified Keys:

    - img (float32: the paper's noise is below one grey level and would vanish in 8 bits)

    Parameters
    ----------
    sd_percent : lowest and highest standard deviation in per cent of the full grey range.
    """

    def __init__(self, sd_percent: Sequence[float] = (0.001, 0.18)) -> None:
        self.sd_percent = tuple(sd_percent)

    @cache_randomness
    def _draw(self) -> tuple[float, int]:
        # mmengine seeds the global generator per worker; all further draws come from this seed.
        sd = float(np.random.uniform(*self.sd_percent)) / 100.0 * 255.0
        return sd, int(np.random.randint(2**31))

    def transform(self, results: dict) -> dict:
        """Add the same noise to all channels of ``results['img']``."""
        sd, seed = self._draw()
        results["img"] = add_gaussian_noise(results["img"], sd=sd, rng=np.random.default_rng(seed))
        return results
