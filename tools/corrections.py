# SPDX-License-Identifier: Apache-2.0
"""The command ``lungdet corrections``, from a checkout."""

from lungdet_mmdet.commands.scoring import corrections as main
from lungdet_mmdet.runs.command_line import run_and_exit

if __name__ == "__main__":
    run_and_exit(main)
