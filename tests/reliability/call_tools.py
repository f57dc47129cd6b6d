"""A process that calls the main functions of tools: the imports are paid for once."""

import contextlib
import io
import json
import os
import runpy
import sys
from pathlib import Path

from lungdet_mmdet.errors import LungDetError

REPOSITORY = Path(__file__).resolve().parents[2]


def call(tool: str, arguments: list[str], changes: dict[str, str]) -> dict:
    """Return what one tool did, after changes to the environment."""
    os.environ.update(changes)
    out, code, error = io.StringIO(), 0, ""
    main = runpy.run_path(str(REPOSITORY / tool))["main"]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            code = main(arguments)
        except LungDetError as problem:
            code, error = 1, str(problem)
    return {"code": code, "error": error, "out": out.getvalue()}


if __name__ == "__main__":
    print(json.dumps([call(*order) for order in json.load(sys.stdin)]))
