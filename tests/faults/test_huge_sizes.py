"""Headers that promise more than any memory holds are refused before it is asked for."""

import sys
from pathlib import Path

import pytest

from tests.faults.command_runs import run_command
from tests.faults.corpus import DICOM, METAIMAGE, OTHER_FORMATS

pytestmark = [
    pytest.mark.reliability("fault corpus: huge sizes in little memory"),
    pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded by RLIMIT_AS"),
]

PROGRAM = Path(__file__).parent / "for_workers" / "read_in_little_memory.py"
HUGE = (
    *("size_huge", "size_huge_within_the_limit", "size_overflows", "nrrd_size_huge"),
    *("nrrd_size_within_the_limit", "nifti_size_huge", "rows_huge"),
)


def test_no_memory_is_asked_for(tmp_path):
    faults = [f for f in (*METAIMAGE, *OTHER_FORMATS, *DICOM) if f.name in HUGE]
    paths = [fault.build(tmp_path / fault.name, fault.name) for fault in faults]
    done = run_command(str(PROGRAM), *paths, tmp=tmp_path / "tmp")
    *outcomes, grown_mib = done.stdout.decode().split()
    assert outcomes == ["refused"] * 7
    # The files are below 1 MiB; one of the scans alone would be 4 GiB.
    assert int(grown_mib) < 64
