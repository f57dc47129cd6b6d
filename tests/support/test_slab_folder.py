import cv2
import numpy as np
import pytest

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.splits.prepared import read_prepared
from lungdet_mmdet.splits.split_writer import write_splits
from tests.support.slab_folder import NODULE_GREY, SPACING_MM, write_slab_folder


def test_it_is_a_prepared_folder_of_phantoms(tmp_path):
    cohort = read_prepared(write_slab_folder(tmp_path, n_series=12, n_slabs=3))
    assert cohort.data == "phantom"
    assert len(cohort.scans) == 12
    assert sorted(scan.subset for scan in cohort.scans) == sorted([*range(10), 0, 1])


def test_every_series_has_one_positive_slab_whose_disc_is_the_nodule(tmp_path):
    cohort = read_prepared(write_slab_folder(tmp_path, n_series=4, n_slabs=3))
    for scan in cohort.scans:
        (nodule,) = scan.nodules
        assert 5.0 <= nodule.diameter_mm <= 7.4
        images = [
            cv2.imread(str(tmp_path / "slabs" / slab.fields["file_name"]), cv2.IMREAD_GRAYSCALE)
            for slab in scan.slabs
        ]
        bright = [image == NODULE_GREY for image in images]
        assert [mask.any() for mask in bright] == [False, True, False]
        y, x = (float(v.mean()) * SPACING_MM for v in np.nonzero(bright[1]))
        assert (x, y) == pytest.approx(nodule.centre_xyz_mm[:2], abs=0.3)
    summaries = {s.split: s for s in write_splits(tmp_path).summaries}
    assert sum(s.positives for s in summaries.values()) == 4
    assert sum(s.ignored for s in summaries.values()) == 0


def test_without_nodules_every_slab_is_healthy(tmp_path):
    cohort = read_prepared(write_slab_folder(tmp_path, n_series=2, with_nodules=False))
    assert all(not scan.nodules for scan in cohort.scans)


def test_the_seed_decides(tmp_path):
    first, again, other = (
        write_slab_folder(tmp_path / name, n_series=1, seed=seed) / "slabs"
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    pixels = [next(folder.glob("*/001.png")).read_bytes() for folder in (first, again, other)]
    assert pixels[0] == pixels[1] != pixels[2]


def test_slabs_too_small_for_a_nodule(tmp_path):
    with pytest.raises(LungDetError, match="slabs of 16 px are too small"):
        write_slab_folder(tmp_path, size_px=16)
