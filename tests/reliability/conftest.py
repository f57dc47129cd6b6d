"""Small inputs for whole runs of the command lines."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.reliability.tool_runs import environment


@dataclass(frozen=True)
class Inputs:
    """What the command lines are run on; not to be changed."""

    luna16: Path
    prep_config: Path
    model: Path
    slabs: Path
    train_config: Path


@pytest.fixture(scope="session")
def inputs(tmp_path_factory) -> Inputs:
    """Three rehearsal scans, a model with random weights, toy slabs, and configs for them."""
    root = tmp_path_factory.mktemp("inputs")
    script = Path(__file__).with_name("make_inputs.py")
    subprocess.run(
        [sys.executable, script, root], env=environment(), check=True, capture_output=True
    )
    return Inputs(
        luna16=root / "luna16",
        prep_config=root / "prep.py",
        model=root / "model.pth",
        slabs=root / "slabs",
        train_config=root / "train.py",
    )
