import numpy as np
import pytest

from lungdet_mmdet.annotations.tables import Nodule
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.scoring.froc import match_marks_of_split
from lungdet_mmdet.scoring.results import (
    AT_THRESHOLD,
    PUBLISHED,
    SECTIONS,
    TABLE_1,
    TestedRun,
    band_label,
    data_warnings,
    published_value,
    result_rows,
    section_title,
    threshold_text,
)
from lungdet_mmdet.scoring.run_files import Marks
from lungdet_mmdet.scoring.slab_records import SlabSet, TruthBox, size_bands
from lungdet_mmdet.scoring.split_scores import (
    ScoringOptions,
)
from tests.support.slabs import found, nodule_of, scored_split, slab, slab_set


def box(x, diameter, nodule):
    return TruthBox((x, 0.0, diameter, diameter), diameter, nodule_id=nodule)


# Scan a: one 10 mm nodule on two slabs. Scan b: healthy. Scan c: a 5 mm nodule in no slab.
TRUTH = slab_set(
    slab(0, "a", box(0.0, 10.0, "a/0")),
    slab(1, "a", box(0.0, 10.0, "a/0")),
    slab(2, "b"),
    slab(3, "c"),
    nodules=(Nodule("a/0", "a", (5.0, 5.0, 0.0), 10.0), Nodule("c/0", "c", (0.0, 0.0, 0.0), 5.0)),
    unseen=(nodule_of("c", 5.0),),
)
FOUND = [
    found(0, (0, 0, 10, 10, 0.9)),
    found(1, (0, 0, 10, 10, 0.6)),
    found(2, (50, 50, 60, 60, 0.4)),
    found(3),
]
MARKS = Marks(("a", "b"), np.array([(5.0, 5.0, 0.0), (55.0, 55.0, 0.0)]), np.array([0.9, 0.4]))


def scores(**options):
    return scored_split(TRUTH, FOUND, MARKS, **{"n_resamples": 50, **options})


def row(result, key):
    (found_row,) = [item for item in result_rows(result) if item.key == key]
    return found_row


def test_figures_of_a_small_split():
    figures = scores(threshold=0.5).figures

    # Two boxes found of two, and a nodule in no slab: three to find.
    assert figures["AR50"] == pytest.approx(2 / 3)
    assert figures["precision"] == 1.0
    assert figures["recall"] == pytest.approx(2 / 3)
    assert figures["slab_specificity"] == 1.0
    # One of two nodules is found before any false positive.
    assert figures["CPM"] == figures["sensitivity_at_1"] == 0.5


def test_a_nodule_on_two_slabs_is_one_nodule():
    counts = scores(threshold=0.5).counts

    assert counts["n_nodules_medium"] == 2
    assert counts["n_distinct_medium"] == 1
    assert counts["n_distinct_small"] == 1  # the one in no slab
    assert counts["n_distinct"] == 2
    assert counts["n_kept"] == 2
    assert (counts["n_positive_slabs"], counts["n_healthy_slabs"]) == (2, 2)


def test_the_same_seed_gives_the_same_intervals():
    first, second = (scores().intervals["AP50"] for _ in range(2))

    assert first == second
    assert first.low < first.high


def test_every_figure_has_an_interval_that_holds_it():
    result = scores(threshold=0.5)

    assert result.figures.keys() == result.intervals.keys()
    for key, value in result.figures.items():
        limits = result.intervals[key]
        assert np.isnan(value) or limits.low - 1e-9 <= value <= limits.high + 1e-9, key


def test_no_resamples_no_intervals():
    result = scores(n_resamples=0)

    assert result.intervals == {}
    assert row(result, "AP50").interval_text() == "-"


def test_without_a_threshold_its_figures_are_left_out():
    keys = {item.key for item in result_rows(scores())}

    assert {"AP50", "CPM", "slab_AUROC"} <= keys
    assert not keys & {"precision", "F1_small", "slab_sensitivity", "scan_false_alarms_per_100"}
    assert section_title(AT_THRESHOLD, None) == "Boxes on slabs at no threshold, IoU 0.5"


def test_all_found_is_shown_with_exact_limits():
    precision = row(scores(threshold=0.5), "precision_medium")

    # Two boxes kept, both right, in every resample: 0.025 ** (1 / 2) = 15.8 %.
    assert precision.is_exact
    assert precision.interval_text() == "15.8 - 100.0 % *"
    assert precision.is_few


def test_a_rate_without_events_has_an_upper_limit():
    alarms = row(scores(threshold=0.5), "slab_false_alarms_per_100")

    # No alarm on two healthy slabs: -ln(0.025) / 2 alarms per slab.
    assert alarms.interval_text() == "0.0 - 184.4 *"


def test_a_band_without_nodules_has_neither_figure_nor_limits():
    large = row(scores(), "AP50_large")

    assert (large.value_text(large.value), large.interval_text()) == ("-", "-")
    assert large.counted == "0 nodules (0 boxes)"


def test_table_1_stands_beside_the_papers_values():
    rows = [item for item in result_rows(scores()) if item.section == TABLE_1]

    assert {item.key: item.published for item in rows} == PUBLISHED
    assert [item.section for item in result_rows(scores(threshold=0.5))] == sorted(
        [item.section for item in result_rows(scores(threshold=0.5))], key=SECTIONS.index
    )


def test_other_bands_are_not_compared_with_the_papers():
    small, *_ = [band for band in size_bands((6.0, 12.0)) if band.name == "small"]

    assert published_value("AP50_small", small) is None
    assert published_value("AP50_small", size_bands()[1]) == 0.784
    assert (
        row(scores(matching={"edges_mm": (6.0, 12.0)}), "AP50_small").label == "AP, small (<= 6 mm)"
    )


def test_bands_are_labelled_by_their_limits():
    assert [band_label(band) for band in size_bands()] == [
        "all sizes", "small (<= 7 mm)", "medium (7-15 mm)", "large (> 15 mm)",
    ]  # fmt: skip
    assert [band_label(band) for band in size_bands((6,))] == ["all sizes", "<= 6 mm", "> 6 mm"]


def test_a_nodule_that_does_not_count_is_no_false_positive():
    discarded = Nodule("b/0", "b", (55.0, 55.0, 0.0), 8.0)
    truth = SlabSet(TRUTH.slabs, TRUTH.series, TRUTH.nodules, discarded=(discarded,))

    assert match_marks_of_split(truth, MARKS).ignored == 1
    assert match_marks_of_split(TRUTH, MARKS).false_positives == 1


@pytest.mark.parametrize("options", [{"n_resamples": -1}, {"threshold": 1.2}])
def test_bad_options_are_refused(options):
    with pytest.raises(LungDetError):
        ScoringOptions(**options)


def test_what_a_reader_has_to_know_is_said():
    info = {"complete_series": False, "protocol": "paper"}
    text = " ".join(data_warnings(info, scores(), data="phantom"))

    for part in ("phantom, not LUNA16", "not hold all slabs", "Paper protocol", "1 annotated",
                 "Only 3 scans"):  # fmt: skip
        assert part in text
    assert data_warnings({"complete_series": True}, scores(), data="LUNA16")[0].startswith("1 anno")


def test_the_title_names_data_and_protocol():
    run = TestedRun("phantom", "strict", "test", "a.pth", "a.py", None, "none")

    assert run.title(scores()) == "phantom data, strict protocol, test split: 4 slabs of 3 scans"
    assert threshold_text(run.threshold) == "no threshold"
