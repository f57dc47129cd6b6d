# SPDX-License-Identifier: Apache-2.0
"""One table and one plot over tested runs, best first.

    lungdet compare WORK_DIR... [--sort AP50] [--out DIR]
    lungdet compare WORK_DIR... --by-epoch [AR50]

Reads each run's metrics.json, which `lungdet test` writes. Figures come with their 95 % intervals
where the test made them. --by-epoch reads the training logs instead and prints one figure of every
validation: recall, unless another is named.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lungdet_mmdet.scoring.run_comparison import (
    DEFAULT_KEYS,
    comparison_rows,
    curve_rows,
    difference_warnings,
    markdown_table,
    read_run,
    sorted_runs,
    validation_curve,
)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    if args.by_epoch:
        curves = {
            Path(run).resolve().name: validation_curve(run, args.by_epoch) for run in args.runs
        }
        title = f"{args.by_epoch} on the validation split, after each epoch (or so many iterations)"
        _print_table(title, *curve_rows(curves))
        return 0
    runs = sorted_runs([read_run(path) for path in args.runs], args.sort)
    header, rows = comparison_rows(runs, args.metrics)
    notes = difference_warnings(runs)
    title = runs[0].tested_on if not notes else "several test sets"
    _print_table(f"{title}, sorted by {args.sort}", header, rows)
    for note in notes:
        print(f"warning: {note}", file=sys.stderr)
    if args.out is not None:
        from lungdet_mmdet.reports.score_plots import save_comparison_plot
        from lungdet_mmdet.runs.atomic_files import write_bytes

        text = "\n\n".join([title, markdown_table(header, rows), *notes])
        write_bytes(args.out / "comparison.md", text.encode("utf-8"))
        save_comparison_plot(args.out / "comparison.png", runs, args.metrics, title=title)
        print(f"written: {args.out / 'comparison.md'}, {args.out / 'comparison.png'}")
    return 0
