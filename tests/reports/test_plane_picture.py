from lungdet_mmdet.reports.dark_panels import Field

FIELD = Field(left=-100.0, right=100.0, top=0.0, bottom=150.0)


def test_a_field_knows_its_size_and_middle():
    assert (FIELD.width, FIELD.height, FIELD.centre) == (200.0, 150.0, (0.0, 75.0))
    assert FIELD.widened(10.0) == Field(-110.0, 110.0, -10.0, 160.0)
    assert Field.around((0.0, 75.0), 200.0, 150.0) == FIELD


def test_fields_hold_and_overlap_each_other():
    inner = Field(0.0, 10.0, 0.0, 10.0)
    assert FIELD.holds(inner)
    assert FIELD.holds(FIELD)
    assert not inner.holds(FIELD)
    assert FIELD.overlaps(inner)
    assert not FIELD.overlaps(Field(100.0, 110.0, 0.0, 10.0))  # a common edge
    assert not FIELD.overlaps(Field(0.0, 10.0, 160.0, 170.0))
