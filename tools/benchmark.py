"""Measure speed and memory.

python tools/benchmark.py prep SCAN.mhd [--threads 2] [--repeat 3] [--json OUT]
python tools/benchmark.py prep LUNA16_DIR --workers 1 2 [--json OUT]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lungdet_mmdet.errors import LungDetError

DEFAULT_CONFIG = Path(__file__).resolve().parent.parent / "configs" / "lung_deform_detr.py"


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    prep = commands.add_parser(
        "prep",
        help="preparation of one scan against reading it, or of a folder by number of workers",
    )
    add = prep.add_argument
    add("path", type=Path, help="a scan, or a LUNA16-shaped folder with --workers")
    add("--config", type=Path, default=DEFAULT_CONFIG, help="config whose prep_pipeline is run")
    add("--threads", type=int, default=2, help="threads for one scan (default: %(default)s)")
    add("--repeat", type=int, default=3, help="repeats; the best counts (default: %(default)s)")
    add("--workers", type=int, nargs="+", help="worker counts, each with one thread per worker")
    add("--json", type=Path, help="write the figures there, too")
    prep.set_defaults(run=run_prep)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    try:
        args.run(args)
    except LungDetError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 1
    return 0


def run_prep(args: argparse.Namespace) -> None:
    from mmengine.config import Config

    from lungdet_mmdet.execution.atomic_files import write_json
    from lungdet_mmdet.preparation.benchmark import benchmark_folder, benchmark_scan
    from lungdet_mmdet.preparation.prep_pipeline import prep_steps

    if args.path.is_dir() != bool(args.workers):
        raise LungDetError(
            f"{args.path}: give a scan file without --workers, or a folder with --workers 1 2"
        )
    config = Config.fromfile(args.config, import_custom_modules=False)
    steps = prep_steps(config, source=str(args.config))
    if args.workers:
        runs = [benchmark_folder(args.path, steps, workers=n) for n in args.workers]
        figures = {"folder": str(args.path), "runs": [run.as_dict() for run in runs]}
        lines = [
            f"{run.workers} workers: {run.scans} scans in {run.seconds:.1f} s, "
            f"{run.scans_per_minute:.1f} scans/minute"
            for run in runs
        ]
    else:
        measured = benchmark_scan(args.path, steps, threads=args.threads, repeats=args.repeat)
        figures = measured.as_dict()
        lines = [
            f"{args.path.name}, {measured.threads} threads, best of {measured.repeats}",
            f"  {'SimpleITK.ReadImage':<22}{measured.read_s:8.3f} s",
            *(f"    {name:<20}{value:8.3f} s" for name, value in measured.steps_s.items()),
            f"  {'whole preparation':<22}{measured.prepare_s:8.3f} s",
            f"  {'ratio_to_read':<22}{measured.ratio_to_read:8.2f}",
            f"  {'peak_rss_mb':<22}{measured.peak_rss_mb:8.1f}",
        ]
    print("\n".join(lines))
    if args.json:
        write_json(args.json, figures)


if __name__ == "__main__":
    sys.exit(main())
