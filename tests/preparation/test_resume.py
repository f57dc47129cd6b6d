import json
import os

import pytest

from lungdet_mmdet.preparation.prep_pipeline import PIXELS_VERSION, pipeline_changes
from tests.support.rehearsal import rehearsal_uid


def step(steps, name):
    return next(s for s in steps if s["type"] == name)


def edit_record(out, uid, change):
    path = out / "slabs" / uid / "scan.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def test_a_second_run_finds_nothing_to_do(prepare, out):
    first = prepare()
    inodes = {path: path.stat().st_ino for path in out.glob("slabs/*/*")}
    told = []
    second = prepare(told=told)
    assert len(first.prepared) == 3
    assert (second.prepared, len(second.skipped)) == ([], 3)
    assert {path: path.stat().st_ino for path in out.glob("slabs/*/*")} == inodes
    assert told == ["to prepare: 0 scans; up to date: 3"]
    # Durations are those of the run that did the work.
    assert [s["seconds"] for s in second.manifest["scans"]] == [
        s["seconds"] for s in first.manifest["scans"]
    ]


def test_a_changed_parameter_prepares_again_and_says_which(prepare, steps):
    prepare()
    step(steps, "WindowHU")["level_hu"] = -500
    told = []
    summary = prepare(told=told)
    assert len(summary.prepared) == 3
    assert told[1] == (
        "prepared again, because the prep pipeline changed (WindowHU.level_hu: -600 -> -500): "
        "3 scans"
    )
    assert summary.manifest["pipeline"] == steps


def test_a_changed_file_prepares_that_scan_again(prepare, source):
    prepare()
    path = next(source.glob(f"*/{rehearsal_uid(1)}.zraw"))
    os.utime(path, ns=(1, 1))
    summary = prepare()
    assert summary.prepared == [rehearsal_uid(1)]
    assert dict(summary.redone_because) == {"the scan's file changed": 1}


def test_a_changed_annotation_prepares_that_scan_again(prepare, source):
    prepare()
    table = source / "annotations.csv"
    table.write_text(table.read_text() + f"{rehearsal_uid(2)},60,0,80,5\n")
    summary = prepare()
    assert summary.prepared == [rehearsal_uid(2)]
    assert dict(summary.redone_because) == {"its annotations changed": 1}


@pytest.mark.parametrize(("pixels", "shown"), [("0", "0"), (None, "unknown")])
def test_other_pixels_prepare_again(prepare, out, pixels, shown):
    prepare()
    edit_record(out, rehearsal_uid(0), lambda record: record["fingerprint"].update(pixels=pixels))
    summary = prepare()
    assert summary.prepared == [rehearsal_uid(0)]
    (reason,) = summary.redone_because
    assert reason == f"the package makes other pixels now (version {shown} -> {PIXELS_VERSION})"


def test_a_changed_docstring_prepares_nothing_again(prepare, out, monkeypatch):
    prepare()
    monkeypatch.setattr("lungdet_mmdet.__version__", "99.0")
    assert prepare().prepared == []


@pytest.mark.parametrize("name", ["003.png", "003.depth.png"])
@pytest.mark.parametrize("damage", ["missing", "empty"])
def test_a_scan_that_lost_an_image_is_prepared_again(prepare, out, damage, name):
    prepare()
    image = out / "slabs" / rehearsal_uid(0) / name
    whole = image.read_bytes()
    image.unlink() if damage == "missing" else image.write_bytes(b"")
    summary = prepare()
    assert dict(summary.redone_because) == {"slab images are missing": 1}
    assert image.read_bytes() == whole


def test_a_damaged_record_is_made_again(prepare, out):
    prepare()
    record = out / "slabs" / rehearsal_uid(0) / "scan.json"
    whole = record.read_bytes()
    record.write_bytes(whole[:100])
    summary = prepare()
    assert dict(summary.redone_because) == {"its record is damaged": 1}
    assert record.read_bytes() == whole


def test_changes_of_a_pipeline_in_words():
    before = [{"type": "A", "x": 1}, {"type": "B"}]
    assert pipeline_changes(before, before) == []
    assert pipeline_changes(before, [{"type": "A"}, {"type": "B", "y": [1, 2]}]) == [
        "A.x: 1 -> default",
        "B.y: default -> [1, 2]",
    ]
    assert pipeline_changes(before, [{"type": "C"}, *before[:1]]) == ["C added", "B dropped"]
    assert pipeline_changes(before, before[::-1]) == ["another order of steps"]
