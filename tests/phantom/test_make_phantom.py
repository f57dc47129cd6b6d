import subprocess
import sys


def run(repository, *arguments):
    return subprocess.run(
        [sys.executable, str(repository / "data_prep" / "make_phantom.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=repository,
        env={"PYTHONPATH": str(repository), "PATH": "/usr/bin:/bin"},
    )


def test_one_scan_is_written_and_summed_up(repository, tmp_path):
    result = run(repository, str(tmp_path), "--scans", "1", "--seed", "3", "--workers", "1")
    assert result.returncode == 0, result.stderr
    assert "1 phantom scans" in result.stdout
    assert "phantoms: 100%" in result.stderr
    assert len(list(tmp_path.glob("subset0/*.mhd"))) == 1


def test_bad_number_of_scans_is_one_line(repository, tmp_path):
    result = run(repository, str(tmp_path / "out"), "--scans", "0")
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1].startswith("error: number of phantom")
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()
