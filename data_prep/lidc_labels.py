# SPDX-License-Identifier: Apache-2.0
"""The command ``lungdet lidc-labels``, from a checkout."""

from lungdet_mmdet.commands.data import lidc_labels as main
from lungdet_mmdet.runs.command_line import run_and_exit

if __name__ == "__main__":
    run_and_exit(main)
