import cv2
import numpy as np
import pytest

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.reports.prediction_figure import prediction_figure
from lungdet_mmdet.scoring.slab_records import TruthBox
from tests.support.slabs import outcome_on, slab

NODULE = TruthBox((20.0, 20.0, 10.0, 10.0), 10.0)


@pytest.fixture
def slab_file(tmp_path):
    path = tmp_path / "000.png"
    cv2.imwrite(str(path), np.full((80, 100), 60, dtype=np.uint8))
    return path


def outcome_of(truth, boxes, scores):
    rows = [(*box, score) for box, score in zip(boxes, scores, strict=True)]
    return outcome_on(slab(1, "1.2.3.4567", *truth, slab_index=3), *rows)


def coloured(outcomes, files):
    """Pixels of green and of red, above the legend."""
    png = np.frombuffer(prediction_figure(outcomes, files), np.uint8)
    image = cv2.imdecode(png, cv2.IMREAD_COLOR)
    image = image[: round(0.85 * image.shape[0])].astype(int)
    blue, green, red = (image[..., channel] for channel in range(3))
    return (
        int(((green > red + 60) & (green > blue + 60)).sum()),
        int(((red > green + 60) & (red > blue + 60)).sum()),
    )


def test_annotated_is_green_and_detected_red(slab_file):
    hit = outcome_of([NODULE], [[20, 20, 30, 30]], [0.9])
    missed = outcome_of([NODULE], [], [])
    false = outcome_of([], [[20, 20, 30, 30]], [0.9])
    quiet = outcome_of([], [[20, 20, 30, 30]], [0.1])

    green, red = coloured([hit], [slab_file])
    assert min(green, red) > 300
    green, red = coloured([missed], [slab_file])
    assert green > 300
    assert red == 0
    green, red = coloured([false], [slab_file])
    assert green == 0
    assert red > 300
    assert coloured([quiet], [slab_file]) == (0, 0)


def test_missed_and_found_nodules_look_different(slab_file):
    found = coloured([outcome_of([NODULE], [[20, 20, 30, 30]], [0.9])], [slab_file])[0]
    missed = coloured([outcome_of([NODULE], [], [])], [slab_file])[0]

    # Dots leave gaps.
    assert missed < 0.8 * found


def test_slabs_of_different_size_share_one_scale(slab_file, tmp_path):
    small = tmp_path / "small.png"
    cv2.imwrite(str(small), np.full((40, 50), 250, dtype=np.uint8))
    outcomes = [outcome_of([], [], []), outcome_of([], [], [])]
    png = np.frombuffer(prediction_figure(outcomes, [slab_file, small]), np.uint8)
    image = cv2.imdecode(png, cv2.IMREAD_GRAYSCALE)

    # 100 x 80 mm of grey 60 against 50 x 40 mm of grey 250: a quarter of the area. Of the larger
    # one the scale bar takes a little.
    area_large = int((abs(image.astype(int) - 60) <= 1).sum())
    area_small = int((image >= 249).sum())
    assert area_small / area_large == pytest.approx(0.25, rel=0.1)


def test_a_missing_slab_image_is_named(tmp_path):
    with pytest.raises(LungDetError, match=r"gone\.png"):
        prediction_figure([outcome_of([NODULE], [], [])], [tmp_path / "gone.png"])


def test_notes_make_room_for_themselves(slab_file):
    outcome = outcome_of([NODULE], [], [])
    heights = [
        cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE).shape[0]
        for png in (
            prediction_figure([outcome], [slab_file]),
            prediction_figure([outcome], [slab_file], notes=["one", "two"]),
        )
    ]
    assert heights[1] > heights[0]
