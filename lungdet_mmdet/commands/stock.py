# SPDX-License-Identifier: Apache-2.0
"""Run one of mmdet's own tools on this package's configs.

    lungdet stock train configs/lung_deform_detr_fp32.py
    lungdet stock browse_dataset CONFIG --output-dir DIR --not-show
    lungdet stock --list

The tools run as they are. All this adds is to import the package before them, which makes mmdet
importable where mmcv came without compiled ops. With a compiled mmcv they run without it.
"""

from __future__ import annotations

import importlib.util
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from lungdet_mmdet.errors import LungDetError


def stock_tools() -> dict[str, Path]:
    """Return mmdet's tools by name."""
    spec = importlib.util.find_spec("mmdet")
    if spec is None or not spec.submodule_search_locations:
        raise LungDetError("mmdet is not installed: pip install onedl-mmdetection")
    root = Path(next(iter(spec.submodule_search_locations)))
    # An installed mmdet keeps its tools in .mim; a checkout has them beside the package.
    for folder in (root / ".mim" / "tools", root.parent / "tools"):
        if (folder / "train.py").is_file():
            return {path.stem: path for path in sorted(folder.rglob("*.py"), reverse=True)}
    raise LungDetError(f"{root}: this mmdet came without its tools; install it with pip")


def main(argv: Sequence[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if argv else 1
    tools = stock_tools()
    if argv[0] == "--list":
        print("\n".join(sorted(tools)))
        return 0
    if argv[0] not in tools:
        raise LungDetError(f"mmdet has no tool {argv[0]!r}; --list shows what it has")
    path = tools[argv[0]]
    sys.argv = [str(path), *argv[1:]]
    # Some of them import files that lie beside them.
    sys.path.insert(0, str(path.parent))
    runpy.run_path(str(path), run_name="__main__")
    return 0
