"""What runs leave on disk, in a form that can be compared."""

from __future__ import annotations

import json
from pathlib import Path

import torch

# Durations are the only thing that may differ between two runs.
_WITH_SECONDS = ("manifest.json", "candidates.json")
HALF_MADE = (".tmp", ".partial", ".before")


def files_of(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder by its relative path, but for durations and the lock."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != ".lock":
            content = path.read_bytes()
            if path.name in _WITH_SECONDS:
                content = _without_seconds(content)
            found[str(path.relative_to(folder))] = content
    return found


def _without_seconds(content: bytes) -> bytes:
    value = json.loads(content)
    for part in [value, *value.get("scans", [])]:
        part.pop("seconds", None)
    return json.dumps(value).encode()


def half_made(folder: Path) -> list[str]:
    """Return what a killed run left under hidden names."""
    return [path.name for path in folder.rglob(".*") if path.suffix in HALF_MADE]


def finished(folder: Path, pattern: str) -> dict[Path, int]:
    """Return when each file of a pattern was written: one that is done again has a later time."""
    return {path: path.stat().st_mtime_ns for path in folder.glob(pattern)}


def losses(work_dir: Path) -> dict[int, tuple[float, ...]]:
    """Return the losses by iteration, of all the logs of a work directory."""
    found = {}
    for path in sorted(work_dir.glob("*/vis_data/scalars.json")):
        for line in path.read_text().splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:  # the line that a kill cut off
                continue
            if "loss" in row:
                found[row.get("iter", row["step"])] = (row["loss"], row["loss_bbox"])
    return found


def checkpoints(work_dir: Path) -> dict[str, dict]:
    """Return weights and operating point of each checkpoint; every one must be whole."""
    found = {}
    for path in sorted(work_dir.glob("*.pth")):
        content = torch.load(path, map_location="cpu", weights_only=False)
        point = content["meta"].get("operating_point")
        found[path.name] = {"weights": content["state_dict"], "operating_point": point}
    return found


def assert_same_training(work_dir: Path, whole: Path) -> None:
    """Assert losses and checkpoints to agree to the 1e-6 that docs/training.md states."""
    expected, got = losses(whole), losses(work_dir)
    assert set(got) == set(expected)
    for step, values in expected.items():
        torch.testing.assert_close(got[step], values, rtol=1e-6, atol=0.0)
    expected, got = checkpoints(whole), checkpoints(work_dir)
    assert set(got) == set(expected)
    for name in expected:
        torch.testing.assert_close(
            got[name]["weights"], expected[name]["weights"], rtol=1e-6, atol=1e-9
        )
        assert got[name]["operating_point"] == expected[name]["operating_point"], name
