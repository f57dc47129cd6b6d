# SPDX-License-Identifier: Apache-2.0
"""Download LUNA16 from its public Zenodo records, or check a folder that holds it.

A download that was cut off goes on where it stopped when the same command is run again.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out_dir", type=Path, help="LUNA16 folder, with room for about 250 GB")
    parser.add_argument(
        "--subsets",
        type=int,
        nargs="+",
        metavar="N",
        help="which of the subsets 0-9 (default: all)",
    )
    parser.add_argument("--masks", action="store_true", help="fetch LUNA16's lung masks too")
    parser.add_argument("--keep-zips", action="store_true", help="keep archives after unpacking")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="list missing, truncated and corrupt series of the folder; downloads nothing",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=min(os.cpu_count() or 1, 4),
        help="processes that verify, 0 = this one (default: %(default)s)",
    )
    parser.add_argument(
        "--report", type=Path, help="with --verify, once every series is whole: write the list here"
    )
    parser.add_argument("--api", help="a mirror that answers as https://zenodo.org/api/records")
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    from lungdet_mmdet.luna16.download import ALL_SUBSETS, DownloadSettings, download_luna16
    from lungdet_mmdet.luna16.verifying import verify_luna16
    from lungdet_mmdet.luna16.zenodo import ZENODO_API
    from lungdet_mmdet.runs.atomic_files import write_bytes
    from lungdet_mmdet.runs.scan_runs import process_pool

    if args.verify:
        report = verify_luna16(
            args.out_dir,
            process_pool(args.workers),
            workers=args.workers,
            subsets=args.subsets or (),
        )
        print("\n".join(report.lines()))
        if args.report and not report.bad:
            write_bytes(args.report, ("\n".join(report.lines()) + "\n").encode("utf-8"))
        return 1 if report.bad else 0
    settings = DownloadSettings(
        api=args.api or ZENODO_API, keep_zips=args.keep_zips, lung_masks=args.masks
    )
    fetched = download_luna16(args.out_dir, args.subsets or ALL_SUBSETS, settings)
    print(f"fetched now: {', '.join(fetched) or 'nothing, all was there'}")
    print(f"check it at any time with: lungdet download {args.out_dir} --verify")
    return 0
