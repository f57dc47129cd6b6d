# SPDX-License-Identifier: Apache-2.0
"""The folds of a cross-validation: what each one trains on, where it lies, what is left to do."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from lungdet_mmdet.apis.config_file import PARTS
from lungdet_mmdet.engine.run_setup import trained_checkpoint
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.atomic_files import write_json
from lungdet_mmdet.runs.files import ANNOTATION_FOLDER, SUBMISSION_NAME
from lungdet_mmdet.splits.split_writer import write_splits

CONFIG_NAME = "config.py"
STATE_NAME = "fold.json"


@dataclass(frozen=True)
class Fold:
    """One fold: its number, its folder, and a digest of everything that its result depends on."""

    number: int
    folder: Path
    digest: str

    @property
    def config_path(self) -> Path:
        """The fold's own config, complete in itself."""
        return self.folder / CONFIG_NAME

    @property
    def test_annotations(self) -> Path:
        """What the fold tests on."""
        return self.folder / ANNOTATION_FOLDER / "test.json"

    @property
    def submission(self) -> Path:
        """The candidates the fold's model found on its test scans."""
        return self.folder / SUBMISSION_NAME

    def is_done(self) -> bool:
        """Whether it was trained and tested.

        Raises
        ------
        LungDetError
            If it was begun with another config or other annotations.
        """
        try:
            state = json.loads((self.folder / STATE_NAME).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return False
        if state.get("digest") != self.digest:
            raise LungDetError(
                f"{self.folder}: was begun with another config, other options or other prepared "
                "data; give a new --work-dir, or delete this folder"
            )
        return bool(state.get("done"))

    def remember(self, *, done: bool) -> None:
        """Note that the fold was begun, or that it needs no second run."""
        write_json(
            self.folder / STATE_NAME, {"fold": self.number, "digest": self.digest, "done": done}
        )

    def checkpoint(self) -> Path:
        """Return the checkpoint to test: the best on the validation fold, else the last.

        Raises
        ------
        LungDetError
            If there is none.
        """
        return trained_checkpoint(self.folder)


def make_fold(config: Config, work_dir: Path, number: int, *, seed: int) -> Fold:
    """Write a fold's annotations and its config.

    Parameters
    ----------
    config : as read by ``read_config``; it is changed.
    work_dir : of the cross-validation; the fold lies in ``fold_K`` under it.
    number : the official subset that tests; the next one validates.
    seed : of the draw of healthy training slabs.

    Raises
    ------
    LungDetError
        If the prepared data cannot be split by official subset, or a dataset has no ``ann_file``.
    """
    folder = Path(work_dir).resolve() / f"fold_{number}"
    data_root = Path(config.train_dataloader.dataset.get("data_root") or "")
    split_folder = folder / ANNOTATION_FOLDER
    write_splits(data_root, protocol="fold", fold=number, seed=seed, out_dir=split_folder)
    digest = hashlib.sha256()
    for part in PARTS:
        path = split_folder / f"{part}.json"
        digest.update(path.read_bytes())
        config[f"{part}_dataloader"].dataset.ann_file = str(path)
        if part != "train":
            _point_evaluators(config, part, path)
    config.work_dir = str(folder)
    digest.update(json.dumps(config.to_dict(), sort_keys=True, default=str).encode())
    config.dump(folder / CONFIG_NAME)
    return Fold(number, folder, digest.hexdigest())


def _point_evaluators(config: Config, part: str, path: Path) -> None:
    evaluators = config[f"{part}_evaluator"]
    for evaluator in evaluators if isinstance(evaluators, list) else [evaluators]:
        evaluator.ann_file = str(path)
