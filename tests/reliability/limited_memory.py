"""What spawned workers import to have little memory."""

import os
import resource
from pathlib import Path

from lungdet_mmdet.preparation.scan_job import limit_threads

# Enough for a rehearsal scan, too little for the large one.
ROOM = 300 << 20
LARGE_ZYX = (400, 700, 700)  # 374 MiB as int16


def limit_memory() -> None:
    """Set a worker up as usual, and let it have a little more memory than it has by then."""
    import lungdet_mmdet.datasets.transforms  # noqa: F401  (what work would import must not count)

    limit_threads()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
