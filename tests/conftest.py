"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout's root."""
    return REPOSITORY


@pytest.fixture(scope="session")
def luna16_sample() -> Path:
    """Folder with two real scans and the official tables; skips where it is not at hand."""
    default = REPOSITORY.parent / "shared" / "data" / "luna16_sample"
    folder = Path(os.environ.get("LUNGDET_SAMPLE", default))
    if not (folder / "annotations.csv").is_file():
        pytest.skip("the two real scans are not on this machine (set LUNGDET_SAMPLE)")
    return folder
