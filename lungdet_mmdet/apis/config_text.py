# SPDX-License-Identifier: Apache-2.0
"""Reading a config file, whatever the prepared folder is called."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.config import Config

from lungdet_mmdet.engine.by_name import find_config
from lungdet_mmdet.runs.file_names import ANNOTATION_FOLDER

DATA_VARIABLE = "LUNGDET_DATA"


def config_from_file(path: Path, *, import_custom_modules: bool = True) -> Config:
    """Read a config by its path or name; the folder in LUNGDET_DATA reaches it as a value.

    mmengine pastes environment variables into the config's Python text, where a quotation mark in a
    folder's name is a syntax error, a backslash changes the name, and a crafted name is code. A
    word without any of these stands in while the text is run.
    """
    path = find_config(path)
    folder = os.environ.get(DATA_VARIABLE)
    if folder is None:
        return Config.fromfile(str(path), import_custom_modules=import_custom_modules)
    stand_in = f"lungdet-data-{secrets.token_hex(16)}"
    os.environ[DATA_VARIABLE] = stand_in
    try:
        config = Config.fromfile(str(path), import_custom_modules=import_custom_modules)
    finally:
        os.environ[DATA_VARIABLE] = folder
    values = _changed(config._cfg_dict.to_dict(), lambda text: text.replace(stand_in, folder))
    # The text is what was run, and would be run again.
    text = config.text.replace(stand_in, "DATA")
    return Config(values, cfg_text=text, filename=config.filename)


def on_data(config: Config, folder: Path) -> Config:
    """Return a config on another prepared folder, also one that names its own.

    Those that a run or mim has written do, in place of the variable.
    """
    old, new = config.get("data_root"), str(folder)
    if not old or old == new:
        return config
    inside = f"{old}/{ANNOTATION_FOLDER}/"

    def moved(text: str) -> str:
        return new + text.removeprefix(old) if text == old or text.startswith(inside) else text

    values = _changed(config._cfg_dict.to_dict(), moved)
    return Config(values, cfg_text=config.text, filename=config.filename)


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _changed(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_changed(item, change) for item in value)
    return value
