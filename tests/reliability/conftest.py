"""Small inputs for whole runs of the command lines."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from lungdet_mmdet.cohort.split_writer import write_splits
from lungdet_mmdet.inference.model_file import write_model_file
from lungdet_mmdet.inference.untrained_model import untrained_model
from lungdet_mmdet.phantom.slab_folder import write_slab_folder
from lungdet_mmdet.preparation.rehearsal import REHEARSAL_STEPS, write_rehearsal_folder
from tests.recipes.tiny_training import NATURAL, TINY
from tests.reliability.tool_runs import (
    REPOSITORY,
    infer_command,
    prepare_command,
    timed,
    train_command,
)

# A best checkpoint in each epoch that is one, and a threshold chosen on each validation.
VALIDATED = "\ntrain_cfg = dict(max_epochs=3, val_interval=1)\n"


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
    write_rehearsal_folder(root / "luna16", 3)
    (root / "prep.py").write_text(f"prep_pipeline = {REHEARSAL_STEPS!r}\n")
    write_model_file(root / "model.pth", untrained_model())
    slabs = write_slab_folder(root / "slabs", n_series=10, size_px=64)
    write_splits(slabs, protocol="strict", positive_rate=NATURAL)
    text = TINY.format(repository=REPOSITORY, data=slabs)
    (root / "train.py").write_text(text + VALIDATED)
    return Inputs(root / "luna16", root / "prep.py", root / "model.pth", slabs, root / "train.py")


@pytest.fixture(scope="session")
def prepared(inputs, tmp_path_factory):
    """What prepare_luna16.py makes of the three scans undisturbed."""
    out = tmp_path_factory.mktemp("whole") / "prepared"
    return timed(prepare_command(inputs, out, 2), out)


@pytest.fixture(scope="session")
def found(inputs, tmp_path_factory):
    """What infer.py makes of them undisturbed."""
    out = tmp_path_factory.mktemp("whole") / "found"
    return timed(infer_command(inputs, out, 0), out)


@pytest.fixture(scope="session")
def trained(inputs, tmp_path_factory):
    """What train.py makes of the toy slabs undisturbed."""
    out = tmp_path_factory.mktemp("whole") / "trained"
    return timed(train_command(inputs, out), out)
