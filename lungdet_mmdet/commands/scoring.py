# SPDX-License-Identifier: Apache-2.0
"""Judge what was found: submissions, runs, folds, and what readers say of candidates."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lungdet_mmdet.commands import add_cfg_options
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.atomic_files import write_csv, write_json
from lungdet_mmdet.runs.command_line import command_parser, own_command
from lungdet_mmdet.runs.files import ANNOTATION_TABLE

if TYPE_CHECKING:
    from lungdet_mmdet.annotations.tables import Nodule
    from lungdet_mmdet.scoring.froc import FrocResult


def froc_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    from lungdet_mmdet.ct.slabs import SLAB_THICKNESS_MM
    from lungdet_mmdet.scoring.froc import MAX_MARKS_PER_SCAN
    from lungdet_mmdet.scoring.intervals import DEFAULT_RESAMPLES

    parser = command_parser(froc)
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
        "--seriesuids",
        required=True,
        help="seriesuids.csv, a scan a line: those evaluated, healthy ones too",
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
        parser.error(
            "--excluded is needed to evaluate a submission; where nothing is to be ignored, give a "
            "table of nothing but the header seriesuid,coordX,coordY,coordZ,diameter_mm"
        )
    for name in ("bootstrap", "max_marks", "seed"):
        if getattr(args, name) < 0:
            parser.error(f"--{name.replace('_', '-')} must not be negative")
    return args


def read_truth(
    args: argparse.Namespace,
) -> tuple[tuple[str, ...], tuple[Nodule, ...], tuple[str, ...]]:
    """Read series and nodules; also return what was odd about the tables, counted."""
    from lungdet_mmdet.annotations.tables import read_nodules, read_series

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
    from lungdet_mmdet.annotations.tables import read_findings
    from lungdet_mmdet.scoring.froc import evaluate_froc, match_marks
    from lungdet_mmdet.scoring.run_files import read_submission

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
    from lungdet_mmdet.ct.slabs import SLAB_THICKNESS_MM
    from lungdet_mmdet.splits.accounting import N_BEGINNINGS, table_ceiling

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
    from lungdet_mmdet.scoring.froc import FP_RATES
    from lungdet_mmdet.scoring.intervals import interval_text

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


def froc(argv: Sequence[str] | None = None) -> int:
    """FROC and CPM of a LUNA16 submission, with 95 % intervals, by the challenge's own rules.

        lungdet froc SUBMISSION.csv --annotations A.csv --excluded B.csv --seriesuids S.csv
        lungdet froc --ceiling --annotations A.csv --seriesuids S.csv [--stride-mm 7.5]

    A.csv: seriesuid,coordX,coordY,coordZ,diameter_mm (the nodules), B.csv the same (findings to be
    ignored; its header alone where there are none), S.csv: a scan a line. The `seriesuid` of a scan
    in `candidates.csv` of `lungdet infer` is the name of its folder there.

    The second gives what a perfect detector of boxes on slabs would reach, from the tables alone.

    Exit code 0 when the figures were computed, 1 when an input cannot be used.
    """
    args = froc_options(argv)
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


def compare_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    from lungdet_mmdet.scoring.run_files import DEFAULT_KEYS

    parser = command_parser(compare)
    add = parser.add_argument
    add("runs", nargs="+", metavar="WORK_DIR", help="work directories, or metrics.json files")
    add("--sort", default="AP50", metavar="KEY", help="figure to sort by (default: %(default)s)")
    add("--metrics", nargs="+", default=list(DEFAULT_KEYS), metavar="KEY", help="columns")
    add("--by-epoch", nargs="?", const="AR50", metavar="KEY", help="validations of the trainings")
    add("--out", type=Path, help="write comparison.md and comparison.png into this folder")
    return parser.parse_args(argv)


def _print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for column, name in enumerate(header):
        table.add_column(name, justify="left" if column == 0 else "right")
    for row in rows:
        table.add_row(*row)
    # In a file or a pipe there is no terminal whose width could be too small.
    console = Console() if sys.stdout.isatty() else Console(width=40 + 24 * len(header))
    # Not the table's own title, which would be broken to its width.
    console.print(title, highlight=False)
    console.print(table)


def compare(argv: Sequence[str] | None = None) -> int:
    """One table and one plot over tested runs, best first.

        lungdet compare WORK_DIR... [--sort AP50] [--out DIR]
        lungdet compare WORK_DIR... --by-epoch [AR50] [--out DIR]

    Reads each run's metrics.json, which `lungdet test` writes. Figures come with their 95 %
    intervals where the test made them. --by-epoch reads the training logs instead and prints one
    figure of every validation: recall, unless another is named.
    """
    from lungdet_mmdet.scoring.run_files import (
        comparison_rows,
        curve_rows,
        difference_warnings,
        markdown_table,
        names_of_runs,
        read_run,
        sorted_runs,
        validation_curve,
    )

    args = compare_options(argv)
    notes: list[str] = []
    names = names_of_runs(args.runs)
    if args.by_epoch:
        curves = {
            name: validation_curve(run, args.by_epoch)
            for name, run in zip(names, args.runs, strict=True)
        }
        title = f"{args.by_epoch} on the validation split, after each epoch (or so many iterations)"
        header, rows = curve_rows(curves)
        _print_table(title, header, rows)
    else:
        read = [replace(read_run(run), name=n) for n, run in zip(names, args.runs, strict=True)]
        runs = sorted_runs(read, args.sort)
        header, rows = comparison_rows(runs, args.metrics)
        notes = difference_warnings(runs)
        title = runs[0].tested_on if not notes else "several test sets"
        _print_table(f"{title}, sorted by {args.sort}", header, rows)
    for note in notes:
        print(f"warning: {note}", file=sys.stderr)
    if args.out is not None:
        from lungdet_mmdet.reports.score_plots import save_comparison_plot, save_curve_plot
        from lungdet_mmdet.runs.atomic_files import write_bytes

        text = "\n\n".join([title, markdown_table(header, rows), *notes])
        write_bytes(args.out / "comparison.md", text.encode("utf-8"))
        picture = args.out / "comparison.png"
        if args.by_epoch:
            save_curve_plot(picture, curves, title=args.by_epoch)
        else:
            save_comparison_plot(picture, runs, args.metrics, title=title)
        print(f"written: {args.out / 'comparison.md'}, {picture}")
    return 0


def cross_validate_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(cross_validate)
    add = parser.add_argument
    add("config", type=Path, help="config file")
    add("--data", type=Path, help="prepared dataset (default: $LUNGDET_DATA)")
    add("--work-dir", type=Path, required=True, help="folder for all folds and the pooled result")
    add("--folds", type=int, nargs="+", default=list(range(10)), metavar="K", help="subsets 0-9")
    add("--seed", type=int, default=0, help="of the draw of healthy training slabs")
    add("--pretrained", metavar="none|PATH|URL", help="initial weights of the backbone")
    add_cfg_options(parser)
    add("--bootstrap", type=int, default=1000, metavar="N", help="resamples of the scans")
    args = parser.parse_args(argv)
    if len(set(args.folds)) != len(args.folds) or not set(args.folds) <= set(range(10)):
        parser.error(f"--folds {args.folds}: each of 0-9 at most once")
    return args


def cross_validate(argv: Sequence[str] | None = None) -> int:
    """Train and test one model per official LUNA16 subset, and pool the candidates into one FROC.

        lungdet cross-validate CONFIG --data PREPARED_DIR --work-dir DIR

    Each fold tests on one subset, validates on the next and trains on the other eight. A fold that
    is done is not run again; one that was interrupted goes on from its last checkpoint. As in
    `lungdet test`, the prepared folder fixes the distance of the slabs, and FROCMetric of the
    config how boxes merge.
    """
    args = cross_validate_options(argv)
    from lungdet_mmdet.apis.config_file import Fold, check_data, make_fold, read_config

    folds: list[Fold] = []
    for number in args.folds:
        config = read_config(args.config, data=args.data, cfg_options=args.cfg_options)
        fold = make_fold(config, args.work_dir, number, seed=args.seed, pretrained=args.pretrained)
        check_data(config, ("train", "val", "test"))
        folds.append(fold)
    for fold in folds:
        if fold.is_done():
            print(f"fold {fold.number}: done before", flush=True)
            continue
        print(f"fold {fold.number}: {fold.folder}", flush=True)
        fold.remember(done=False)
        pretrained = [] if args.pretrained is None else ["--pretrained", args.pretrained]
        _run("train", fold.config_path, "--work-dir", fold.folder, "--resume", *pretrained)
        _run("test", fold.config_path, fold.checkpoint(), "--work-dir", fold.folder)
        fold.remember(done=True)
    pool(folds, args.work_dir, n_resamples=args.bootstrap)
    return 0


def _run(command: str, *arguments: object) -> None:
    # A process of its own: a fold that dies takes its memory with it, and not the others.
    done = subprocess.run(own_command(command, *arguments), check=False)
    if done.returncode:
        raise LungDetError(
            f"lungdet {command} of this fold ended with status {done.returncode}; mend what it "
            "says above and run the same command again: finished folds are kept"
        )


def pool(folds: Sequence, work_dir: Path, *, n_resamples: int) -> None:
    from lungdet_mmdet.reports.score_plots import save_froc_plot
    from lungdet_mmdet.runs.files import SUBMISSION_NAME
    from lungdet_mmdet.scoring.run_files import read_submission, write_submission
    from lungdet_mmdet.scoring.split_scores import pooled_froc, pooled_marks
    from lungdet_mmdet.splits.coco_json import read_slab_set

    tested = []
    for fold in folds:
        slab_set = read_slab_set(fold.test_annotations)
        tested.append((slab_set, read_submission(fold.submission, series=slab_set.series)))
    result = pooled_froc(tested, n_resamples=n_resamples)
    numbers = [fold.number for fold in folds]
    data = tested[0][0].info.get("data", "")
    write_submission(work_dir / SUBMISSION_NAME, pooled_marks([marks for _, marks in tested]))
    write_json(
        work_dir / "froc.json", {"data": data, "protocol": "fold", "folds": numbers}
        | result.as_json()
    )  # fmt: skip
    title = f"{data} data, folds {', '.join(map(str, numbers))} pooled"
    save_froc_plot(work_dir / "froc.png", result, title=title)
    print(f"{title}: CPM {result.cpm_text}; {work_dir / 'froc.json'}")


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


def _time_of_change(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


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
    # A browser calls the second download of a page "NAME (1).csv", which a shell lists first.
    for path in sorted(args.tables, key=_time_of_change):
        try:
            tables.append(read_corrections(path, results=args.results))
            if not tables[-1]:
                print(f"note: {path} holds no word: what its reader said before stays")
        except LungDetError as error:
            failures.append(str(error))
    for failure in failures:
        print(f"FAILED {failure}", file=sys.stderr)
    if failures:
        print("nothing was written: mend or leave out these tables", file=sys.stderr)
        return 1
    joined = join_corrections(tables)
    args.out.mkdir(parents=True, exist_ok=True)
    write_csv(args.out / "corrections.csv", COLUMNS, (row.as_row() for row in joined.rows))
    nodules = ([n.seriesuid, *n.centre_xyz_mm, n.diameter_mm] for n in joined.nodules)
    write_csv(args.out / ANNOTATION_TABLE, NODULE_COLUMNS, nodules)
    for note in joined.notes:
        print(f"note: {note}")
    print(f"{joined.summary()}: {args.out / 'corrections.csv'}, {args.out / ANNOTATION_TABLE}")
    return 0
