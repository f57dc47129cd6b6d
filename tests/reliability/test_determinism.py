"""Same input and version, same bytes."""

import pytest

from lungdet_mmdet.luna16.folder import read_luna16_folder
from lungdet_mmdet.preparation.cohort_preparation import prepare_cohort
from lungdet_mmdet.preparation.scan_job import limit_threads
from lungdet_mmdet.runs.workplace import find_workplace
from tests.reliability.outputs import files_of
from tests.support.rehearsal import REHEARSAL_STEPS


@pytest.mark.reliability("same bytes for any number of workers")
def test_every_file_of_a_preparation_for_any_number_of_workers(inputs, tmp_path):
    for workers in (0, 1, 2):
        place = find_workplace(workers, setup=limit_threads)
        prepare_cohort(
            read_luna16_folder(inputs.luna16),
            tmp_path / str(workers),
            REHEARSAL_STEPS,
            place.make_executor,
            workers=workers,
            tell=str,
        )
    first = files_of(tmp_path / "0")
    assert len(first) > 60
    assert files_of(tmp_path / "1") == first
    assert files_of(tmp_path / "2") == first
