"""The pages in a real browser: read as a radiologist would, on a phone, a desk and a wall."""

import re
import shutil

import numpy as np
import pytest

from lungdet_mmdet.annotations.corrections import join_corrections, read_corrections
from lungdet_mmdet.apis.results_folder import files_in, index_html
from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.reports.ct_planes import nodule_crops, stored_slices
from lungdet_mmdet.reports.page import encoded_jpeg
from lungdet_mmdet.reports.prep_report import prep_report_html
from lungdet_mmdet.reports.scan_report import (
    ReportBox,
    ReportCandidate,
    ReportScan,
    ReportSlab,
    ReportSlices,
    report_html,
)
from lungdet_mmdet.runs.atomic_files import write_json
from tests.reports.test_prep_report import manifest
from tests.reports.test_prep_report import scan as prepared_scan
from tests.reports.test_test_report import page_of as page_of_tested
from tests.reports.test_test_report import reviewed  # noqa: F401  (a fixture)

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no browser on this machine (Debian's chromium is one)"
)

GRID = ScanGeometry((30, 80, 100), (2.0, 1.0, 1.0), (-50.0, -40.0, -300.0))
NODULES = [((60, 30, 20), 10.0, 0.9281), ((30, 50, 12), 6.0, 0.71), ((20, 20, 5), 4.0, 0.02)]
NAME = "1.2.3.4"


@pytest.fixture(scope="module")
def browser():
    pytest.importorskip("playwright", reason="playwright is not installed (the extra dev has it)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return write_report(tmp_path_factory.mktemp("pages") / NAME)


def write_report(folder, nodules=NODULES, *, is_sagittal=False):
    """The page of a scan of 30 slices: lungs of -800 HU with balls of 40 HU.

    The file of a sagittal one has its slices from side to side.

    Each candidate has a box of 0.66 on its slab and one of 0.05 on the next.
    """
    z, y, x = np.mgrid[:30, :80, :100]
    volume = np.full(GRID.size_zyx, -800, dtype=np.int16)
    candidates = []
    for rank, (at, diameter, score) in enumerate(nodules, start=1):
        apart = np.sqrt((x - at[0]) ** 2 + (y - at[1]) ** 2 + (2.0 * (z - at[2])) ** 2)
        volume[apart <= diameter / 2] = 40
        centre = tuple(GRID.voxel_to_world(at[::-1]).tolist())
        slab = at[2] // 5
        candidates.append(
            ReportCandidate(
                rank, score, diameter, centre,
                tuple(map(float, at[::-1] if is_sagittal else at)), slab, [slab, slab + 1],
                nodule_crops(volume, GRID, centre), score >= 0.5, tuple(map(float, at)),
            )
        )  # fmt: skip
    slabs = [
        ReportSlab(
            image=np.full((80, 100), 90, dtype=np.uint8),
            z_range_mm=(-301.0 + 10 * i, -291.0 + 10 * i),
            boxes=[
                ReportBox(
                    (*np.subtract(c.at_xyz[:2], 5), *np.add(c.at_xyz[:2], 5)),
                    0.66 if c.slab == i else 0.05, c.rank,
                )
                for c in candidates
                if i in c.slab_indices
            ],
        )
        for i in range(6)
    ]  # fmt: skip
    jpegs, quality = stored_slices(volume)
    page = report_html(
        ReportScan(
            title=NAME,
            notice="Research software. Not a medical device and not for clinical use.",
            facts=[("series", "1.2." + "3" * 60)],
            flags=["x" * 200],
            threshold=0.5,
            spacing_xy_mm=(1.0, 1.0),
            slabs=slabs,
            candidates=candidates,
            warnings=["not trained on patients as they are"],
            slices=ReportSlices(jpegs, quality, GRID, None if is_sagittal else list(range(30))),
            name=NAME,
            model_sha256="ab" * 32,
        )
    )
    path = folder / "report.html"
    folder.mkdir(parents=True)
    path.write_text(page, encoding="utf-8")
    return path


@pytest.fixture
def opened(browser, report):
    """The page of the scan, opened from disk in a fresh browser profile."""
    yield from open_page(browser, report, 1280)


def open_page(browser, path, width):
    context = browser.new_context(viewport={"width": width, "height": 800}, accept_downloads=True)
    page = context.new_page()
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    page.on("request", lambda asked: faults.append(asked.url) if not is_local(asked.url) else None)
    page.goto(path.as_uri())
    page.wait_for_timeout(300)
    yield page
    assert faults == []
    context.close()


def is_local(url):
    return url.startswith(("file:", "data:", "blob:"))


def where(page):
    page.wait_for_timeout(150)
    return page.locator("#where").inner_text()


def centre_of(page):
    box = page.locator("#picture").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_the_table_counts_slices_as_the_axial_view_does(browser, tmp_path):
    for page in open_page(browser, write_report(tmp_path / NAME, is_sagittal=True), 1280):
        assert where(page).startswith("axial slice 20 (0 to 29)")
        assert page.locator("#candidates tbody tr.picked td").nth(4).inner_text() == "20"


def test_it_opens_on_the_best_candidate_and_scrolls(opened):
    assert where(opened).startswith("axial slice 20 (0 to 29), z -260.0 mm, window -600 / 1500")
    assert "2 of 3 candidates" in opened.locator("#subtitle").inner_text()
    opened.mouse.move(*centre_of(opened))
    opened.mouse.wheel(0, -100)
    assert where(opened).startswith("axial slice 21 ")
    opened.mouse.wheel(40, 0)
    assert where(opened).startswith("axial slice 21 ")
    opened.keyboard.press("ArrowDown")
    opened.keyboard.press("PageDown")
    assert where(opened).startswith("axial slice 10 ")
    opened.keyboard.press("n")
    assert where(opened).startswith("axial slice 12 ")
    opened.keyboard.press("2")
    assert where(opened).startswith("coronal slice 50 (0 to 79), y 10.0 mm")
    opened.keyboard.press("4")
    assert where(opened).startswith("slab 2 ")


def grey_at(page, x, y):
    """The shade of the picture at a point of the window."""
    box = page.locator("#picture").bounding_box()
    return page.evaluate(
        "([x, y]) => canvas.getContext('2d').getImageData(x, y, 1, 1).data[0]",
        [round(x - box["x"]), round(y - box["y"])],
    )


def test_windows_show_soft_tissue_or_lung(opened):
    opened.keyboard.press("o")
    opened.wait_for_timeout(200)
    lung = centre_of(opened)[0] - 60, centre_of(opened)[1] + 60
    assert grey_at(opened, *lung) == pytest.approx((-800 + 1350) / 1500 * 255, abs=4)
    opened.mouse.move(*lung)
    said = int(re.search(r"about (-?\d+) HU", where(opened)).group(1))
    assert said == pytest.approx(-800, abs=12)
    opened.keyboard.press("m")
    assert "window 40 / 400" in where(opened)
    assert grey_at(opened, *lung) == 0
    opened.keyboard.press("b")
    assert "window 400 / 1800" in where(opened)


def slide(page, score):
    page.locator("#threshold").evaluate(
        "(e, to) => { e.value = to; e.dispatchEvent(new Event('input')); }", score
    )


def test_all_planes_of_a_scan_with_more_slices_than_are_kept(browser, opened, report, tmp_path):
    text = report.read_text(encoding="utf-8")
    assert text.count("floor(3e8") == 1
    large = tmp_path / "report.html"
    # Room for 10 of the 30 slices.
    large.write_text(text.replace("floor(3e8", "floor(8e4"), encoding="utf-8")
    for page in open_page(browser, large, 1280):
        for keys, painted in (("2", "coronal,30"), ("3", "sagittal,60"), ("PageUp", "sagittal,70")):
            for one in (opened, page):
                one.keyboard.press(keys)
                for _ in range(50):
                    if one.evaluate("paintedAs").startswith(painted):
                        break
                    one.wait_for_timeout(100)
                assert one.evaluate("paintedAs").startswith(painted)
            assert page.evaluate("[...greyNow]") == opened.evaluate("[...greyNow]")
            assert page.evaluate("store.size") == 10
            assert page.evaluate("loading") == 0


def drag(page, start, end, *, button="left"):
    page.mouse.move(*start)
    page.mouse.down(button=button)
    page.mouse.move(*end)
    page.mouse.up(button=button)


def test_only_the_left_button_measures(opened):
    x, y = centre_of(opened)
    opened.keyboard.press("d")
    drag(opened, (x, y), (x + 20, y + 5), button="right")
    assert opened.evaluate("view.measures") == []
    opened.keyboard.press("Escape")
    drag(opened, (x, y), (x + 50, y))
    lines = opened.evaluate("view.measures")
    assert len(lines) == 1
    opened.keyboard.press("ArrowUp")
    drag(opened, (x - 60, y - 60), (x - 80, y - 80), button="right")
    assert opened.evaluate("view.measures") == lines


def test_a_slab_shows_the_scores_of_its_own_boxes(opened):
    opened.evaluate(
        """() => {
          window.written = [];
          const fill = pen.fillText.bind(pen);
          pen.fillText = (text, x, y) => { written.push(text); fill(text, x, y); };
        }"""
    )
    opened.keyboard.press("4")
    opened.keyboard.press("ArrowUp")
    assert where(opened).startswith("slab 5 ")
    # Bars of the overview: 24 pixels for a score of 1, in the middle of each slab's height.
    bars = opened.evaluate(
        """() => {
          const strip = byId('overview'), ink = strip.getContext('2d'), n = data.slabs.length;
          return data.slabs.map((_, i) => {
            const row = Math.floor((n - i - 0.5) * strip.height / n);
            const rgba = [...ink.getImageData(3, row, 24, 1).data];
            return rgba.filter((v, at) => at % 4 === 1 && v > 100).length;
          });
        }"""
    )
    assert bars == pytest.approx([0, 0, 24 * 0.66, 24 * 0.05, 24 * 0.66, 24 * 0.05], abs=1)
    last = [text for text in opened.evaluate("written") if text.startswith("#")][-1]
    assert last == "#1  0.05"


def test_keys_work_while_a_slider_has_the_focus(opened):
    opened.locator("#slider").focus()
    opened.keyboard.press("ArrowUp")
    assert where(opened).startswith("axial slice 21 ")
    opened.keyboard.press("n")
    assert opened.locator("#detail-title").inner_text().lower() == "candidate 2"
    opened.locator("#threshold").focus()
    opened.keyboard.press("a")
    assert opened.locator("#accept").get_attribute("aria-pressed") == "true"


def test_the_keyboard_stays_in_the_table(opened):
    rank = "document.activeElement.dataset.rank"
    opened.locator("#candidates tbody tr").nth(1).focus()
    opened.keyboard.press("Enter")
    assert opened.evaluate(rank) == "2"
    opened.keyboard.press("a")
    assert opened.evaluate(rank) == "2"
    opened.keyboard.press("n")
    assert opened.evaluate(rank) == "1"


def test_the_filter_hides_candidates_with_all_that_shows_them(opened):
    rows = opened.locator("#candidates tbody tr")
    assert rows.count() == 2
    assert opened.locator("#crops img").count() == 3
    opened.locator("#threshold").evaluate(
        "e => { e.value = 1; e.dispatchEvent(new Event('input')); }"
    )
    assert rows.count() == 0
    assert opened.locator("#detail").is_hidden()
    opened.locator("#threshold").evaluate(
        "e => { e.value = 0; e.dispatchEvent(new Event('input')); }"
    )
    assert rows.count() == 3
    assert "3 of 3 candidates" in opened.locator("#count").inner_text()
    opened.locator("#threshold-reset").click()
    assert rows.count() == 2
    rows.first.click()
    # The candidate's score is one number everywhere; that of a box on a slab is named as such.
    assert rows.first.locator("td").nth(1).inner_text() == "0.928"
    text = opened.locator("#detail-text").inner_text()
    assert "score 0.928" in text
    assert "Box on slab 4: 0.66" in text


def test_what_a_reader_says_is_exported_and_read_back(opened, tmp_path):
    comment = '=1+1, "sure"; calcified'
    opened.keyboard.press("a")
    opened.locator("#comment").fill(comment)
    opened.keyboard.press("Escape")
    opened.keyboard.press("n")
    opened.keyboard.press("x")
    opened.locator("#reader").fill("R1")
    opened.keyboard.press("Escape")
    # A line across a nodule that nobody marked: 20 mm to the right of the middle of slice 12.
    opened.keyboard.press("d")
    x, y = centre_of(opened)
    drag(opened, (x, y), (x + 50, y))
    opened.keyboard.press("f")
    opened.keyboard.press("f")  # the same line again adds nothing
    assert "added before" in opened.locator("#hint").inner_text()
    assert "said" in opened.locator("#candidates").inner_text()
    opened.reload()
    opened.wait_for_timeout(300)
    assert opened.locator("#comment").input_value() == comment
    with opened.expect_download() as download:
        opened.locator("#export").click()
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    assert path.name == f"corrections_{NAME}.csv"

    assert "\"'=1+1, " in path.read_text(encoding="utf-8")  # no formula to a spreadsheet
    first, second, missed = read_corrections(path)
    assert (first.rank, first.verdict, first.comment, first.reader) == (1, "accept", comment, "R1")
    assert first.centre_xyz_mm == (10.0, -10.0, -260.0)
    assert (second.rank, second.verdict, second.score) == (2, "reject", 0.71)
    scale = opened.evaluate("placing().scale / pixelRatio()")
    assert (missed.rank, missed.verdict) == (None, "missed")
    assert missed.diameter_mm == pytest.approx(50 / scale, abs=0.5)
    middle = GRID.voxel_to_world((12, 39.5, 49.5)) + (25 / scale, 0, 0)
    assert np.allclose(missed.centre_xyz_mm, middle, atol=1.0)
    assert set(join_corrections([[first, second, missed]]).nodules) == {first, missed}


@pytest.mark.parametrize(
    "others",
    [
        [(*NODULES[1][:2], 0.95), (*NODULES[0][:2], 0.91)],  # the same scan, found in another order
        [((70, 40, 8), 8.0, 0.9281)],  # another scan of the same name
        [],
    ],
)
def test_what_was_said_stays_with_its_candidates(opened, report, tmp_path, others):
    x, y = centre_of(opened)
    opened.keyboard.press("a")
    opened.keyboard.press("d")
    drag(opened, (x, y), (x + 50, y))
    opened.keyboard.press("f")
    said = opened.evaluate("correctionsCsv()")
    assert len(said.splitlines()) == 3
    for path, lines in ((write_report(tmp_path / NAME, others), 1), (report, 3)):
        opened.goto(path.as_uri())
        opened.wait_for_timeout(300)
        assert len(opened.evaluate("correctionsCsv()").splitlines()) == lines
    assert opened.evaluate("correctionsCsv()") == said


@pytest.fixture(scope="module")
def index(report):
    """The page over the scan above, one where nothing was found, and one that failed."""
    folder = report.parents[1]
    write_json(
        report.parent / "candidates.json",
        {
            "threshold": 0.5,
            "candidates": [{"above_threshold": True, "score": 0.9281, "diameter_mm": 10.0}],
            "lungs": {"verdict": "ok"},
            "cautions": ["not trained on patients as they are"],
        },
    )
    write_json(folder / "empty" / "candidates.json", {"threshold": 0.5, "candidates": []})
    failed = [{"seriesuid": "broken", "reason": "no <b>scan</b> " + "x" * 90}]
    results = {place: files_in(place) for place in (report.parent, folder / "empty")}
    path = folder / "index.html"
    path.write_text(index_html(results, failed), encoding="utf-8")
    return path


def test_the_index_lists_the_worst_first_and_filters(browser, index):
    for page in open_page(browser, index, 1280):
        names = page.locator("article h2").all_inner_texts()
        assert names == ["broken", NAME, "empty"]
        page.locator("#state").select_option("failed")
        assert page.locator("article:visible").count() == 1
        page.locator("#state").select_option("")
        page.locator("#search").fill("1.2.3")
        assert page.locator("article:visible h2").all_inner_texts() == [NAME]
        page.locator("article:visible h2 a").click()
        page.locator("#subtitle").wait_for()


def test_no_page_is_wider_than_the_window(browser, report, index, reviewed, tmp_path):  # noqa: F811
    prepared, tested = tmp_path / "prep_report.html", tmp_path / "test_report.html"
    jpeg = encoded_jpeg(np.zeros((100, 300), dtype=np.uint8))
    odd = prepared_scan("low", coverages=(0.7,), flags=["y" * 90])
    scans = [prepared_scan("1.2." + "3" * 60), odd]
    prepared.write_text(prep_report_html(manifest(scans), lambda uid: jpeg), encoding="utf-8")
    tested.write_text(page_of_tested(reviewed), encoding="utf-8")
    for path in (report, index, prepared, tested):
        for page in open_page(browser, path, 390):
            for width, height in ((390, 844), (1280, 800), (2560, 1440), (3840, 2160)):
                page.set_viewport_size({"width": width, "height": height})
                page.wait_for_timeout(100)
                assert page.evaluate("document.documentElement.scrollWidth") <= width, path.name
                if path == report:
                    # The picture takes what there is, and its foot is not below the window's.
                    box = page.locator("#picture").bounding_box()
                    assert box["width"] > 0.45 * width
                    assert width < 900 or box["y"] + box["height"] <= height
