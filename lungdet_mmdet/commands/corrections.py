# SPDX-License-Identifier: Apache-2.0
"""Join what readers said on the pages of scans: lungdet corrections TABLE... [--out DIR]."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lungdet_mmdet.annotations.corrections import (
    COLUMNS,
    NODULE_COLUMNS,
    join_corrections,
    read_corrections,
)
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.atomic_files import write_csv
from lungdet_mmdet.runs.file_names import ANNOTATION_TABLE


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Join the tables that readers exported from the pages of scans (report.html)."
    )
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


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
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
