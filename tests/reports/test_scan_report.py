"""The report page: self-contained, escaped, small."""

import base64
import json
import re

import cv2
import numpy as np
import pytest

from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.reports.ct_planes import stored_slices
from lungdet_mmdet.reports.scan_report import (
    ReportBox,
    ReportCandidate,
    ReportScan,
    ReportSlab,
    ReportSlices,
    report_html,
    slab_uris,
)

HOSTILE = "</script><script>alert(1)</script><!--%DATA%&\u2028"


def page_of(*, title="scan", slabs=None, flags=(), candidates=(), slices=None):
    slab = ReportSlab(
        image=np.full((20, 30), 77, dtype=np.uint8),
        z_range_mm=(-7.5, 0.0),
        boxes=[ReportBox((1.0, 2.0, 11.04, 12.0), 0.87654321, 1)],
        outline_xy_px=[np.array([[0, 0], [9, 0], [9, 9]])],
    )
    return report_html(
        ReportScan(
            title=title, notice="Not for clinical use.", facts=[("grid", "30 x 20")], flags=flags,
            threshold=0.5, spacing_xy_mm=(0.7, 0.7), slabs=[slab] if slabs is None else slabs,
            candidates=candidates, slices=slices,
        )
    )  # fmt: skip


def data_of(page):
    text = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    return json.loads(text.group(1))


def picture_of(uri):
    content = base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)


def test_the_page_holds_slabs_boxes_and_candidates():
    crop = np.full((8, 8), 200, dtype=np.uint8)
    candidate = ReportCandidate(
        1, 0.87654321, 8.26, (1.04, 2.0, -3.0), (4.0, 5.0, 6.0), 0, [0], {"axial": crop}
    )
    data = data_of(page_of(candidates=[candidate]))
    (slab,) = data["slabs"]
    assert (slab["width"], slab["height"], slab["z"]) == (30, 20, [-7.5, 0.0])
    assert slab["boxes"] == [[1.0, 2.0, 11.0, 12.0, 0.8765, 1]]
    assert slab["outline"] == [[0, 0, 9, 0, 9, 9]]
    assert abs(int(picture_of(slab["seen"]).mean()) - 77) <= 1
    (row,) = data["candidates"]
    assert (row["diameter"], row["centre"], row["slab"]) == (8.26, [1.04, 2.0, -3.0], 0)
    assert row["crops"][0][0] == "axial"


def test_verdicts_are_kept_for_these_candidates_on_this_scan_alone():
    def judged(rank=1, x=1.0, z=0.0, grey=77, flags=()):
        slab = ReportSlab(np.full((20, 30), grey, dtype=np.uint8), (z, z + 5.0))
        one = ReportCandidate(rank, 0.9, 8.0, (x, 2.0, -3.0), (4.0, 5.0, 6.0), 0, [0])
        return data_of(page_of(slabs=[slab], candidates=[one], flags=flags))["judged"]

    assert judged() == judged(flags=["a remark"])
    others = [judged(rank=2), judged(x=1.5), judged(z=1.0), judged(grey=78)]
    assert len({judged(), *others}) == 5


def test_the_page_holds_every_slice_with_its_place():
    volume = np.stack([np.full((8, 8), hu, np.int16) for hu in (-1000, -600, 40)])
    jpegs, quality = stored_slices(volume)
    grid = ScanGeometry((3, 8, 8), (2.5, 0.7, 0.7), (-10.0, -20.0, -300.0))
    slices = data_of(page_of(slices=ReportSlices(jpegs, quality, grid, [2, 1, 0])))["slices"]
    assert (slices["size"], slices["spacing"]) == ([8, 8, 3], [0.7, 0.7, 2.5])
    assert (slices["origin"], slices["fileSlices"]) == ([-10.0, -20.0, -300.0], [2, 1, 0])
    for jpeg, hu in zip(slices["jpegs"], (-1000, -600, 40), strict=True):
        grey = picture_of("data:image/jpeg;base64," + jpeg)
        assert np.abs(np.array(slices["hu"])[grey] - hu).max() < 9
    assert data_of(page_of())["slices"] is None


@pytest.mark.reliability("markup in headers and names stays text in HTML")
def test_texts_of_the_scan_stay_texts():
    page = page_of(title=HOSTILE, flags=[HOSTILE])
    assert data_of(page)["title"] == HOSTILE
    assert data_of(page)["flags"] == [HOSTILE]
    # The page's own three script elements, and no others.
    assert page.count("<script") == 3
    assert page.count("</script>") == 3
    assert "<!--" not in page


@pytest.mark.reliability("markup in headers and names stays text in HTML")
def test_template_marks_in_texts_stay_as_they_are():
    page = page_of(title="{{ data }}")
    assert "<title>{{ data }} - " in page
    assert data_of(page)["title"] == "{{ data }}"


def test_nothing_is_loaded_from_elsewhere():
    page = page_of()
    assert not re.search(r"https?://|src=[\"']|@import|url\(", page)
    assert "default-src 'none'" in page
    assert "Not for clinical use." in page


def test_all_place_holders_are_filled():
    assert not re.search(r"{{|{%|{#", page_of())


def test_many_slabs_are_stored_smaller():
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    large = slab_uris([noise] * 3, max_bytes=10**9)
    small = slab_uris([noise] * 3, max_bytes=sum(map(len, large)) - 1)
    assert sum(map(len, small)) < sum(map(len, large))
    assert len(slab_uris([noise] * 3, max_bytes=1)) == 3


def test_a_scan_without_slabs_is_refused():
    with pytest.raises(LungDetError, match="scan: no slab"):
        page_of(slabs=[])
