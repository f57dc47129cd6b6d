"""Running the command lines on the corpus as a user would, and what they leave behind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.corpus import Fault

REPOSITORY = Path(__file__).resolve().parents[2]
# Far more than the runs take; a pipe that is waited for takes for ever.
TIMEOUT_S = 300
# An error is of use only if it says what to do.
REMEDY = re.compile(
    r"\b(check|choose|convert|copy|correct|download|export|give|name|needed|put|remove|rename|save|take"
    r"|use)\b",
    re.IGNORECASE,
)
# What a conversion leaves out, being no chest CT, needs none.
LEFT_OUT = "left out: "


@dataclass(frozen=True)
class CommandRun:
    """A finished command.

    ``reasons`` are the failures it listed, ``results`` the records of the scans it finished, by the
    file or folder that each was read from.
    """

    out_dir: Path
    exit_code: int
    stderr: str
    reasons: tuple[str, ...]
    results: dict[str, dict[str, Any]]
    left_in_tmp: tuple[str, ...]

    def reasons_of(self, fault: Fault) -> list[str]:
        """Return the failures that name the case's own file or folder."""
        return [r for r in self.reasons if re.search(rf"/{fault.name}\b", r)]

    def results_of(self, fault: Fault) -> list[dict[str, Any]]:
        """Return the results that were read from the case's own file or folder."""
        found = [re.search(rf"/{fault.name}(/|$)", source) for source in self.results]
        return [r for r, hit in zip(self.results.values(), found, strict=True) if hit]

    def half_made(self) -> list[Path]:
        """Return what unfinished writing would have left in the output."""
        return [p for p in self.out_dir.rglob(".*") if p.name != ".lock"]


def run_command(tool: str, *arguments: str | Path, tmp: Path) -> subprocess.CompletedProcess[bytes]:
    """Run a tool in a process of its own, with an empty folder for temporary files."""
    tmp.mkdir()
    return subprocess.run(
        [sys.executable, str(REPOSITORY / tool), *map(os.fsencode, arguments)],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TMPDIR": str(tmp)},
        timeout=TIMEOUT_S,
        check=False,
    )


def read_list(path: Path) -> list[dict[str, Any]]:
    """Read a JSON list."""
    return json.loads(path.read_text(encoding="utf-8"))


def check_outcome(run: CommandRun, fault: Fault) -> None:
    """Assert that one case became what the corpus says."""
    reasons, results = run.reasons_of(fault), run.results_of(fault)
    if fault.says:
        assert not results
        (reason,) = reasons
        assert re.search(fault.says, reason, re.DOTALL), reason
        assert REMEDY.search(reason) or LEFT_OUT in reason, reason
    else:
        assert not reasons
        (result,) = results
        assert any(fault.flag in flag for flag in result["flags"]) or not fault.flag
