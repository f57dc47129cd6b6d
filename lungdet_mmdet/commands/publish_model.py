# SPDX-License-Identifier: Apache-2.0
"""Make a model file that is safe to give away: lungdet publish CHECKPOINT MODEL.pth.

It holds weights, the config as data, metrics, what the model was trained on, and the score
threshold; nothing in it can run code. The training checkpoint itself must be your own or from
someone you trust: reading it can run code.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from lungdet_mmdet.errors import LungDetError


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Make a model file for `lungdet infer` from your own training checkpoint."
    )
    parser.add_argument("checkpoint", type=Path, help="checkpoint written by `lungdet train`")
    parser.add_argument("out", type=Path, help="model file to write, .pth")
    parser.add_argument(
        "--config", type=Path, help="its config (default: the one stored in the checkpoint)"
    )
    parser.add_argument(
        "--metrics", type=Path, help="metrics.json of `lungdet test`: figures and threshold"
    )
    parser.add_argument(
        "--threshold",
        type=float,
        help="score from which a candidate is shown as positive (default: the metrics' own)",
    )
    parser.add_argument(
        "--data",
        type=Path,
        help="prepared dataset it was trained on (default: the config's, where it is there)",
    )
    parser.add_argument("--note", default="", help="a sentence about the model")
    return parser.parse_args(argv)


def read_metrics(path: Path | None) -> dict:
    if path is None:
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise LungDetError(f"{path}: cannot be read ({error}); run `lungdet test` again") from error
    if not isinstance(content, dict) or not isinstance(content.get("metrics"), dict):
        raise LungDetError(f"{path}: not a metrics.json of `lungdet test`")
    return content


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    from lungdet_mmdet.apis.publishing import publish_model

    model = publish_model(
        args.checkpoint,
        args.out,
        config_path=args.config,
        metrics=read_metrics(args.metrics),
        threshold=args.threshold,
        data_root=args.data,
        note=args.note,
    )
    weights = sum(t.numel() for t in model.state_dict.values())
    print(f"{args.out}: {weights / 1e6:.1f} million weights, sha256 {model.sha256}")
    print(f"trained on: {model.data.get('name', 'not stated (--data PREPARED_DIR states it)')}")
    if model.threshold is None:
        print("no threshold: `lungdet infer` will take 0.5 (--threshold or --metrics states one)")
    else:
        print(f"threshold: {model.threshold:g}")
    return 0
