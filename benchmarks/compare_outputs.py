# SPDX-License-Identifier: Apache-2.0
"""Compare two trees of outputs: python benchmarks/compare_outputs.py BEFORE AFTER.

For a change that must not change results: run the same commands before and after it into two
folders and see what differs. Files count as equal by their bytes; of JSON files the keys that
differ are named, of tables and pages the first line. Exit status 1 where anything differs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

SHOWN = 12


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path, help="folder of outputs")
    parser.add_argument("after", type=Path, help="folder of outputs")
    parser.add_argument(
        "--ignore", nargs="*", default=(), metavar="KEY", help="JSON keys that may differ"
    )
    return parser.parse_args()


def files_below(folder: Path) -> dict[str, Path]:
    """Return every file by its path below the folder."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in found}


def json_differences(before: object, after: object, place: str = "") -> Iterator[str]:
    """Yield the places at which two JSON values differ, in words."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted({*before, *after}):
            if key not in before or key not in after:
                yield f"{place}/{key}: only {'before' if key in before else 'after'}"
            else:
                yield from json_differences(before[key], after[key], f"{place}/{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, pair in enumerate(zip(before, after, strict=True)):
            yield from json_differences(*pair, f"{place}/{number}")
    elif before != after:
        yield f"{place}: {before!r} -> {after!r}"[:160]


def differences(before: Path, after: Path, *, ignore: tuple[str, ...]) -> list[str]:
    """Return in words what differs between two files; empty for equal ones."""
    if before.read_bytes() == after.read_bytes():
        return []
    if before.suffix == ".json":
        pair = (json.loads(path.read_text(encoding="utf-8")) for path in (before, after))
        return [
            text
            for text in json_differences(*pair)
            if not any(f"/{key}" in text.split(":")[0] for key in ignore)
        ]
    if before.suffix in (".csv", ".html", ".txt"):
        lines = (path.read_text(encoding="utf-8").splitlines() for path in (before, after))
        for number, (old, new) in enumerate(zip(*lines, strict=False), start=1):
            if old != new:
                return [f"line {number}: {old[:120]!r} -> {new[:120]!r}"]
        return ["one is longer"]
    return ["other bytes"]


def main() -> int:
    args = parse_args()
    before, after = files_below(args.before), files_below(args.after)
    equal, told = 0, 0
    for name in sorted({*before, *after}):
        if name not in before or name not in after:
            found = [f"only {'before' if name in before else 'after'}"]
        else:
            found = differences(before[name], after[name], ignore=tuple(args.ignore))
        equal += not found
        told += bool(found)
        for text in found[:SHOWN]:
            print(f"{name}  {text}")
        if len(found) > SHOWN:
            print(f"{name}  and {len(found) - SHOWN} more")
    print(f"{equal} files equal, {told} not")
    return 1 if told else 0


if __name__ == "__main__":
    raise SystemExit(main())
