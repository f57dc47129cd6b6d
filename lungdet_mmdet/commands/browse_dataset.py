# SPDX-License-Identifier: Apache-2.0
"""Pictures of a dataset's slabs, stored and augmented, to check the labels by eye.

    lungdet browse CONFIG --data PREPARED_DIR --split train --out DIR

Left the slab as it is stored, right what the detector is shown. Nodules are green with their
diameter, ignore regions grey; each slab's place along the normal (z) is under it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from lungdet_mmdet.errors import LungDetError


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("config", type=Path, help="config file")
    add("--data", type=Path, help="prepared dataset (default: $LUNGDET_DATA)")
    add(
        "--split",
        choices=("train", "val", "test"),
        default="train",
        help="(default: %(default)s)",
    )
    add("--out", type=Path, required=True, help="folder for the pages")
    add(
        "--kind",
        choices=("positive", "healthy", "ignored", "all"),
        default="positive",
        help="which slabs (default: %(default)s)",
    )
    add("--slabs", type=int, default=24, help="how many (default: %(default)s)")
    add("--per-page", type=int, default=4, help="slabs on a page (default: %(default)s)")
    add("--repeats", type=int, default=2, help="augmentations of each (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the draw of slabs and augmentations")
    args = parser.parse_args(argv)
    for name in ("slabs", "per_page", "repeats"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    from mmdet.registry import DATASETS
    from mmengine.registry import init_default_scope
    from mmengine.runner import set_random_seed

    from lungdet_mmdet.apis.config_file import check_data, read_config
    from lungdet_mmdet.apis.figures import choose_slabs, slab_pictures
    from lungdet_mmdet.reports.slab_overlays import picture_grid, write_png

    config = read_config(args.config, data=args.data)
    check_data(config, (args.split,))
    init_default_scope("mmdet")
    set_random_seed(args.seed)
    dataset = DATASETS.build(config[f"{args.split}_dataloader"].dataset)
    indices = choose_slabs(dataset, args.kind, count=args.slabs, seed=args.seed)
    if not indices:
        raise LungDetError(f"{dataset.ann_file}: has no {args.kind} slab; try another --kind")
    args.out.mkdir(parents=True, exist_ok=True)
    for page, start in enumerate(range(0, len(indices), args.per_page)):
        part = indices[start : start + args.per_page]
        picture = picture_grid(slab_pictures(dataset, part, repeats=args.repeats))
        path = args.out / f"{args.split}_{args.kind}_{page:03d}.png"
        write_png(path, picture)
        print(path)
    return 0
