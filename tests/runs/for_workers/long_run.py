"""A program that runs until it is interrupted: ``long_run.py PIPE``."""

import os
import sys

import scan_functions

from lungdet_mmdet.runs.scan_runs import run_per_scan
from lungdet_mmdet.runs.workplace import process_pool


def report(uid):
    pipe = os.open(sys.argv[1], os.O_WRONLY)
    os.write(pipe, b".")
    os.close(pipe)


if __name__ == "__main__":
    # Two of the three workers are kept busy, the third is soon idle.
    jobs = [scan_functions.Job(uid, sys.argv[1]) for uid in ("quick", "slow1", "slow2", "quick")]
    run = run_per_scan(
        scan_functions.report_and_wait,
        jobs,
        process_pool(3),
        max_at_work=3,
        on_result=report,
    )
    print("finished:", *run.results, "failed:", *run.failures)
    sys.exit(run.exit_code)
