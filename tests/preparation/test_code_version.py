"""The digest of the preparation's code covers what decides pixels."""

import subprocess
import sys
from pathlib import Path

import lungdet_mmdet
from lungdet_mmdet.preparation.prep_pipeline import code_files

PACKAGE = Path(lungdet_mmdet.__file__).parent
# Loaded beside the steps, and without a say in what a pixel becomes.
NO_PIXELS = ("__init__.py", "errors.py", "input_file.py", "versions.py", "execution/", "ops/")


def test_every_module_that_the_steps_load_is_covered():
    code = (
        "import sys, lungdet_mmdet.datasets.transforms\n"
        "for name, module in sorted(sys.modules.items()):\n"
        "    if name.startswith('lungdet_mmdet'): print(module.__file__)\n"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    names = {Path(line).relative_to(PACKAGE).as_posix() for line in loaded}
    covered = {path.relative_to(PACKAGE).as_posix() for path in code_files()}
    assert "ct/lungs/mask.py" in names
    assert sorted(n for n in names - covered if not n.startswith(NO_PIXELS)) == []


def test_every_file_is_there_once():
    files = code_files()
    assert all(path.is_file() for path in files)
    assert len(set(files)) == len(files)
