# SPDX-License-Identifier: Apache-2.0
"""Reading a config file, whatever the prepared folder is called."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

from mmengine.config import Config

from lungdet_mmdet.engine.by_name import find_config

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
    values = _replaced(config._cfg_dict.to_dict(), stand_in, folder)
    # The text is what was run, and would be run again.
    text = config.text.replace(stand_in, "DATA")
    return Config(values, cfg_text=text, filename=config.filename)


def _replaced(value: Any, old: str, new: str) -> Any:
    if isinstance(value, str):
        return value.replace(old, new)
    if isinstance(value, dict):
        return {key: _replaced(item, old, new) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_replaced(item, old, new) for item in value)
    return value
