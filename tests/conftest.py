"""Fixtures shared by all tests."""

from __future__ import annotations

import fcntl
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long tests first: at the end no process works at one while the other waits."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind(request, tmp_path_factory):
    """Remove what this process wrote, gigabytes of it, where no test has failed."""
    yield
    if not request.session.testsfailed:
        shutil.rmtree(tmp_path_factory.getbasetemp(), ignore_errors=True)


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


@dataclass(frozen=True)
class PreparedPhantoms:
    """A small cohort of phantoms: LUNA16-shaped, prepared, and split by series."""

    luna16_dir: Path
    prepared_dir: Path


@pytest.fixture(scope="session")
def prepared_phantoms(tmp_path_factory: pytest.TempPathFactory) -> PreparedPhantoms:
    """Six small phantoms (two healthy), prepared by the default pipeline. Read only.

    Made once: the first of several test processes to ask makes them, the others wait.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # the folder of this process lies in that of all
    phantoms = PreparedPhantoms(root / "phantoms" / "luna16", root / "phantoms" / "prepared")
    finished = root / "phantoms" / "finished"
    with (root / "phantoms.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not finished.exists():
            _prepare_phantoms(phantoms)
            finished.touch()
    return phantoms


def _prepare_phantoms(phantoms: PreparedPhantoms) -> None:
    """Write, prepare and split them."""
    from mmengine.config import Config

    from lungdet_mmdet.luna16.folder import read_luna16_folder
    from lungdet_mmdet.phantom.cohort import plan_cohort, write_cohort
    from lungdet_mmdet.preparation.cohort_preparation import prepare_cohort
    from lungdet_mmdet.preparation.prep_pipeline import prep_steps
    from lungdet_mmdet.runs.workplace import SerialExecutor
    from lungdet_mmdet.splits.split_writer import write_splits

    luna16_dir, prepared_dir = phantoms.luna16_dir, phantoms.prepared_dir
    write_cohort(luna16_dir, plan_cohort(n_scans=6, seed=3, size="small"))
    config_path = REPOSITORY / "configs" / "_base_" / "prep_luna16.py"
    steps = prep_steps(Config.fromfile(config_path), source=str(config_path))
    summary = prepare_cohort(
        read_luna16_folder(luna16_dir), prepared_dir, steps, SerialExecutor, workers=1
    )
    assert not summary.failures
    write_splits(prepared_dir, protocol="strict", seed=0)


@pytest.fixture(scope="session")
def small_scan():
    from lungdet_mmdet.phantom.scan import build_scan

    return build_scan(5, size="small")
