# SPDX-License-Identifier: Apache-2.0
"""The registered data set of slabs, the last step of its pipelines, and the table of a split."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.datasets.transforms import PackDetInputs
from mmdet.registry import DATASETS, TRANSFORMS
from mmengine.logging import MMLogger, print_log
from rich.console import Console
from rich.table import Table
from torch import Tensor

from lungdet_mmdet.annotations.slab_boxes import WELL_COVERED
from lungdet_mmdet.datasets.transforms.augmentation import PasteNodules
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.splits.coco_checks import CohortSummary, label_text, summarise
from lungdet_mmdet.splits.coco_json import check_slab_image, read_coco, split_command
from lungdet_mmdet.splits.labels import Status
from lungdet_mmdet.splits.split_part import draw_at_positive_rate

TABLE_WIDTH = 100


def summary_table(summary: CohortSummary) -> Table:
    """Return a summary as a two-column table."""
    title = f"{summary.split}: {summary.data} data, {summary.protocol} protocol"
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column("what")
    table.add_column("count", justify="right")
    rate = "-" if summary.rate is None else f"{summary.rate:.1%}"
    bands = ", ".join(f"{count} {name}" for name, count in summary.nodules_by_band)
    for what, count in (
        ("slabs", summary.slabs),
        ("  with a nodule", summary.positives),
        ("  healthy", summary.healthy),
        ("  ignored (a nodule's edge, or an excluded finding)", summary.ignored),
        ("positive rate", rate),
        ("series", summary.series),
        ("  without a nodule", summary.series_without_nodules),
        ("nodules", f"{summary.nodules} ({bands})"),
        ("  labels", label_text(summary)),
        ("  in no slab (counted as missed)", summary.unseen),
        (f"  covered by the lung mask to less than {100 * WELL_COVERED:g} %", summary.lost_to_mask),
    ):
        table.add_row(what, str(count))
    return table


def log_split_summary(ann_file: str | Path, coco: Mapping[str, Any], *, logger: MMLogger) -> None:
    """Log what an annotation file holds; ``coco`` is its content."""
    summary = summarise(coco)
    console = Console(file=io.StringIO(), width=TABLE_WIDTH)
    console.print(summary_table(summary))
    logger.info("%s\n%s", ann_file, console.file.getvalue().rstrip())
    if summary.positives == 0:
        logger.warning("%s: no slab with a nodule: every score on it will be undefined", ann_file)


# Fields of a slab that travel with its image, for boxes in world millimetres.
SLAB_FIELDS = ("seriesuid", "slab_index", "z_range_mm", "spacing", "origin", "direction")


class SharedCoco(COCO):
    """mmdet's index of an annotation file, over the content that others of this run read too."""

    def __init__(self, annotation_file: str) -> None:
        super().__init__()
        content = read_coco(annotation_file)
        # mmdet adds a key to every image.
        self.dataset = content | {"images": [dict(image) for image in content["images"]]}
        with contextlib.redirect_stdout(io.StringIO()):
            self.createIndex()
        self.img_ann_map, self.cat_img_map = self.imgToAnns, self.catToImgs


@DATASETS.register_module()
class LUNA16SlabDataset(CocoDataset):
    """Slabs of a prepared LUNA16 folder.

    Healthy slabs are kept always; mmdet's ``filter_empty_gt`` is refused, since it would drop them.

    Parameters
    ----------
    positive_rate : share of slabs with a nodule to draw, e.g. 0.03; None takes the split as it is.
        Healthy slabs are left out to raise the rate, positive ones to lower it.
    positive_rate_seed : seed of that draw; the same slabs are drawn on every machine.
    with_masks : whether the pipeline's LoadAnnotations loads masks too.
    ann_file, data_root, pipeline, test_mode : as for every mmdet dataset.

    Raises
    ------
    LungDetError
        If the annotation file is missing (the message says which commands make it), or
        ``filter_empty_gt`` is set.
    """

    COCOAPI = SharedCoco
    METAINFO = {"classes": ("nodule",), "palette": [(220, 20, 60)]}

    def __init__(
        self,
        *args: Any,
        positive_rate: float | None = None,
        positive_rate_seed: int = 0,
        filter_cfg: dict | None = None,
        with_masks: bool = False,
        pipeline: Sequence[Any] = (),
        **kwargs: Any,
    ) -> None:
        if filter_cfg and filter_cfg.get("filter_empty_gt"):
            raise LungDetError(
                "filter_cfg has filter_empty_gt=True, which would drop every healthy slab; "
                "set it to False"
            )
        self.positive_rate = positive_rate
        self.positive_rate_seed = positive_rate_seed
        self.with_masks = with_masks
        if with_masks:
            pipeline = [_loading_masks(step) for step in pipeline]
        super().__init__(*args, filter_cfg=filter_cfg, pipeline=pipeline, **kwargs)
        for step in self.pipeline.transforms:
            if isinstance(step, PasteNodules):
                step.source = Path(self.ann_file), Path(self.data_prefix["img"])

    def load_data_list(self) -> list[dict]:
        """Load slabs, draw the wanted positive rate, and log what the split holds."""
        if not Path(self.ann_file).is_file():
            raise LungDetError(missing_data_message(self.ann_file))
        # Held here, so that index and summary share what is read once.
        content = read_coco(self.ann_file)
        check_holds_slabs(self.ann_file, content)
        data_list = super().load_data_list()
        if self.positive_rate is not None:
            kinds = np.array([slab_kind(info) for info in data_list])
            drawn = draw_at_positive_rate(
                kinds == "positive",
                self.positive_rate,
                self.positive_rate_seed,
                is_ignored=kinds == "ignored",
            )
            print_log(
                f"{self.ann_file}: drew {len(drawn)} of {len(data_list)} slabs at a positive rate "
                f"of {self.positive_rate:.1%} (seed {self.positive_rate_seed})",
                logger="current",
            )
            data_list = [data_list[i] for i in drawn]
        log_split_summary(self.ann_file, content, logger=MMLogger.get_current_instance())
        return data_list

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """Keep the slab's geometry beside mmdet's own fields."""
        info = super().parse_data_info(raw_data_info)
        image = raw_data_info["raw_img_info"]
        missing = [field for field in SLAB_FIELDS if field not in image]
        if missing:
            raise LungDetError(
                f"{self.ann_file}: image {image.get('file_name')} has no {', '.join(missing)}; "
                f"make the splits again: {split_command(self.ann_file)}"
            )
        check_slab_image(image, source=str(self.ann_file))
        if self.with_masks and any("mask" not in instance for instance in info["instances"]):
            raise LungDetError(
                f"{self.ann_file}: has no segmentations; prepare the scans with "
                "`lungdet prepare --nodule-masks DIR`"
            )
        info.update({field: image[field] for field in SLAB_FIELDS})
        return info


def slab_kind(info: Mapping[str, Any]) -> Status:
    """Return "positive" (with a nodule), "ignored" (ignore regions only) or "healthy".

    ``info`` is what a data set's ``get_data_info`` gives of the slab.
    """
    flags = [bool(instance["ignore_flag"]) for instance in info["instances"]]
    if not flags:
        return "healthy"
    return "ignored" if all(flags) else "positive"


def _loading_masks(step: Any) -> Any:
    if isinstance(step, Mapping) and step.get("type") == "LoadAnnotations":
        return {**step, "with_mask": True}
    return step


def check_holds_slabs(path: str | Path, content: Mapping[str, Any]) -> None:
    """Refuse a part of a split that is empty: a few scans cannot be divided in three.

    Raises LungDetError naming the annotation file and the remedy.
    """
    if content["images"]:
        return
    if content["info"].get("protocol") == "fold":
        raise LungDetError(
            f"{path}: holds no slab; no scan of that official subset is prepared: prepare it, or "
            "leave its fold out (--folds)"
        )
    raise LungDetError(
        f"{path}: holds no slab; prepare more scans, or make the splits again with other "
        f"ratios or another seed: {split_command(path)} (with `--protocol "
        "paper`, which divides slabs instead of scans, a few scans do to try out a training)"
    )


def missing_data_message(path: str | Path) -> str:
    """Return the message for missing prepared data: the two commands that make it."""
    return (
        f"{path}: no prepared data here. Make it with\n"
        "  lungdet prepare LUNA16_DIR PREPARED_DIR\n"
        "(without LUNA16, phantoms do: lungdet phantom LUNA16_DIR --scans 20), "
        "and name the folder:\n"
        "  lungdet train CONFIG --data PREPARED_DIR"
    )


@TRANSFORMS.register_module()
class PackSlab(PackDetInputs):
    """mmdet's PackDetInputs, with a grey slab held once instead of three times.

    The image is still (3, height, width) for whoever reads it, but where the channels are equal
    they share their memory: a loading process hands over one channel of 8 bits, or of 16 after
    noise, which is a twelfth or a sixth of three in 32 bits. Half precision is off by
    1/16 of a grey level at most; detectors compute in 32 bits or by their own rules.

    Required, modified and added keys are those of PackDetInputs.
    """

    def transform(self, results: dict) -> dict:
        """Pack image and annotations."""
        packed = super().transform(results)
        packed["inputs"] = compact(packed["inputs"])
        return packed


def compact(image: Tensor) -> Tensor:
    """Return the same (channels, height, width) image in as few bytes as hold it.

    One channel becomes three. Floats become half precision; grey levels up to 255 fit.
    """
    if image.dtype == torch.float32:
        image = image.half()
    first = image[:1]
    if len(image) > 1 and not all(torch.equal(first[0], other) for other in image[1:]):
        return image.contiguous()
    # A copy: a view of the first channel would carry the others along.
    return first.clone(memory_format=torch.contiguous_format).expand(3, -1, -1)
