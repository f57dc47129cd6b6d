# SPDX-License-Identifier: Apache-2.0
"""Export a model's network to ONNX or OpenVINO.

    lungdet export MODEL.pth --format onnx|openvino --size HEIGHT WIDTH [--out FILE]

Before anything is written, the exported network runs on random slabs beside PyTorch; where outputs
differ, nothing is written. docs/inference.md says what goes in and what comes out.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("checkpoint", type=Path, help="a model file")
    add("--format", choices=("onnx", "openvino"), required=True, help="what to write")
    add(
        "--size",
        type=int,
        nargs=2,
        default=(352, 512),
        metavar=("HEIGHT", "WIDTH"),
        help="size of the slabs in pixels (default: 352 512, room for most lungs at 0.7 mm)",
    )
    add("--out", type=Path, help="file to write (default: beside the model file)")
    add("--trust-checkpoint", action="store_true", help="also load files that can run code")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    from lungdet_mmdet.apis.model_file import read_model_file
    from lungdet_mmdet.apis.publishing import SUFFIXES, export_model

    out = args.out or args.checkpoint.with_suffix(SUFFIXES[args.format])
    model = read_model_file(args.checkpoint, trust=args.trust_checkpoint)
    agreement = export_model(
        model, out, file_format=args.format, size_yx=(args.size[0], args.size[1])
    )
    print(
        f"{out}: outputs agree with PyTorch to {agreement.box_px:.1e} px and "
        f"{agreement.score:.1e} in score"
    )
    return 0
