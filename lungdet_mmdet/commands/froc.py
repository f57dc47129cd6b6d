# SPDX-License-Identifier: Apache-2.0
"""FROC, CPM and their 95 % confidence intervals of a LUNA16 submission, by the challenge's rules.

    lungdet froc SUBMISSION.csv --annotations A.csv --excluded B.csv --seriesuids S.csv
    lungdet froc --ceiling --annotations A.csv --seriesuids S.csv [--stride-mm 7.5]

The second gives what a perfect detector of boxes on slabs would reach, from the tables alone.

Exit code 0 when the figures were computed, 2 when an input cannot be used.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lungdet_mmdet.annotations.tables import Nodule, read_findings, read_nodules, read_series
from lungdet_mmdet.ct.slabs import SLAB_THICKNESS_MM
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.atomic_files import write_json
from lungdet_mmdet.scoring.froc import (
    FP_RATES,
    MAX_MARKS_PER_SCAN,
    FrocResult,
    evaluate_froc,
    match_marks,
)
from lungdet_mmdet.scoring.intervals import DEFAULT_RESAMPLES, interval_text
from lungdet_mmdet.scoring.submission import read_submission
from lungdet_mmdet.splits.accounting import N_BEGINNINGS, table_ceiling


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="FROC and CPM of a LUNA16 submission, by the challenge's own rules."
    )
    parser.add_argument(
        "submission", nargs="?", help="CSV: seriesuid,coordX,coordY,coordZ,probability"
    )
    parser.add_argument(
        "--ceiling",
        action="store_true",
        help="sensitivity if every positive box were found exactly, with candidates on the "
        "mid-planes of their slabs and with the depth of the maximum; needs no submission",
    )
    parser.add_argument(
        "--stride-mm", type=float, default=SLAB_THICKNESS_MM, help="of --ceiling (%(default)s)"
    )
    parser.add_argument("--annotations", required=True, help="annotations.csv: the nodules")
    parser.add_argument("--excluded", help="annotations_excluded.csv: findings to be ignored")
    parser.add_argument(
        "--seriesuids", required=True, help="seriesuids.csv: the scans evaluated, healthy ones too"
    )
    parser.add_argument(
        "--bootstrap",
        type=int,
        default=DEFAULT_RESAMPLES,
        metavar="N",
        help="resamples of the scans for the 95 %% intervals; 0 for none (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the resampling (default: 0)")
    parser.add_argument(
        "--max-marks",
        type=int,
        default=MAX_MARKS_PER_SCAN,
        metavar="N",
        help="best candidates per scan that count; the challenge's %(default)s by default, 0 for "
        "no limit",
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all figures to this file")
    parser.add_argument("--plot", type=Path, metavar="OUT.png", help="draw the FROC curve")
    args = parser.parse_args(argv)
    if args.ceiling == bool(args.submission):
        parser.error("give a submission, or --ceiling without one")
    if not args.ceiling and not args.excluded:
        parser.error("--excluded is needed to evaluate a submission")
    for name in ("bootstrap", "max_marks", "seed"):
        if getattr(args, name) < 0:
            parser.error(f"--{name.replace('_', '-')} must not be negative")
    return args


def read_truth(
    args: argparse.Namespace,
) -> tuple[tuple[str, ...], tuple[Nodule, ...], tuple[str, ...]]:
    """Read series and nodules; also return what was odd about the tables, counted."""
    series = read_series(args.seriesuids)
    nodules = read_nodules(args.annotations, known_series=series.rows)
    if not nodules.rows:
        raise LungDetError(
            f"{args.annotations}: no nodule belongs to one of the {len(series.rows)} series of "
            f"{args.seriesuids}; check that the two belong together"
        )
    return series.rows, nodules.rows, (*series.warnings, *nodules.warnings)


def evaluate(args: argparse.Namespace) -> tuple[FrocResult, list[str]]:
    """Read the four tables and evaluate; also return what was odd about them, counted."""
    series, nodules, warnings = read_truth(args)
    findings = read_findings(args.excluded, known_series=series)
    marks = read_submission(args.submission, series=series)
    matches = match_marks(
        marks,
        nodules,
        findings.rows,
        series,
        max_marks_per_scan=args.max_marks or None,
    )
    result = evaluate_froc(matches, n_resamples=args.bootstrap, seed=args.seed)
    return result, [*warnings, *findings.warnings, *marks.warnings]


def run_ceiling(args: argparse.Namespace) -> None:
    """Print what geometry allows, and write it where asked to."""
    series, nodules, warnings = read_truth(args)
    content = table_ceiling(nodules, series, stride_mm=args.stride_mm).as_json()
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(
        f"Sensitivity if every positive box were found exactly: {len(nodules)} nodules of "
        f"{len(series)} scans, slabs of {SLAB_THICKNESS_MM} mm every {args.stride_mm:g} mm, mean "
        f"over {N_BEGINNINGS} places where the slabs may begin"
    )
    print(f"  {'':8}{'nodules':>9}{'mid-plane':>11}{'depth':>8}")
    for name, row in {"all": content, **content["by_band"]}.items():
        values = [row["ceiling_midplane"], row["ceiling_depth"]]
        midplane, depth = ("-" if value is None else f"{value:.3f}" for value in values)
        print(f"  {name:8}{row['n_nodules']:9}{midplane:>11}{depth:>8}")
    if args.json is not None:
        options = {"thickness_mm": SLAB_THICKNESS_MM, "stride_mm": args.stride_mm}
        write_json(args.json, {**content, **options, "n_scans": len(series), "warnings": warnings})


def print_result(result: FrocResult, submission: str) -> None:
    matches = result.matches
    print(f"FROC of {submission} over {len(matches.series)} scans")
    print("  FP per scan  sensitivity  95 % interval")
    intervals = result.sensitivity_intervals or [None] * len(FP_RATES)
    for rate, value, interval in zip(FP_RATES, result.sensitivities, intervals, strict=True):
        print(f"  {rate:11g}  {value:11.3f}  {interval_text(interval)}")
    print(f"  CPM          {result.cpm:11.3f}  {interval_text(result.cpm_interval)}")
    if result.cpm_interval is not None and any(
        i.is_exact for i in (*intervals, result.cpm_interval)
    ):
        print("  * exact binomial limits at the number of nodules, where all resamples agree")
    print(
        f"  {matches.true_positives} of {matches.n_nodules} nodules found, "
        f"{matches.false_positives} false positives, {matches.ignored} candidates on "
        f"excluded findings ignored, {matches.duplicates} second hits dropped, "
        f"{matches.over_limit} candidates over the limit per scan"
    )


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    if args.ceiling:
        run_ceiling(args)
        return 0
    result, warnings = evaluate(args)
    if args.plot is not None:
        from lungdet_mmdet.reports.score_plots import save_froc_plot

        save_froc_plot(args.plot, result, title=Path(args.submission).name)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print_result(result, args.submission)
    if args.json is not None:
        content = {"submission": Path(args.submission).name, **result.as_json()}
        write_json(args.json, content | {"warnings": warnings})
    return 0
