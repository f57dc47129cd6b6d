from collections import Counter

import pytest

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.splits.labels import label_scan
from lungdet_mmdet.splits.protocols import split_fold


@pytest.fixture
def scans(small_cohort):
    return [label_scan(scan) for scan in small_cohort]


@pytest.mark.parametrize(("fold", "validation"), [(0, 1), (3, 4), (9, 0)])
def test_one_subset_tests_the_next_validates(scans, fold, validation):
    parts = split_fold(scans, fold=fold, seed=0).parts
    subsets = [{scan.scan.subset for scan in part.scans} for part in parts]
    assert subsets == [set(range(10)) - {fold, validation}, {validation}, {fold}]


def test_test_and_validation_keep_every_slab(scans):
    train, val, test = split_fold(scans, fold=0, seed=0).parts
    # Subset 0 holds scans 0 (with a nodule) and 10 (healthy).
    assert Counter(slab.status for slab in test.slabs) == {"positive": 1, "healthy": 19}
    assert (train.complete, val.complete, test.complete) == (False, True, True)


def test_every_scan_tests_once_in_ten_folds(scans):
    tested = [
        scan.seriesuid
        for k in range(10)
        for scan in split_fold(scans, fold=k, seed=0).parts[2].scans
    ]
    assert sorted(tested) == sorted(scan.seriesuid for scan in scans)


def test_an_unknown_subset_is_an_error_that_a_table_cures(make_scan):
    scan = label_scan(make_scan("1.2", nodules=[(20, 20, 3, 4)]))
    with pytest.raises(LungDetError, match=r"subset of 1 series is not known, for example 1\.2"):
        split_fold([scan], fold=0, seed=0)
    parts = split_fold([scan], fold=0, seed=0, subsets={"1.2": 0}).parts
    assert [len(part.scans) for part in parts] == [0, 0, 1]


@pytest.mark.parametrize("fold", [-1, 10])
def test_a_fold_that_does_not_exist_is_an_error(scans, fold):
    with pytest.raises(LungDetError, match="folds 0-9"):
        split_fold(scans, fold=fold, seed=0)
