import base64
import re
from html.parser import HTMLParser

import pytest

from lungdet_mmdet.reports.prep_report import group_of, prep_report_html, worst_first

EVIL = "<script>alert('x')</script>"


def scan(uid, *, status="ok", verdict="ok", coverages=(), flags=()):
    done = status == "ok"
    return {
        "seriesuid": uid,
        "subset": 3,
        "status": status,
        "stage": None if done else "input",
        "reason": None if done else f"{uid} is broken",
        "slabs": 30 if done else 0,
        "lung_volume_l": 5.0 if done else None,
        "lung_mask": {"verdict": verdict, "method": "otsu", "lung_volumes_l": [2.6, 2.4]}
        if done
        else None,
        "nonzero_share": 0.35 if done else None,
        "nodules": [
            {"nodule_id": f"{uid}/{i}", "diameter_mm": 8.0, "coverage": coverage}
            for i, coverage in enumerate(coverages)
        ],
        "flags": list(flags),
        "seconds": 3.21 if done else None,
    }


def manifest(scans):
    return {
        "data": "phantom",
        "code": "0.1.0+abc",
        "versions": {"python": "3.11", "numpy": "2.2"},
        "pipeline": [{"type": "LoadCTScan"}],
        "scans": scans,
        "missing_series": [],
        "not_in_input": [],
        "outdated": [],
        "misnamed": [],
        "table_warnings": [],
        "mean_nonzero_before": 15_000_000,
        "mean_nonzero_after": 5_250_000,
        "nonzero_share": 0.35,
        "nodules": 3,
        "nodules_poorly_covered": [],
        "nodules_lost": [],
    }


SCANS = [
    scan("fine"),
    scan("suspect", verdict="suspect"),
    scan("low", coverages=(1.0, 0.7)),
    scan("lost", coverages=(0.0,)),
    scan("empty", verdict="implausible"),
    scan("failed", status="failed", coverages=(None,)),
]


def test_the_worst_come_first():
    order = [s["seriesuid"] for s in worst_first(SCANS)]
    assert order == ["failed", "empty", "lost", "low", "suspect", "fine"]


@pytest.mark.parametrize(
    ("uid", "group"),
    [("fine", "fine"), ("low", "look"), ("suspect", "look"), ("failed", "failed")],
)
def test_groups(uid, group):
    assert group_of(next(s for s in SCANS if s["seriesuid"] == uid)) == group


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags = []
        self.open = []
        self.unbalanced = []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)


def parsed(page):
    tags = Tags()
    tags.feed(page)
    assert (tags.open, tags.unbalanced) == ([], [])
    return tags.tags


def test_one_row_per_scan_with_its_picture():
    page = prep_report_html(manifest(SCANS), lambda uid: uid.encode())
    tags = parsed(page)
    rows = [a for tag, a in tags if tag == "tr" and "data-uid" in a]
    assert [row["data-rank"] for row in rows] == list("123456")
    sources = [a["src"] for tag, a in tags if tag == "img"]
    assert len(sources) == 5  # all but the failed one
    assert base64.b64decode(sources[0].split(",")[1]) == b"empty"
    assert "failed is broken" in page
    assert "15.0 M to 5.2 M per scan" in page


def test_only_the_worst_of_a_large_cohort_have_pictures(monkeypatch):
    monkeypatch.setattr("lungdet_mmdet.reports.prep_report.MAX_PICTURES", 3)
    page = prep_report_html(manifest(SCANS), lambda uid: uid.encode())
    tags = parsed(page)
    assert len([a for tag, a in tags if tag == "tr" and "data-uid" in a]) == 6
    # The first of the three is the failed one, which has none.
    assert len([tag for tag, _ in tags if tag == "img"]) == 2
    assert "Pictures of the 3 scans that are worst" in page


def test_the_page_needs_nothing_from_elsewhere():
    page = prep_report_html(manifest(SCANS), lambda uid: None)
    assert not re.search(r"https?://|src=\"(?!data:)|<link|@import|url\(", page)
    assert "default-src 'none'" in page


@pytest.mark.reliability("markup in headers and names stays text in HTML")
def test_every_string_of_the_data_stays_text():
    evil = scan(EVIL, flags=(EVIL,))
    broken = {**scan(EVIL + '"', status="failed"), "reason": EVIL, "stage": EVIL}
    evil["lung_mask"] |= {"verdict": EVIL, "method": EVIL}
    content = manifest([evil, broken]) | {
        "data": EVIL,
        "code": EVIL,
        "versions": {EVIL: EVIL},
        "pipeline": [{"type": EVIL}],
        "table_warnings": [EVIL],
    }
    page = prep_report_html(content, lambda uid: None)
    tags = parsed(page)
    assert EVIL not in page
    assert [tag for tag, _ in tags].count("script") == 1
    assert [a["data-uid"] for tag, a in tags if "data-uid" in a] == [EVIL + '"', EVIL]


def test_an_empty_cohort_makes_a_page():
    parsed(prep_report_html(manifest([]), lambda uid: None))


def test_a_share_just_under_the_limit_is_not_rounded_up_to_it():
    page = prep_report_html(manifest([scan("near", coverages=(0.896, 0.9))]), lambda uid: None)

    assert '<div class="low">8.0 mm\u00a089%</div>' in page
    assert "<div>8.0 mm\u00a090%</div>" in page
