"""What a conversion did: told to the user, and kept beside the scans."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass, field
from pathlib import Path

from lungdet_mmdet.execution.atomic_files import write_bytes, write_json
from lungdet_mmdet.execution.scan_failure import ScanFailure
from lungdet_mmdet.execution.scan_runs import RunSummary
from lungdet_mmdet.nodules.tables import read_patients

REJECTS_NAME, CONVERTED_NAME, PATIENTS_NAME = "rejects.json", "converted.json", "patients.csv"


@dataclass(frozen=True)
class ConvertedSeries:
    """A converted series: its header file, what was repaired, and whose it is.

    ``unsuitable`` is why it is no chest CT to convert; "" where it was converted.
    """

    seriesuid: str
    path: str
    images: int
    flags: tuple[str, ...] = ()
    patient_id: str = ""
    unsuitable: str = ""


@dataclass
class ConversionSummary:
    """What a conversion did.

    Parameters
    ----------
    converted : series written now.
    skipped : series that were there already.
    unsuitable : series that are no axial CT, with the reason.
    failures : series and folders that could not be read.
    not_found : wanted series that are not in the tree.
    run : how the run over the series ended.
    """

    converted: list[ConvertedSeries] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    unsuitable: list[ConvertedSeries] = field(default_factory=list)
    failures: list[ScanFailure] = field(default_factory=list)
    not_found: list[str] = field(default_factory=list)
    run: RunSummary = field(default_factory=RunSummary)

    @property
    def exit_code(self) -> int:
        """0 if every wanted CT series is there, 130 or 143 after an interrupt, else 1."""
        return self.run.exit_code or int(bool(self.failures or self.not_found))

    def lines(self) -> list[str]:
        """Return the summary as text."""
        lines = [f"not converted: {f.seriesuid}: {f.reason}" for f in self.failures]
        lines += [f"left out: {s.seriesuid}: {s.unsuitable}" for s in self.unsuitable]
        lines += [f"repaired: {s.seriesuid}: {flag}" for s in self.converted for flag in s.flags]
        lines += [f"not in the tree: {uid}" for uid in self.not_found]
        lines.append(
            f"{len(self.converted)} series converted, {len(self.skipped)} were there already, "
            f"{len(self.unsuitable)} left out, {len(self.failures)} not converted, "
            f"{len(self.not_found)} not found"
        )
        return lines


def write_accounts(out_dir: Path, summary: ConversionSummary, *, keep_patient_ids: bool) -> None:
    """Write converted.json (series of earlier runs included), rejects.json and patients.csv."""
    skipped = set(summary.skipped)
    kept = [e for e in _read_list(out_dir / CONVERTED_NAME) if e["seriesuid"] in skipped]
    entries = kept + [
        {"seriesuid": s.seriesuid, "file": s.path, "images": s.images, "flags": list(s.flags)}
        for s in summary.converted
    ]
    write_json(out_dir / CONVERTED_NAME, sorted(entries, key=lambda e: e["seriesuid"]))
    rejects = [failure.as_dict() for failure in summary.failures]
    rejects += [
        {"seriesuid": s.seriesuid, "stage": "unsuitable", "reason": s.unsuitable}
        for s in summary.unsuitable
    ]
    rejects += [
        {"seriesuid": uid, "stage": "not found", "reason": "not in the tree"}
        for uid in summary.not_found
    ]
    write_json(out_dir / REJECTS_NAME, rejects)
    if keep_patient_ids:
        _write_patients(out_dir / PATIENTS_NAME, summary)


def _read_list(path: Path) -> list[dict]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []


def _write_patients(path: Path, summary: ConversionSummary) -> None:
    patients = read_patients(path) if path.is_file() else {}
    patients |= {s.seriesuid: s.patient_id for s in summary.converted if s.patient_id}
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["seriesuid", "patient_id"])
    table.writerows(sorted(patients.items()))
    write_bytes(path, text.getvalue().encode("utf-8"))
