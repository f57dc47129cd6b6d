import cv2
import numpy as np
import pytest

from lungdet_mmdet.annotations.tables import Nodule
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.reports.score_plots import (
    save_froc_plot,
    save_precision_recall_plot,
    save_score_histogram,
    save_size_score_plot,
)
from lungdet_mmdet.scoring.froc import evaluate_froc, match_marks
from lungdet_mmdet.scoring.run_files import Marks
from lungdet_mmdet.scoring.slab_matching import match_slabs
from lungdet_mmdet.scoring.slab_outcomes import slab_units, truth_scores
from lungdet_mmdet.scoring.slab_records import TruthBox
from tests.support.slabs import found, slab, slab_set

BOX = TruthBox((0.0, 0.0, 10.0, 10.0), 10.0)
TRUTH = slab_set(slab(0, "a", BOX), slab(1, "a"))
FOUND = [found(0, (0, 0, 10, 10, 0.9)), found(1, (5, 5, 9, 9, 0.4))]
NOTHING = [found(0), found(1)]


def froc_of(*scores):
    marks = Marks(("a",) * len(scores), np.zeros((len(scores), 3)), np.array(scores))
    nodules = [Nodule("a/0", "a", (0.0, 0.0, 0.0), 5.0)]
    return evaluate_froc(match_marks(marks, nodules, [], ["a"]), n_resamples=5)


def picture(path):
    """Read a plot back; it must hold more than a blank page."""
    image = cv2.imread(str(path))
    assert image is not None
    assert image.std() > 5
    return image


@pytest.mark.parametrize("detections", [FOUND, NOTHING])
def test_draws_slab_plots_also_without_detections(tmp_path, detections):
    matched = match_slabs(TRUTH, detections)
    save_precision_recall_plot(tmp_path / "pr.png", matched, title="phantom", threshold=0.5)
    save_score_histogram(
        tmp_path / "scores.png", slab_units(TRUTH, detections), title="phantom", threshold=0.5
    )
    save_size_score_plot(
        tmp_path / "size.png", truth_scores(matched.outcomes), title="phantom", threshold=0.5
    )

    for name in ("pr", "scores", "size"):
        picture(tmp_path / f"{name}.png")


@pytest.mark.parametrize("scores", [(0.9, 0.4), ()])
def test_draws_the_froc_curve(tmp_path, scores):
    save_froc_plot(tmp_path / "new" / "froc.png", froc_of(*scores), title="phantom")

    picture(tmp_path / "new" / "froc.png")


def test_the_legend_of_a_froc_curve_claims_no_certainty(tmp_path, monkeypatch):
    labels = []
    monkeypatch.setattr(
        "lungdet_mmdet.reports.score_plots._legend",
        lambda axes, *_: labels.extend(axes.get_legend_handles_labels()[1]),
    )

    save_froc_plot(tmp_path / "froc.png", froc_of(0.9), title="phantom")

    # One of one: 0.025.
    assert labels[0].startswith("CPM 1.000 (0.025 - 1.000 *)")


def test_a_better_detector_draws_another_curve(tmp_path):
    save_froc_plot(tmp_path / "good.png", froc_of(0.9), title="phantom")
    save_froc_plot(tmp_path / "bad.png", froc_of(), title="phantom")

    assert (picture(tmp_path / "good.png") != picture(tmp_path / "bad.png")).any()


def test_other_formats_are_refused(tmp_path):
    with pytest.raises(LungDetError, match=r"\.png"):
        save_froc_plot(tmp_path / "froc.pdf", froc_of(), title="phantom")
