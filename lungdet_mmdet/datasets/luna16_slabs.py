"""The LUNA16 sparse-nodule dataset: mostly healthy slabs, a few with nodules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.logging import MMLogger, print_log

from lungdet_mmdet.cohort.sampling import draw_at_positive_rate
from lungdet_mmdet.datasets.split_summary import log_split_summary
from lungdet_mmdet.errors import LungDetError

# Fields of a slab that travel with its image, for boxes in world millimetres.
SLAB_FIELDS = ("seriesuid", "slab_index", "z_range_mm", "spacing", "origin", "direction")


@DATASETS.register_module()
class LUNA16SlabDataset(CocoDataset):
    """Slabs of a prepared LUNA16 folder.

    Healthy slabs are kept always; mmdet's ``filter_empty_gt`` is refused, since it would drop them.

    Parameters
    ----------
    positive_rate : share of slabs with a nodule to draw, e.g. 0.03; None takes the split as it is.
        Healthy slabs are left out to raise the rate, positive ones to lower it.
    positive_rate_seed : seed of that draw; the same slabs are drawn on every machine.
    ann_file, data_root, pipeline, test_mode : as for every mmdet dataset.

    Raises
    ------
    LungDetError
        If the annotation file is missing (the message says which commands make it), or
        ``filter_empty_gt`` is set.
    """

    METAINFO = {"classes": ("nodule",), "palette": [(220, 20, 60)]}

    def __init__(
        self,
        *args: Any,
        positive_rate: float | None = None,
        positive_rate_seed: int = 0,
        filter_cfg: dict | None = None,
        **kwargs: Any,
    ) -> None:
        if filter_cfg and filter_cfg.get("filter_empty_gt"):
            raise LungDetError(
                "filter_cfg has filter_empty_gt=True, which would drop every healthy slab; "
                "set it to False"
            )
        self.positive_rate = positive_rate
        self.positive_rate_seed = positive_rate_seed
        super().__init__(*args, filter_cfg=filter_cfg, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Load slabs, draw the wanted positive rate, and log what the split holds."""
        if not Path(self.ann_file).is_file():
            raise LungDetError(missing_data_message(self.ann_file))
        data_list = super().load_data_list()
        if self.positive_rate is not None:
            ignore_flags = [[i["ignore_flag"] for i in info["instances"]] for info in data_list]
            drawn = draw_at_positive_rate(
                np.array([not all(flags) for flags in ignore_flags], dtype=bool),
                self.positive_rate,
                self.positive_rate_seed,
                is_ignored=np.array([bool(f) and all(f) for f in ignore_flags], dtype=bool),
            )
            print_log(
                f"{self.ann_file}: drew {len(drawn)} of {len(data_list)} slabs at a positive rate "
                f"of {self.positive_rate:.1%} (seed {self.positive_rate_seed})",
                logger="current",
            )
            data_list = [data_list[i] for i in drawn]
        log_split_summary(self.ann_file, logger=MMLogger.get_current_instance())
        return data_list

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """Keep the slab's geometry beside mmdet's own fields."""
        info = super().parse_data_info(raw_data_info)
        image = raw_data_info["raw_img_info"]
        missing = [field for field in SLAB_FIELDS if field not in image]
        if missing:
            raise LungDetError(
                f"{self.ann_file}: image {image.get('file_name')} has no {', '.join(missing)}; "
                "make the splits again: python data_prep/make_splits.py PREPARED_DIR"
            )
        info.update({field: image[field] for field in SLAB_FIELDS})
        return info


def missing_data_message(path: str | Path) -> str:
    """Return the message for missing prepared data: the two commands that make it."""
    return (
        f"{path}: no prepared data here. Make it with\n"
        "  python data_prep/prepare_luna16.py LUNA16_DIR PREPARED_DIR\n"
        "(without LUNA16, phantoms do: python data_prep/make_phantom.py LUNA16_DIR --scans 20), "
        "and name the folder:\n"
        "  python tools/train.py CONFIG --data PREPARED_DIR"
    )
