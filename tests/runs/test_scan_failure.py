import errno

import pytest

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.scan_runs import failure_of


def raised_from(cause):
    error = LungDetError("a.mha: the file is damaged")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("no 40 GB"),
        raised_from(RuntimeError("in itk:\nITK ERROR: Failed to allocate memory for image.")),
        RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
    ],
)
def test_failed_allocations_are_told_as_such(error):
    failure = failure_of("a", error)
    assert failure.stage == "memory"
    assert failure.reason.startswith("out of memory (")
    assert "damaged" not in failure.reason
    assert failure.details


def test_an_error_that_only_speaks_of_memory_is_the_files():
    assert failure_of("a", LungDetError("a: too large to allocate memory for")).stage == "input"


def test_a_file_that_cannot_be_read_is_named():
    failure = failure_of("a", PermissionError(errno.EACCES, "Permission denied", "a.dcm"))
    assert failure.stage == "input"
    assert failure.reason == "a.dcm: cannot be read (Permission denied); check its permissions"
