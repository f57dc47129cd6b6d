"""How long each scan took, kept apart from the prepared data, which is the same on every run."""

from __future__ import annotations

import json
from pathlib import Path

from lungdet_mmdet.execution.atomic_files import output_error

JOURNAL_NAME = ".seconds.jsonl"


class TimingJournal:
    """Seconds per scan of this run, added line by line: a killed run loses none of them.

    Parameters
    ----------
    out_dir : the prepared dataset's folder.
    earlier : seconds by series UID of runs before, as far as they are known.
    """

    def __init__(self, out_dir: Path, earlier: dict[str, float]) -> None:
        self.path = out_dir / JOURNAL_NAME
        self.seconds = {**earlier, **self._read()}

    def _read(self) -> dict[str, float]:
        """Return what a killed run left; a line cut off in the middle is dropped."""
        found: dict[str, float] = {}
        if not self.path.is_file():
            return found
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                uid, seconds = json.loads(line)
                found[str(uid)] = float(seconds)
            except (ValueError, TypeError):
                continue
        return found

    def add(self, seriesuid: str, seconds: float) -> None:
        """Note one scan."""
        self.seconds[seriesuid] = round(seconds, 3)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                # The first newline ends a line that a killed run may have left unfinished.
                file.write(f"\n{json.dumps([seriesuid, self.seconds[seriesuid]])}\n")
        except OSError as error:
            raise output_error(self.path, error) from error

    def close(self) -> None:
        """Remove the file; its content has gone into the manifest."""
        self.path.unlink(missing_ok=True)
