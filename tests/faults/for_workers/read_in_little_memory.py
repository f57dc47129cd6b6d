"""Read each scan named on the command line with little memory to be had; print what became of it.

Prints one line a scan, then by how many MiB the process grew.
"""

import os
import resource
import sys

from lungdet_mmdet.ct.reading import read_scan
from lungdet_mmdet.errors import LungDetError

MIB = 2**20


def peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    with open("/proc/self/statm") as file:
        in_use = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (in_use + 512 * MIB,) * 2)
    before = peak_mib()
    for path in sys.argv[1:]:
        try:
            read_scan(path)
            print("read")
        except LungDetError:
            print("refused")
        except MemoryError:
            print("out of memory")
    print(peak_mib() - before)


main()
