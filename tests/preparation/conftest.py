import copy

import pytest

from lungdet_mmdet.luna16.folder import read_luna16_folder
from lungdet_mmdet.preparation.cohort_preparation import prepare_cohort
from lungdet_mmdet.runs.workplace import process_pool
from tests.support.rehearsal import REHEARSAL_STEPS, write_rehearsal_folder


@pytest.fixture
def steps():
    """The prep pipeline of the rehearsal, for the test to change."""
    return copy.deepcopy(REHEARSAL_STEPS)


@pytest.fixture
def source(tmp_path):
    """A LUNA16-shaped folder of three small scans with a nodule each."""
    return write_rehearsal_folder(tmp_path / "luna16", 3)


@pytest.fixture
def prepare(tmp_path, source, steps):
    """Prepare `source` into ``tmp_path/out`` in this process; returns the summary."""

    def run(*, told=None):
        return prepare_cohort(
            read_luna16_folder(source),
            tmp_path / "out",
            steps,
            process_pool(0),
            workers=0,
            tell=(told if told is not None else []).append,
        )

    return run


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"
