"""Reading a config for the tools: data folder, overrides, work directory."""

from __future__ import annotations

import os
from pathlib import Path

from mmengine.config import Config

import lungdet_mmdet.plugin  # noqa: F401  (registers everything before anything is built)
from lungdet_mmdet.datasets.luna16_slabs import missing_data_message
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.training.dataset_files import annotation_files

DATA_VARIABLE = "LUNGDET_DATA"


def read_config(
    path: Path,
    *,
    data: Path | None = None,
    work_dir: Path | None = None,
    cfg_options: dict | None = None,
) -> Config:
    """Read a config file.

    Parameters
    ----------
    path : the config.
    data : the prepared dataset; None leaves it to LUNGDET_DATA or the config's default.
    work_dir : None means the config's own, else ``work_dirs/<config name>``.
    cfg_options : overrides, applied last.

    Raises
    ------
    LungDetError
        If there is no such config.
    """
    if not Path(path).is_file():
        raise LungDetError(f"{path}: no such config")
    if data is not None:
        os.environ[DATA_VARIABLE] = str(data)
    config = Config.fromfile(str(path))
    if cfg_options:
        config.merge_from_dict(cfg_options)
    if work_dir is not None:
        config.work_dir = str(work_dir)
    elif config.get("work_dir") is None:
        config.work_dir = str(Path("work_dirs") / Path(path).stem)
    return config


def check_data(config: Config, parts: tuple[str, ...]) -> None:
    """Check that the annotation files of "train", "val", "test" are there.

    Raises
    ------
    LungDetError
        Naming the missing file and the commands that make it.
    """
    for part in parts:
        for path in annotation_files(config, part):
            if not path.is_file():
                raise LungDetError(missing_data_message(path))
