"""A process that writes the inputs: python make_inputs.py FOLDER.

Of its own, because processes are forked from that of the tests: it must not have computed anything.
"""

import sys
from pathlib import Path

from lungdet_mmdet.apis.model_file import ModelFile, write_model_file
from lungdet_mmdet.evaluation.trained_checkpoint import config_as_data
from lungdet_mmdet.splits.split_writer import write_splits
from tests.recipes.tiny_training import NATURAL, TINY
from tests.support.rehearsal import REHEARSAL_STEPS, write_rehearsal_folder
from tests.support.slab_folder import write_slab_folder
from tests.support.untrained_model import untrained_config, untrained_weights

REPOSITORY = Path(__file__).resolve().parents[2]
# A best checkpoint in each epoch that is one, and a threshold chosen on each validation.
VALIDATED = """
train_cfg = dict(max_epochs=3, val_interval=1)
val_evaluator['choose'] = 'max_f1'
"""


def write_model(path: Path) -> None:
    """Write a model with random weights that looks at coarse slabs."""
    config = untrained_config((2.5, 4.0, 4.0))
    data = config_as_data(config, source="untrained")
    weights = untrained_weights(config)
    write_model_file(path, ModelFile(name="untrained", sha256="", config=data, state_dict=weights))


def main(root: Path) -> None:
    """Write three scans, a prep config, a model, toy slabs, and a config that trains on them."""
    write_rehearsal_folder(root / "luna16", 3)
    (root / "prep.py").write_text(f"prep_pipeline = {REHEARSAL_STEPS!r}\n")
    write_model(root / "model.pth")
    slabs = write_slab_folder(root / "slabs", n_series=10, size_px=64)
    write_splits(slabs, protocol="strict", positive_rate=NATURAL)
    text = TINY.format(repository=REPOSITORY, data=slabs)
    (root / "train.py").write_text(text + VALIDATED)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
