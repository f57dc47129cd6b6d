# SPDX-License-Identifier: Apache-2.0
"""Random changes of training slabs: rotation, brightness, noise, a window, pasted nodules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmdet.registry import TRANSFORMS

from lungdet_mmdet.ct.augmentation import (
    add_gaussian_noise,
    cut_nodule,
    cut_window,
    find_place,
    paste_nodule,
    rotate_boxes,
    rotate_slab,
    scale_brightness,
)
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.splits.coco_json import read_coco


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

    - img, gt_bboxes (clipped to the image; where the centre leaves it, ignored)
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
    centres = 0.5 * (rotated[:, :2] + rotated[:, 2:])  # masks are cut at the rim
    if "gt_masks" in results:
        rotated = _rotate_masks(results, rotated, angle_deg=angle_deg)
    boxes.tensor = boxes.tensor.new_tensor(rotated)
    _clip_annotations(results, centres, height=height, width=width)


def _clip_annotations(results: dict, centres: np.ndarray, *, height: int, width: int) -> None:
    """Clip boxes to the picture in place, and drop those that lie beside it.

    Of what has its centre outside, less than half is to be seen: no target for a detector, but no
    background either. It becomes a region to be ignored.
    """
    boxes = results["gt_bboxes"]
    inside = np.all((centres >= 0) & (centres < (width, height)), axis=1)
    ignored = np.asarray(results.get("gt_ignore_flags", np.zeros(len(boxes))), dtype=bool)
    results["gt_ignore_flags"] = ignored | ~inside
    boxes.clip_((height, width))
    keep_annotations(results, boxes.areas.numpy() > 0)


def _refuse_masks(step: BaseTransform, results: dict) -> None:
    if "gt_masks" in results:
        raise LungDetError(
            f"{type(step).__name__} does not move masks of nodules; leave it out of the "
            "train_pipeline of a detector that learns masks, or load no masks"
        )


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
class RandomSlabReverse(BaseTransform):
    """Reverse the order of the channels: the slabs below and above change places.

    For slabs with their neighbours (``NeighbourChannels``): the scan seen upside down.

    Modified Keys:

    - img (array (y, x, c))

    Parameters
    ----------
    prob : probability of reversing.
    """

    def __init__(self, prob: float = 0.5) -> None:
        self.prob = prob

    @cache_randomness
    def _reverse(self) -> bool:
        return bool(np.random.random() < self.prob)

    def transform(self, results: dict) -> dict:
        if self._reverse():
            results["img"] = np.ascontiguousarray(results["img"][..., ::-1])
        return results


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


TISSUE_GREY = 150
"""Brighter pixels of a prepared slab are vessels, walls and nodules, not lung."""


@TRANSFORMS.register_module()
class RandomSlabWindow(BaseTransform):
    """Cut a square window, about a nodule, about dense tissue or anywhere in the lungs.

    Most of a slab is healthy. Windows show the detector many more nodules in the same time, and
    every one is of the same size in pixels, so of the same size in millimetres.

    Required Keys:

    - img (array (y, x, c))
    - gt_bboxes (HorizontalBoxes) (optional)
    - gt_bboxes_labels (np.int64 array), gt_ignore_flags (bool array) (optional)

    Modified Keys:

    - img, img_shape
    - gt_bboxes (clipped to the window; with the centre outside, ignored)
    - gt_bboxes_labels, gt_ignore_flags (of the boxes kept)

    Parameters
    ----------
    size_px : side of the window. Beyond the slab it is black.
    nodule_share : how often the window of a slab with nodules is put about one of them.
    tissue_share : how many of the others are put about a bright pixel, so about vessels and the
        mediastinum, where false positives come from; the rest about any pixel that is not black.
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
        else:
            grey = TISSUE_GREY if np.random.random() < self.tissue_share else 0
            shown = np.flatnonzero(image[..., image.shape[2] // 2] > grey)
            if len(shown):
                pixel = np.array(divmod(shown[np.random.randint(len(shown))], image.shape[1]))
                # Somewhere in the middle half of the window, which may reach beyond the slab:
                # kept within it, it would show what lies at the slab's rim half as often.
                low = high = pixel - np.random.uniform(0.25, 0.75, size=2) * self.size_px
        start = np.floor(np.random.uniform(low, np.maximum(low, high) + 1.0)).astype(int)
        return int(start[0]), int(start[1])

    def transform(self, results: dict) -> dict:
        _refuse_masks(self, results)
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
            _clip_annotations(results, centres, height=self.size_px, width=self.size_px)
        return results


@TRANSFORMS.register_module()
class PasteNodules(BaseTransform):
    """Paste nodules, cut from slabs of the dataset's own split, where the lungs have room.

    Nodules are sparse, and a DETR learns from few of them at a time. Pasting gives every slab some,
    each at new places, without showing the same slabs more often.

    Grey levels are those of the prepared slabs: windowed, with CLAHE as it was where the nodule
    was cut out, not as it would be where it is pasted.

    Required Keys:

    - img (uint8 array (y, x, c))
    - gt_bboxes (HorizontalBoxes), gt_bboxes_labels (np.int64 array), gt_ignore_flags (bool array)

    Modified Keys:

    - img, gt_bboxes, gt_bboxes_labels, gt_ignore_flags

    Parameters
    ----------
    most : nodules to paste are drawn evenly from none to so many; fewer where there is no room.
    scale : least and most enlargement.
    contrast : least and most factor of grey levels.

    Raises
    ------
    LungDetError
        On first use, if the annotations or a slab cannot be read, the split has no nodule, or it
        stands in the pipeline of another dataset than LUNA16SlabDataset.
    """

    source: tuple[Path, Path] | None = None
    """Annotations and folder of slabs to cut nodules from; `LUNA16SlabDataset` says which: a fold's
    or a user's own split is not pasted into by another one."""

    def __init__(
        self,
        most: int = 3,
        scale: tuple[float, float] = (0.8, 1.25),
        contrast: tuple[float, float] = (0.85, 1.1),
    ) -> None:
        self.most = most
        self.scale = tuple(scale)
        self.contrast = tuple(contrast)
        self._bank: list[tuple[np.ndarray, np.ndarray]] | None = None

    def transform(self, results: dict) -> dict:
        _refuse_masks(self, results)
        rng = np.random.mtrand._rand  # the one that mmengine seeds
        count = rng.randint(self.most + 1)
        if count == 0:
            return results
        if self._bank is None:
            if self.source is None:
                raise LungDetError(
                    "PasteNodules takes nodules from the split of its dataset, and was not told "
                    "which: use it in the pipeline of a LUNA16SlabDataset"
                )
            self._bank = nodule_bank(*self.source)
        image, boxes = results["img"], results["gt_bboxes"]
        taken = boxes.tensor.numpy().reshape(-1, 4)
        pasted: list[np.ndarray] = []
        for _ in range(count):
            source, box = self._bank[rng.randint(len(self._bank))]
            patch = cut_nodule(
                np.clip(source * rng.uniform(*self.contrast), 0, 255).astype(np.uint8),
                box,
                scale=rng.uniform(*self.scale),
                quarter_turns=rng.randint(4),
                mirrored=rng.randint(2) == 1,
            )
            place = find_place(image, patch, taken, rng)
            if place is not None:
                image, new = paste_nodule(image, patch, place)
                taken = np.concatenate([taken, new[None]])
                pasted.append(new)
        if pasted:
            results["img"] = image
            boxes.tensor = boxes.tensor.new_tensor(taken)
            boxes.clip_(image.shape[:2])
            extra = len(pasted)
            for key, value in (("gt_bboxes_labels", 0), ("gt_ignore_flags", False)):
                before = np.asarray(results[key])
                added = np.full(extra, value, dtype=before.dtype)
                results[key] = np.concatenate([before, added])
        return results


def nodule_bank(ann_file: str | Path, img_dir: str | Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return every nodule of a split: a piece of its slab (y, x, c) and its box (4,) xyxy in it."""
    coco = read_coco(ann_file)
    names = {image["id"]: image["file_name"] for image in coco["images"]}
    bank, last, slab = [], None, None
    for annotation in sorted(coco["annotations"], key=lambda a: a["image_id"]):
        if annotation["iscrowd"]:
            continue
        if annotation["image_id"] != last:
            last = annotation["image_id"]
            path = Path(img_dir) / names[last]
            slab = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if slab is None:
                raise LungDetError(f"{path}: cannot be read; prepare the scan again")
        x, y, width, height = annotation["bbox"]
        rim = 0.5 * max(width, height) + 4
        x0, y0 = int(max(0, x - rim)), int(max(0, y - rim))
        piece = slab[y0 : int(y + height + rim) + 1, x0 : int(x + width + rim) + 1].copy()
        bank.append((piece, np.array([x - x0, y - y0, x + width - x0, y + height - y0])))
    if not bank:
        raise LungDetError(f"{ann_file}: has no nodule to paste")
    return bank
