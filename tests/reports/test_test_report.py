import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from lungdet_mmdet.reports.page import image_uri
from lungdet_mmdet.reports.test_report import (
    ReviewedSplit,
    false_positive_figures,
    miss_figures,
    report_page,
)
from lungdet_mmdet.scoring.results import TestedRun
from lungdet_mmdet.scoring.slab_records import TruthBox
from tests.support.slabs import found, outcomes_of, scored_split, slab, slab_set

EVIL = '<script>alert("1")</script>'
NODULE = TruthBox((10.0, 10.0, 20.0, 20.0), 20.0, nodule_id=f"{EVIL}/0")
GRAZED = TruthBox((50.0, 50.0, 10.0, 10.0), 9.0, is_ignored=True, kind="grazed")


TRUTH = slab_set(slab(0, EVIL, NODULE, low_mm=-3.75), slab(1, EVIL, GRAZED))
FOUND = [
    found(0, (10, 10, 30, 19, 0.8)),
    found(1, (45, 45, 55, 55, 0.7), (80, 80, 90, 90, 0.3)),
]


@pytest.fixture
def reviewed(tmp_path):
    """Slab 0: a loose box on the nodule. Slab 1: alarms beside an ignore region, and on nothing."""
    files = {}
    for number in TRUTH.slabs:
        files[number] = tmp_path / f"{number}.png"
        cv2.imwrite(str(files[number]), np.full((100, 120), 80, dtype=np.uint8))
    return ReviewedSplit(outcomes_of(TRUTH, FOUND), files, threshold=0.5)


def page_of(reviewed, **options):
    scores = scored_split(TRUTH, FOUND, threshold=0.5, n_resamples=20)
    run = TestedRun(
        EVIL, "strict", "test", f"{EVIL}.pth", "a.py", 0.5, f"0.5, from {EVIL}", warnings=(EVIL,)
    )
    plot = cv2.imencode(".png", np.zeros((4, 4), dtype=np.uint8))[1].tobytes()
    return report_page(
        run,
        scores,
        plots=[("FROC", plot)],
        misses=miss_figures(reviewed, count=5),
        false_positives=false_positive_figures(reviewed, count=5),
        unseen=[EVIL],
        **options,
    )


def test_a_miss_says_what_lies_on_the_nodule(reviewed):
    (miss,) = miss_figures(reviewed, count=5)

    # 20 x 9 of 20 x 20: IoU 0.45.
    assert miss.heading == "20.0 mm, no matching box on its slab"
    assert miss.lines[0] == "closest box here: IoU 0.45, score 0.800"
    # The box's centre (20, 20) is the world point 19.5, half a pixel from the first pixel's centre.
    assert miss.lines[1].startswith("x 19.5  y 19.5  z 0.0 mm (LPS); slab 0")
    assert miss.is_error


def test_false_positives_say_what_is_annotated_there(reviewed):
    figures = false_positive_figures(reviewed, count=5)

    assert [figure.lines[0] for figure in figures] == [
        "loose box on a nodule of 20.0 mm, IoU 0.45",
        "touches an ignore region (grazed)",
        "nothing annotated here",
    ]
    assert [figure.is_error for figure in figures] == [True, True, False]
    assert figures[0].heading == "score 0.800, box 20 x 9 mm"
    assert cv2.imdecode(np.frombuffer(figures[0].jpeg, np.uint8), 1).shape[0] == 320


def test_a_found_nodule_is_no_error(reviewed):
    detections = [found(0, (10, 10, 30, 30, 0.9)), found(1)]
    hit = ReviewedSplit(outcomes_of(TRUTH, detections), reviewed.files, 0.5)

    assert not miss_figures(hit, count=1)[0].is_error
    assert false_positive_figures(hit, count=1) == []


def test_of_two_nodules_under_one_box_the_other_is_missed(reviewed):
    # 20 x 14 of 20 x 26: IoU 0.53.
    lower = TruthBox((10.0, 16.0, 20.0, 20.0), 20.0, nodule_id="a/1")
    truth = slab_set(slab(0, "a", NODULE, lower))
    split = ReviewedSplit(
        outcomes_of(truth, [found(0, (10, 10, 30, 30, 0.9), (10, 10, 30, 28, 0.8))]),
        reviewed.files,
        0.5,
    )

    miss, hit = miss_figures(split, count=5)
    (second,) = false_positive_figures(split, count=5)

    assert (miss.is_error, hit.is_error) == (True, False)
    # The second box fits neither: 20 x 12 of 20 x 26 on the lower one is 0.46.
    assert miss.lines[0] == "closest box here: IoU 0.53, score 0.900, counted for another nodule"
    assert second.lines[0] == "second box on a nodule of 20.0 mm, IoU 0.90"


@pytest.mark.reliability("markup in headers and names stays text in HTML")
def test_the_page_escapes_every_text(reviewed):
    text = page_of(reviewed)

    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 8


def test_the_page_needs_nothing_but_itself(reviewed):
    text = page_of(reviewed)

    assert set(re.findall(r'src="([^",]{0,20})', text)) == {
        "data:image/png;base6", "data:image/jpeg;base",
    }  # fmt: skip
    assert not re.search(r"https?://|<link|url\(", text)
    assert "default-src 'none'" in text


def test_the_page_is_well_formed_and_names_what_it_shows(reviewed):
    text = page_of(reviewed)
    open_tags = []

    class Checker(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag not in {"meta", "img", "br", "line", "path", "circle"}:
                open_tags.append(tag)

        def handle_endtag(self, tag):
            assert open_tags.pop() == tag

    # Shapes inside the drawings close themselves.
    Checker().feed(re.sub(r"<(line|path|circle)([^>]*)/>", "", text))

    assert open_tags == []
    for part in ("strict protocol", "test split", "at threshold 0.500", "not for clinical use",
                 "no slab, counted as missed"):  # fmt: skip
        assert part in text


def test_the_kind_of_an_image_is_told_from_its_content():
    assert image_uri(b"\x89PNG...").startswith("data:image/png;")
    assert image_uri(b"\xff\xd8\xff").startswith("data:image/jpeg;")
