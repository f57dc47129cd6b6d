"""Paste nodules of the training split into slabs."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

from lungdet_mmdet.ct.pasting import cut_nodule, find_place, paste_nodule
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.splits.coco_json import read_coco


@TRANSFORMS.register_module()
class PasteNodules(BaseTransform):
    """Paste nodules, cut from slabs of the training split, where the lungs have room.

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
    data_root : the prepared dataset.
    ann_file : in it, the training split's annotations; their nodules are the bank.
    img_dir : in it, the folder that the annotations' file names start from.
    most : nodules to paste are drawn evenly from none to so many; fewer where there is no room.
    scale : least and most enlargement.
    contrast : least and most factor of grey levels.

    Raises
    ------
    LungDetError
        On first use, if the annotations or a slab cannot be read, or the split has no nodule.
    """

    def __init__(
        self,
        data_root: str,
        ann_file: str = "annotations/train.json",
        img_dir: str = "slabs",
        most: int = 3,
        scale: tuple[float, float] = (0.8, 1.25),
        contrast: tuple[float, float] = (0.85, 1.1),
    ) -> None:
        self.ann_file = Path(data_root) / ann_file
        self.img_dir = Path(data_root) / img_dir
        self.most = most
        self.scale = tuple(scale)
        self.contrast = tuple(contrast)
        self._bank: list[tuple[np.ndarray, np.ndarray]] | None = None

    def transform(self, results: dict) -> dict:
        """Paste into image and boxes."""
        rng = np.random.mtrand._rand  # the one that mmengine seeds
        count = rng.randint(self.most + 1)
        if count == 0:
            return results
        if self._bank is None:
            self._bank = nodule_bank(self.ann_file, self.img_dir)
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
