"""How a command line ends: with one sentence where users can do something about it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.execution.atomic_files import is_disk_full
from lungdet_mmdet.execution.interruption import signal_behind


def run_and_exit(main: Callable[[], int]) -> NoReturn:
    """Call `main` and leave with its exit code, 1 after an error, 130 after Ctrl-C.

    Errors that name their remedy, and a full disk wherever it is met, are told without a traceback.
    """
    try:
        code = main()
    except LungDetError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if not is_disk_full(error):
            raise
        place = f"{error.filename}: " if error.filename else ""
        sys.exit(f"error: {place}{error.strerror}; free some space and run the same command again")
    except KeyboardInterrupt as error:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + signal_behind(error))
    sys.exit(code)
