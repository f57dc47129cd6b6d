# SPDX-License-Identifier: Apache-2.0
"""What the command ``lungdet`` does, a function for each subcommand: parse, call, print."""

from argparse import ArgumentParser
from pathlib import Path

DEFAULT_CONFIG = Path("lung_deform_detr.py")


def add_cfg_options(parser: ArgumentParser) -> None:
    """Give a command mmengine's ``--cfg-options``, by which values of its config are replaced."""
    from mmengine.config import DictAction  # not at the top: others need no mmengine

    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        metavar="KEY=VALUE",
        help="override config values",
    )
