"""The prep pipeline of a config: the one owner of the order of preprocessing steps."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import lungdet_mmdet
from lungdet_mmdet.errors import LungDetError

# Code whose change changes prepared pixels or labels' coverage.
_CODE_ROOMS = ("ct", "transforms", "nodules", "preparation")


def prep_steps(config: Any, *, source: str) -> list[dict]:
    """Return the ``prep_pipeline`` of a config as a list of plain dicts.

    Raises
    ------
    LungDetError
        If the config has none, naming `source`.
    """
    steps = config.get("prep_pipeline")
    if not steps:
        raise LungDetError(
            f"{source}: the config has no prep_pipeline; inherit one with "
            "_base_ = ['./_base_/prep_luna16.py', ...]"
        )
    return json.loads(json.dumps(steps, default=dict))


def override_mask_method(steps: list[dict], method: str) -> list[dict]:
    """Return the steps with another ``method`` of OtsuLungMask ("otsu" or "luna16")."""
    return [
        {**step, "method": method} if step["type"] == "OtsuLungMask" else step for step in steps
    ]


def build_prep_pipeline(steps: list[dict]) -> Any:
    """Build the steps from mmdet's TRANSFORMS registry into one callable on a results dict."""
    return _build_cached(json.dumps(steps, sort_keys=True))


@lru_cache(maxsize=4)
def _build_cached(steps_json: str) -> Any:
    from mmcv.transforms import Compose
    from mmdet.registry import TRANSFORMS

    import lungdet_mmdet.plugin  # noqa: F401  (registers the transforms)

    return Compose([TRANSFORMS.build(step) for step in json.loads(steps_json)])


@lru_cache(maxsize=1)
def code_version() -> str:
    """Return the package version and a digest of the code that decides prepared pixels."""
    digest = hashlib.sha256()
    package = Path(lungdet_mmdet.__file__).parent
    for room in _CODE_ROOMS:
        for path in sorted((package / room).glob("*.py")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{lungdet_mmdet.__version__}+{digest.hexdigest()[:12]}"
