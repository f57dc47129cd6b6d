# SPDX-License-Identifier: Apache-2.0
"""Measure speed and memory.

python tools/benchmark.py prep SCAN.mhd [--threads 2] [--repeat 3] [--json OUT]
python tools/benchmark.py prep LUNA16_DIR --workers 1 2 [--json OUT]
python tools/benchmark.py depth PREPARED_DIR [--shake 0.15] [--json OUT]
python tools/benchmark.py mask SCAN [--diameters 20 25 30] [--margins 0 0.5 1] [--json OUT]
python tools/benchmark.py infer SCAN --checkpoint MODEL.pth [--threads 2] [--json OUT]
python tools/benchmark.py runtimes SCAN --checkpoint MODEL.pth [--threads 2] [--json OUT]
python tools/benchmark.py train CONFIG --data PREPARED_DIR [--workers 1 2 4] [--json OUT]
python tools/benchmark.py gpu [CONFIG] [--batches 6 18] [--json OUT]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.command_line import run_and_exit

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_CONFIG = ROOT / "configs" / "lung_deform_detr.py"
# What is measured stands beside this folder, outside the package.
sys.path.insert(0, str(ROOT))


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    prep = commands.add_parser(
        "prep",
        help="preparation of one scan against reading it, or of a folder by number of workers",
    )
    add = prep.add_argument
    add("path", type=Path, help="a scan, or a LUNA16-shaped folder with --workers")
    add("--config", type=Path, default=DEFAULT_CONFIG, help="config whose prep_pipeline is run")
    add("--threads", type=int, default=2, help="threads for one scan (default: %(default)s)")
    add("--repeat", type=int, default=3, help="repeats; the best counts (default: %(default)s)")
    add("--workers", type=int, nargs="+", help="worker counts, each with one thread per worker")
    prep.set_defaults(run=run_prep)

    depth = commands.add_parser(
        "depth", help="how far along z from its centre the depth of the maximum puts a nodule"
    )
    add = depth.add_argument
    add("path", type=Path, help="prepared folder")
    add("--shake", type=float, default=0.0, help="move the boxes' corners by this share of a side")
    depth.set_defaults(run=run_depth)

    mask = commands.add_parser(
        "mask", help="what the lung mask keeps of balls set on the pleura, and what margins cost"
    )
    add = mask.add_argument
    add("scan", type=Path, help="a scan file")
    add("--diameters", type=float, nargs="*", default=[20, 25, 30], help="(default: %(default)s)")
    add("--margins", type=float, nargs="*", default=[0, 0.5, 1], help="(default: %(default)s)")
    mask.set_defaults(run=run_mask)

    infer = commands.add_parser(
        "infer", help="one scan from file to candidates, beside mmdet's stock way, on the CPU"
    )
    runtimes = commands.add_parser(
        "runtimes", help="time per slab in PyTorch, ONNX Runtime and OpenVINO (extra: export)"
    )
    for command in (infer, runtimes):
        add = command.add_argument
        add("scan", type=Path, help="a scan file or a DICOM folder")
        add("--checkpoint", type=Path, required=True, help="a model file")
        add("--threads", type=int, default=2, help="(default: %(default)s)")
        add("--trust-checkpoint", action="store_true", help="also load files that can run code")
    add = infer.add_argument
    add("--repeat", type=int, default=1, help="repeats; the best counts (default: %(default)s)")
    add("--batch-size", type=int, help="slabs at a time in our way (default: the detector's)")
    infer.set_defaults(run=run_infer)
    add = runtimes.add_argument
    add("--slabs", type=int, default=8, help="slabs to run on (default: %(default)s)")
    runtimes.set_defaults(run=run_runtimes)

    train = commands.add_parser("train", help="training steps and the loader that feeds them")
    add = train.add_argument
    add("config", type=Path, help="config file")
    add("--data", type=Path, required=True, help="prepared dataset")
    add("--iters", type=int, default=20, help="training steps; 0 for none (default: %(default)s)")
    add("--threads", type=int, help="CPU threads of the training process (default: torch's)")
    add("--beside", type=int, default=0, help="busy processes beside it (default: %(default)s)")
    add("--workers", type=int, nargs="+", default=[1, 2, 4], help="loader processes to try")
    add("--batches", type=int, default=50, help="batches per try (default: %(default)s)")
    add(
        "--assumed-it-per-s",
        type=float,
        default=10.0,
        help="speed of the training step that the loader has to feed (default: %(default)s)",
    )
    train.set_defaults(run=run_train)

    gpu = commands.add_parser(
        "gpu", help="attention ops, training steps and inference by precision, in one table"
    )
    add = gpu.add_argument
    add("config", type=Path, nargs="?", default=DEFAULT_CONFIG, help="(default: the paper's)")
    add("--device", default="cuda", help="cpu tries the command (default: %(default)s)")
    add("--size", type=int, default=512, help="side of a slab in pixels (default: %(default)s)")
    add("--batches", type=int, nargs="+", default=[6, 18], help="slabs per training step")
    add("--repeat", type=int, default=10, help="repeats; the median counts (default: %(default)s)")
    gpu.set_defaults(run=run_gpu)
    for command in (prep, depth, mask, infer, runtimes, train, gpu):
        command.add_argument("--json", type=Path, help="write the figures there, too")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    from lungdet_mmdet.runs.atomic_files import write_json

    lines, figures = args.run(args)
    print("\n".join(lines))
    if args.json:
        write_json(args.json, figures)
    return 0


def run_prep(args: argparse.Namespace) -> tuple[list[str], dict]:
    from benchmarks.prep import (
        benchmark_folder,
        benchmark_scan,
        folder_lines,
        scan_lines,
    )
    from lungdet_mmdet.engine.by_name import config_from_file
    from lungdet_mmdet.preparation.prep_pipeline import prep_steps

    if args.path.is_dir() != bool(args.workers):
        raise LungDetError(
            f"{args.path}: give a scan file without --workers, or a folder with --workers 1 2"
        )
    config = config_from_file(args.config, import_custom_modules=False)
    steps = prep_steps(config, source=str(args.config))
    if args.workers:
        runs = [benchmark_folder(args.path, steps, workers=n) for n in args.workers]
        return folder_lines(runs), {"folder": str(args.path), "runs": [r.as_dict() for r in runs]}
    measured = benchmark_scan(args.path, steps, threads=args.threads, repeats=args.repeat)
    return scan_lines(measured), measured.as_dict()


def run_depth(args: argparse.Namespace) -> tuple[list[str], dict]:
    from benchmarks.depth_trial import try_depths

    trial = try_depths(args.path, shake=args.shake)
    return trial.lines(), {"data": trial.data, "shake": args.shake, "rows": trial.rows()}


def run_mask(args: argparse.Namespace) -> tuple[list[str], dict]:
    from benchmarks.lung_mask import figure_lines, mask_figures

    found = mask_figures(args.scan, diameters_mm=args.diameters, margins_mm=args.margins)
    return figure_lines(found), found


def run_infer(args: argparse.Namespace) -> tuple[list[str], dict]:
    from benchmarks.infer import benchmark_inference, report_lines

    measured = benchmark_inference(
        args.scan,
        args.checkpoint,
        threads=args.threads,
        repeats=args.repeat,
        batch_size=args.batch_size,
        trust_checkpoint=args.trust_checkpoint,
    )
    return report_lines(measured), measured.as_dict()


def run_runtimes(args: argparse.Namespace) -> tuple[list[str], dict]:
    from benchmarks.runtimes import benchmark_runtimes, report_lines

    found = benchmark_runtimes(
        args.scan,
        args.checkpoint,
        threads=args.threads,
        slabs=args.slabs,
        trust_checkpoint=args.trust_checkpoint,
    )
    return report_lines(found), {"runtimes": [vars(f) for f in found]}


def run_train(args: argparse.Namespace) -> tuple[list[str], dict]:
    from benchmarks.measured_process import busy_processes
    from benchmarks.train import benchmark_loader, benchmark_steps, report_lines

    steps = None
    with busy_processes(args.beside):
        loader = benchmark_loader(
            args.config,
            args.data,
            workers=args.workers,
            batches=args.batches,
            assumed_it_per_s=args.assumed_it_per_s,
        )
        if args.iters:
            steps = benchmark_steps(
                args.config, args.data, iterations=args.iters, threads=args.threads
            )
    figures = {
        "loader": [vars(found) for found in loader],
        "training": None if steps is None else vars(steps),
    }
    return report_lines(loader, steps), figures


def run_gpu(args: argparse.Namespace) -> tuple[list[str], dict]:
    from dataclasses import asdict

    from benchmarks.gpu import benchmark_gpu, report_lines
    from lungdet_mmdet.apis.model_building import choose_device

    choose_device(args.device)
    rows = []
    for row in benchmark_gpu(
        args.config,
        device=args.device,
        size_px=args.size,
        batches=args.batches,
        repeats=args.repeat,
    ):
        print(row.what, row.milliseconds, row.fault, flush=True)
        rows.append(row)
    return report_lines(rows, args.device), {"rows": [asdict(row) for row in rows]}


if __name__ == "__main__":
    run_and_exit(main)
