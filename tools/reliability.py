# SPDX-License-Identifier: Apache-2.0
"""Try faults on the whole software and write into docs/reliability.md what came of it.

Runs every test marked `reliability`, and the studies that are too slow for the normal suite.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from lungdet_mmdet.runs.command_line import run_and_exit

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- written by tools/reliability.py -->", "<!-- end -->"
HEAD = "| what was tried | cases | result | seconds | date |\n|---|---|---|---|---|\n"
PACKAGES = ("lungdet-mmdet", "torch", "numpy", "SimpleITK")


@dataclass
class Row:
    """What came of the tests that count for one row of the table."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0

    def line(self, what: str, date: str) -> str:
        """Return the row as Markdown."""
        cases = self.passed + self.failed
        result = f"**{self.failed} failed**" if self.failed else "all passed"
        if self.skipped:
            result = f"{result if cases else ''} {self.skipped} not possible here".strip()
        return f"| {what} | {cases} | {result} | {self.seconds:.0f} | {date} |"


class Rows:
    """A pytest plugin that counts cases by the text of their mark."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Let the results of a test know its row."""
        mark = item.get_closest_marker("reliability")
        if mark is not None:
            item.user_properties.append(("reliability", mark.args[0]))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a result."""
        properties = dict(report.user_properties)
        if "reliability" not in properties:
            return
        row = self.rows.setdefault(str(properties["reliability"]), Row())
        row.seconds += report.duration
        cases = int(properties.get("cases", 1))
        if report.failed:
            row.failed += cases
        elif report.skipped:
            row.skipped += cases
        elif report.when == "call":
            row.passed += cases


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "tests",
        nargs="*",
        help="test files or folders; only their rows are written anew (default: all)",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    os.chdir(ROOT)
    rows = Rows()
    # Files named beside the folder that holds them are left out by pytest 9: ask for their names.
    options = ["-m", "reliability", "-o", "python_files=test_*.py study_*.py"]
    code = pytest.main([*options, *(args.tests or ["tests"])], plugins=[rows])
    before = rows_of(PAGE.read_text(encoding="utf-8"))
    today = datetime.date.today().isoformat()
    lines = {what: row.line(what, today) for what, row in rows.rows.items()}
    if args.tests:
        lines = before | lines
    for what in sorted(before.keys() - lines.keys()):
        print(f"no test counts for this row any more: {what}")
    table = HEAD + "\n".join(lines[what] for what in sorted(lines))
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), table), encoding="utf-8")
    print(f"{len(rows.rows)} rows of {PAGE}")
    return int(code)


def rows_of(page: str) -> dict[str, str]:
    """Return the rows of the table in the page by what they are about."""
    table = page.partition(BEGIN)[2].partition(END)[0].split(HEAD)[-1]
    return {line.split("|")[1].strip(): line for line in table.splitlines() if line[:1] == "|"}


def with_table(page: str, table: str) -> str:
    """Return the page with another table, and the machine of this run under it."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    machine = (
        f"Last run: {os.cpu_count()} cores, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, {versions}."
    )
    head, _, rest = page.partition(BEGIN)
    return f"{head}{BEGIN}\n\n{table}\n\n{machine}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    run_and_exit(main)
