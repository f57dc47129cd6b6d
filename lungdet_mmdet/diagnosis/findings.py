"""What a check found, and how it is printed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

OK, NOTE, WARN, FAIL = "ok", "note", "warn", "FAIL"


@dataclass(frozen=True)
class Line:
    """One result: level, topic, what was found, and the remedy where there is a problem."""

    level: str
    topic: str
    text: str
    remedy: str = ""


def report(lines: Iterable[Line]) -> int:
    """Print the lines as they come and return the exit code."""
    failed = 0
    for line in lines:
        failed += line.level == FAIL
        print(f"{line.level:<5} {line.topic:<17} {line.text}", flush=True)
        if line.remedy:
            print(f"{'':<24}-> {line.remedy}", flush=True)
    print(f"Not usable: {failed} problem(s) marked {FAIL}." if failed else "Usable.")
    return 1 if failed else 0
