"""A scan that needs more memory than its worker may have fails alone."""

import shutil
import zlib

import pytest

from lungdet_mmdet.luna16.folder import read_luna16_folder
from lungdet_mmdet.preparation.cohort_preparation import prepare_cohort
from lungdet_mmdet.preparation.scan_job import limit_threads
from lungdet_mmdet.runs.workplace import process_pool
from tests.reliability.limited_memory import LARGE_ZYX, limit_memory
from tests.support.rehearsal import REHEARSAL_STEPS, rehearsal_uid

LARGE_UID = "2.999.1"


def add_large_scan(root):
    """Write a scan of air that is small on disk."""
    packer = zlib.compressobj()
    nz, ny, nx = LARGE_ZYX
    rows = bytes(2 * ny * nx)
    packed = b"".join([*(packer.compress(rows) for _ in range(nz)), packer.flush()])
    (root / "subset0" / f"{LARGE_UID}.zraw").write_bytes(packed)
    (root / "subset0" / f"{LARGE_UID}.mhd").write_text(
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        f"CompressedData = True\nCompressedDataSize = {len(packed)}\n"
        "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nElementSpacing = 0.5 0.5 0.5\n"
        f"DimSize = {nx} {ny} {nz}\nElementType = MET_SHORT\nElementDataFile = {LARGE_UID}.zraw\n"
    )


@pytest.fixture
def prepare(tmp_path):
    def run(root, name, setup=limit_threads):
        folder = read_luna16_folder(root)
        pool = process_pool(1, setup)
        return prepare_cohort(folder, tmp_path / name, REHEARSAL_STEPS, pool, workers=1, tell=str)

    return run


@pytest.mark.reliability("out of memory in a worker")
def test_a_scan_too_large_for_its_worker_fails_alone(inputs, prepare, tmp_path):
    root = tmp_path / "luna16"
    shutil.copytree(inputs.luna16, root)
    add_large_scan(root)
    summary = prepare(root, "out", limit_memory)
    (failure,) = summary.failures
    assert (failure.seriesuid, failure.stage) == (LARGE_UID, "memory"), failure
    assert "use fewer --workers or a machine with more memory" in failure.reason
    assert summary.prepared == [rehearsal_uid(index) for index in range(3)]
    assert "damaged" not in failure.reason
    for path in root.glob(f"*/{LARGE_UID}.*"):
        path.unlink()
    again = prepare(root, "out")
    assert (len(again.skipped), again.failures) == (3, [])
