# SPDX-License-Identifier: Apache-2.0
"""Convert a tree of DICOM files (LIDC-IDRI, or any other) to LUNA16's layout.

Every axial CT series becomes a .mhd file; series that are something else, or cannot be brought to
a regular grid, are listed with the reason in rejects.json. A second call converts what is new.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dicom_dir", type=Path, help="folder below which the DICOM files are")
    parser.add_argument("out_dir", type=Path, help="folder for the scans and tables")
    parser.add_argument(
        "--tables",
        type=Path,
        help="folder with annotations.csv and LUNA16's other tables, to be copied to OUT_DIR; "
        "subset_of_series.csv says which subset a series goes to",
    )
    parser.add_argument(
        "--only",
        type=Path,
        metavar="CSV",
        help="convert only the series of this list, e.g. LUNA16's seriesuids.csv",
    )
    parser.add_argument("--compress", action="store_true", help="write compressed pixels (.zraw)")
    parser.add_argument(
        "--patients",
        action="store_true",
        help="write patients.csv (series and PatientID), for splits by patient",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        help="processes, each holding one series; 0 = this one (default: %(default)s)",
    )
    parser.add_argument(
        "--dask", metavar="ADDRESS", help="work on a Dask cluster, e.g. tcp://HOST:8786"
    )
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    from lungdet_mmdet.annotations.tables import read_series
    from lungdet_mmdet.luna16.conversion import convert_dicom_tree
    from lungdet_mmdet.runs.workplace import find_workplace

    place = find_workplace(
        args.workers, dask=args.dask, read_from=[args.dicom_dir], write_to=args.out_dir
    )
    summary = convert_dicom_tree(
        args.dicom_dir,
        args.out_dir,
        place.make_executor,
        workers=place.workers,
        tables=args.tables,
        only=read_series(args.only).rows if args.only else None,
        compress=args.compress,
        keep_patient_ids=args.patients,
    )
    print("\n".join(summary.lines()))
    return summary.exit_code
