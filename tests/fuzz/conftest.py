"""Counting the cases, and small sound files to be damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from tests.fuzz.cases import IS_LONG, LEAST_CASES, TRIED

VOLUME = np.random.default_rng(0).integers(-1000, 400, (4, 5, 6)).astype(np.int16)


def pytest_terminal_summary(terminalreporter) -> None:
    if IS_LONG and TRIED:
        parts = ", ".join(f"{kind} {count:,}" for kind, count in sorted(TRIED.items()))
        terminalreporter.write_line(f"fuzzing: {sum(TRIED.values()):,} cases ({parts})")


def pytest_sessionfinish(session, exitstatus) -> None:
    if IS_LONG and TRIED and exitstatus == 0 and sum(TRIED.values()) < LEAST_CASES:
        print(f"\nfewer than {LEAST_CASES:,} cases were tried: give a larger number of examples")
        session.exitstatus = 1


@pytest.fixture(scope="session")
def fuzz_dir(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="session")
def sound_bytes(fuzz_dir):
    """Give the bytes of a sound little scan in a format: ``sound_bytes(".nii")``."""
    image = sitk.GetImageFromArray(VOLUME)
    image.SetSpacing((0.7, 0.8, 2.5))

    def give(suffix: str, *, compress: bool = False) -> bytes:
        path = fuzz_dir / f"sound{suffix}"
        sitk.WriteImage(image, str(path), compress)
        return path.read_bytes()

    return give
