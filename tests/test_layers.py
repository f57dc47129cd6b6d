"""The layer rule is enforced by the linter, and the linter really sees a breach."""

import subprocess
import sys


def run_ruff(repository, source, filename):
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "ruff",
            "check",
            "--select",
            "TID251",
            "--stdin-filename",
            str(repository / filename),
            "-",
        ],
        input=source,
        capture_output=True,
        text=True,
        cwd=repository,
        check=False,
    )


def test_science_layer_may_not_import_torch(repository):
    result = run_ruff(repository, "import torch\n", "lungdet_mmdet/ct/breach.py")
    assert result.returncode == 1
    assert "TID251" in result.stdout


def test_science_layer_may_not_import_the_mm_layer(repository):
    source = "from lungdet_mmdet.datasets.transforms import CLAHE\n"
    result = run_ruff(repository, source, "lungdet_mmdet/scoring/breach.py")
    assert result.returncode == 1
    assert "TID251" in result.stdout


def test_mm_layer_may_import_torch(repository):
    result = run_ruff(repository, "import torch\n", "lungdet_mmdet/transforms/fine.py")
    assert result.returncode == 0, result.stdout


def test_science_layer_loads_without_any_framework():
    code = (
        "import sys\n"
        "import lungdet_mmdet.ct.slabs, lungdet_mmdet.ct.reading, lungdet_mmdet.ct.resample\n"
        "import lungdet_mmdet.annotations.tables, lungdet_mmdet.scoring.size_bands\n"
        "bad = {'torch', 'mmengine', 'mmcv', 'mmdet'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {bad}' if bad else 0)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
