import pytest

from lungdet_mmdet.splits.labels import label_scan
from lungdet_mmdet.splits.protocols import (
    FURTHER_POSITIVE,
    choose_positive_slabs,
    crossing_series,
    split_paper,
)
from lungdet_mmdet.splits.split_part import HEALTHY_NOT_DRAWN, IGNORED, RateRule


@pytest.fixture(scope="module")
def luna16_sized(make_scan):
    """1,186 nodules, each on two slabs, with eight healthy slabs each."""
    return [
        label_scan(make_scan(f"{number:04d}", nodules=[(20, 20, 7.0, 10)]))
        for number in range(1186)
    ]


def counts(part) -> tuple[int, int]:
    return part.n_positive, len(part.slabs) - part.n_positive


def test_the_published_counts(luna16_sized):
    split = split_paper(luna16_sized, seed=0)
    assert split.rules["chosen_positive_slabs"] == 1226
    assert split.rules["chosen_healthy_slabs"] == 8450
    assert [counts(part) for part in split.parts] == [(858, 5915), (245, 1690), (26, 845)]
    assert split.left_out == {
        FURTHER_POSITIVE: 2 * 1186 - 1226,
        HEALTHY_NOT_DRAWN: 8 * 1186 - 8450,
        IGNORED: 0,
    }


def test_without_thinning_the_test_set_has_the_published_tenth(luna16_sized):
    test = split_paper(luna16_sized, seed=0, rates={"test": RateRule(None)}).parts[2]
    assert counts(test) == (123, 845)


def test_series_cross_and_the_user_is_told(luna16_sized):
    split = split_paper(luna16_sized, seed=0)
    crossing = crossing_series(split.parts)
    assert split.rules["series_on_several_sides"] == len(crossing) > 1000
    assert any(
        f"{len(crossing)} of 1186 series have slabs on both sides" in warning
        for warning in split.warnings
    )


def test_no_slab_is_on_two_sides(luna16_sized):
    split = split_paper(luna16_sized, seed=0)
    keys = [slab.sort_key for part in split.parts for slab in part.slabs]
    assert len(keys) == len(set(keys))


def test_every_nodule_has_a_best_slab_and_then_the_deepest_are_taken(make_scan):
    # Twelve mm at z = 14: 7 mm in slab 1 and 5 in slab 2. Ten mm at z = 7: 5.5 and 4.5 mm.
    # 30 nodules make a target of 31 slabs: one beyond the best ones.
    scans = [make_scan(f"{n:02d}", nodules=[(20, 20, 7.0, 10)]) for n in range(29)]
    scans.append(make_scan("30", nodules=[(20, 20, 14.0, 12)]))
    positives = [
        slab for scan in scans for slab in label_scan(scan).slabs if slab.status == "positive"
    ]
    chosen = choose_positive_slabs(positives, 30)
    assert len(chosen) == 31
    assert chosen[-1].sort_key == ("30", 2)


def test_a_shared_best_slab_counts_once(make_scan):
    scan = make_scan("1", nodules=[(10, 10, 3, 4), (30, 30, 3, 4)])
    positives = [slab for slab in label_scan(scan).slabs if slab.status == "positive"]
    assert len(choose_positive_slabs(positives, 2)) == 1


def test_unseen_nodules_are_divided_too(make_scan):
    scans = [
        label_scan(make_scan(str(n), nodules=[(20, 20, 3, 4), (20, 20, 500, 4)])) for n in range(10)
    ]
    split = split_paper(scans, seed=0)
    assert [len(part.unseen) for part in split.parts] == [7, 2, 1]


def test_slabs_with_other_content_never_count_as_healthy(make_scan):
    scans = [
        label_scan(make_scan(str(n), nodules=[(20, 20, 3, 4)], excluded=[(20, 20, z, 5)]))
        for n, z in enumerate(range(10, 70, 6))
    ]
    split = split_paper(scans, seed=0)
    assert {slab.status for part in split.parts for slab in part.slabs} == {"positive", "healthy"}
    assert split.left_out[IGNORED] > 0


def test_too_few_healthy_slabs_are_announced(make_scan):
    scans = [label_scan(make_scan(str(n), n_slabs=2, nodules=[(20, 20, 3, 4)])) for n in range(9)]
    split = split_paper(scans, seed=0)
    assert any("9 positive slabs need 62 healthy ones" in w for w in split.warnings)


def test_nodules_of_another_part_do_not_count(make_scan):
    # Their slabs are not looked at here: neither is their scan healthy, nor a mark on them wrong.
    spots = [(20, 20, z, 5) for z in (3, 18, 33, 48, 500)]  # the last one in no slab
    scans = [label_scan(make_scan(str(n), nodules=spots)) for n in range(12)]
    split = split_paper(scans, seed=0)
    elsewhere = 0
    for part in split.parts:
        shown = {nodule for slab in part.slabs for nodule in slab.nodule_ids}
        shown |= {item.nodule.nodule_id for item in part.unseen}
        discarded = {nodule.nodule_id for nodule in part.discarded_nodules}
        assert not shown & discarded
        for scan in part.scans:
            assert {n.nodule_id for n in scan.scan.nodules} <= shown | discarded
        elsewhere += len(discarded)
    assert elsewhere
