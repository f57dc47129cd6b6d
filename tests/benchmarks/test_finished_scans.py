import pytest

from benchmarks import finished_scans


def test_made_up_results_count_as_finished(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["finished_scans", "--scans", "2", "3", "--dir", str(tmp_path)])
    finished_scans.main()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row.split("|")[1].strip() for row in rows] == ["finished scans", "2", "3"]


def test_scans_that_are_done_again_end_the_benchmark():
    with pytest.raises(SystemExit, match="1 of 3 scans were done again"):
        finished_scans.timed(lambda: 2, 3)
