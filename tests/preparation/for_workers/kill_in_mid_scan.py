"""Imported by a worker as a config's own module: kills the first worker that finishes a scan.

The slab images are written by then, the record is not, and the folder has not its name yet.
"""

import os
import signal

from lungdet_mmdet.preparation import scan_job

write_json = scan_job.write_json


def write_json_or_die(path, value):
    try:
        os.close(os.open(os.environ["LUNGDET_TEST_KILLED"], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        write_json(path, value)
    else:
        os.kill(os.getpid(), signal.SIGKILL)


scan_job.write_json = write_json_or_die
