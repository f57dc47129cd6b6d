from collections import Counter

import pytest

from lungdet_mmdet.splits.labels import label_scan
from lungdet_mmdet.splits.protocols import group_by_patient, split_strict
from lungdet_mmdet.splits.split_part import IGNORED, POSITIVE_THINNED, RateRule


def labelled(scans):
    return [label_scan(scan) for scan in scans]


def uids(part) -> set[str]:
    return {scan.seriesuid for scan in part.scans}


@pytest.mark.parametrize("seed", range(5))
def test_no_series_on_two_sides_and_positives_on_each(small_cohort, seed):
    split = split_strict(labelled(small_cohort), seed=seed)
    train, val, test = split.parts
    # Eight series with a nodule go 6/1/1; of the four healthy ones 2.8/0.8/0.4 become 2/1/1, for
    # nobody is left without.
    assert [len(part.scans) for part in split.parts] == [8, 2, 2]
    assert [part.n_positive for part in split.parts] == [6, 1, 1]
    assert uids(train) | uids(val) | uids(test) == {scan.seriesuid for scan in small_cohort}


def test_training_keeps_all_positives_and_draws_healthy_slabs(small_cohort):
    train = split_strict(labelled(small_cohort), seed=0).parts[0]
    # 6 positives at 12.7 % need 41.2 healthy slabs; 74 are there.
    assert Counter(slab.status for slab in train.slabs) == {"positive": 6, "healthy": 41}
    assert not train.complete


def test_too_few_healthy_slabs_leave_the_training_rate_higher_and_say_so(make_scan):
    scans = [make_scan(str(n), n_slabs=3, nodules=[(20, 20, 3, 4)]) for n in range(10)]
    split = split_strict(labelled(scans), seed=0)
    train = split.parts[0]
    assert Counter(slab.status for slab in train.slabs) == {"positive": 7, "healthy": 14}
    assert any("14 healthy slabs are too few" in warning for warning in split.warnings)


def test_the_test_set_is_thinned_but_keeps_one_positive(make_scan):
    scans = [
        make_scan(str(n), n_slabs=9, nodules=[(20, 20, 3.75 + 15 * k, 4) for k in range(3)])
        for n in range(3)
    ]
    split = split_strict(labelled(scans), seed=0)
    test = split.parts[2]
    # 6 healthy slabs at 3 % make 0.2 positives: one of three stays.
    assert Counter(slab.status for slab in test.slabs) == {"positive": 1, "healthy": 6}
    assert test.left_out[POSITIVE_THINNED] == 2
    assert len(test.discarded_nodules) == 2
    assert any(w.startswith("test: 2 of 3 positive slabs are left out") for w in split.warnings)


def test_a_natural_rate_keeps_every_slab_also_ignored_ones(make_scan):
    scans = [
        make_scan(str(n), nodules=[(20, 20, 3, 4)], excluded=[(20, 20, 33, 4)]) for n in range(3)
    ]
    natural = split_strict(labelled(scans), seed=0, rates={"test": RateRule(None)}).parts[2]
    assert Counter(slab.status for slab in natural.slabs) == {
        "positive": 1,
        "ignored": 1,
        "healthy": 8,
    }
    assert natural.complete
    thinned = split_strict(labelled(scans), seed=0).parts[2]
    assert "ignored" not in {slab.status for slab in thinned.slabs}
    assert thinned.left_out[IGNORED] == 1


def test_series_of_a_patient_stay_together(small_cohort):
    patients = {scan.seriesuid: f"P{number // 3}" for number, scan in enumerate(small_cohort)}
    for seed in range(5):
        split = split_strict(labelled(small_cohort), seed=seed, patients=patients)
        sides = [{patients[uid] for uid in uids(part)} for part in split.parts]
        assert not sides[0] & sides[1]
        assert not sides[0] & sides[2]
        assert not sides[1] & sides[2]
        assert sum(map(len, sides)) == 4


def test_series_without_a_patient_are_groups_of_their_own(small_cohort):
    scans = labelled(small_cohort[:3])
    first, second, third = (scan.seriesuid for scan in scans)
    groups = group_by_patient(scans, {first: "A", second: third})
    assert sorted(len(group) for group in groups.values()) == [1, 1, 1]
    split = split_strict(scans, seed=0, patients={first: "A"})
    assert any(warning.startswith("2 series have no patient") for warning in split.warnings)


def test_the_order_of_the_scans_does_not_matter_but_the_seed_does(small_cohort):
    scans = labelled(small_cohort)
    forward = split_strict(scans, seed=0)
    backward = split_strict(scans[::-1], seed=0)
    other = split_strict(scans, seed=1)
    assert [uids(p) for p in forward.parts] == [uids(p) for p in backward.parts]
    assert [p.slabs for p in forward.parts] == [p.slabs for p in backward.parts]
    assert [uids(p) for p in forward.parts] != [uids(p) for p in other.parts]


def test_one_scan_trains_and_the_empty_parts_are_announced(make_scan):
    split = split_strict(labelled([make_scan("1", nodules=[(20, 20, 3, 4)])]), seed=0)
    assert [len(part.scans) for part in split.parts] == [1, 0, 0]
    assert "val: holds no slab; prepare more scans" in split.warnings
    assert "test: holds no slab; prepare more scans" in split.warnings


def test_a_cohort_without_nodules_is_announced(make_scan):
    split = split_strict(labelled([make_scan(str(n)) for n in range(3)]), seed=0)
    assert sum("holds no positive slab" in warning for warning in split.warnings) == 3
