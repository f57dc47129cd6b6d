from lungdet_mmdet.doctor import FAIL, OK, WARN, Line, report


def test_problems_come_with_remedies_and_exit_code_1(capsys):
    lines = [
        Line(OK, "torch", "2.13"),
        Line(FAIL, "mmcv", "is missing", "pip install onedl-mmcv"),
    ]
    assert report(lines) == 1
    out = capsys.readouterr().out
    assert "FAIL  mmcv              is missing\n" in out
    assert "-> pip install onedl-mmcv\n" in out
    assert "Not usable: 1 problem(s)" in out


def test_warnings_alone_leave_it_usable():
    assert report([Line(WARN, "weights", "unreachable", "use a path")]) == 0
