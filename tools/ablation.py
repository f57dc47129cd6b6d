# SPDX-License-Identifier: Apache-2.0
"""The command ``lungdet ablation``, from a checkout."""

from lungdet_mmdet.commands.recipes import ablation as main
from lungdet_mmdet.runs.command_line import run_and_exit

if __name__ == "__main__":
    run_and_exit(main)
