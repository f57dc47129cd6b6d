# SPDX-License-Identifier: Apache-2.0
"""Train and test one model per official LUNA16 subset, and pool the candidates into one FROC.

    lungdet cross-validate CONFIG --data PREPARED_DIR --work-dir DIR

Each fold tests on one subset, validates on the next and trains on the other eight. A fold that is
done is not run again; one that was interrupted goes on from its last checkpoint. As in `lungdet
test`, the prepared folder fixes the distance of the slabs, and FROCMetric of the config how boxes
merge.
"""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Sequence
from pathlib import Path

from lungdet_mmdet.commands import add_cfg_options
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.command_line import own_command


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("config", type=Path, help="config file")
    add("--data", type=Path, help="prepared dataset (default: $LUNGDET_DATA)")
    add("--work-dir", type=Path, required=True, help="folder for all folds and the pooled result")
    add("--folds", type=int, nargs="+", default=list(range(10)), metavar="K", help="subsets 0-9")
    add("--seed", type=int, default=0, help="of the draw of healthy training slabs")
    add("--pretrained", metavar="none|PATH|URL", help="initial weights of the backbone")
    add_cfg_options(parser)
    add("--bootstrap", type=int, default=1000, metavar="N", help="resamples of the scans")
    args = parser.parse_args(argv)
    if len(set(args.folds)) != len(args.folds) or not set(args.folds) <= set(range(10)):
        parser.error(f"--folds {args.folds}: each of 0-9 at most once")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    from lungdet_mmdet.apis.config_file import check_data, read_config
    from lungdet_mmdet.apis.cross_validation import Fold, make_fold

    folds: list[Fold] = []
    for number in args.folds:
        config = read_config(args.config, data=args.data, cfg_options=args.cfg_options)
        fold = make_fold(config, args.work_dir, number, seed=args.seed)
        check_data(config, ("train", "val", "test"))
        folds.append(fold)
    for fold in folds:
        if fold.is_done():
            print(f"fold {fold.number}: done before", flush=True)
            continue
        print(f"fold {fold.number}: {fold.folder}", flush=True)
        fold.remember(done=False)
        pretrained = [] if args.pretrained is None else ["--pretrained", args.pretrained]
        _run("train", fold.config_path, "--work-dir", fold.folder, "--resume", *pretrained)
        _run("test", fold.config_path, fold.checkpoint(), "--work-dir", fold.folder)
        fold.remember(done=True)
    pool(folds, args.work_dir, n_resamples=args.bootstrap)
    return 0


def _run(command: str, *arguments: object) -> None:
    # A process of its own: a fold that dies takes its memory with it, and not the others.
    done = subprocess.run(own_command(command, *arguments), check=False)
    if done.returncode:
        raise LungDetError(
            f"lungdet {command} of this fold ended with status {done.returncode}; mend what it "
            "says above and run the same command again: finished folds are kept"
        )


def pool(folds: Sequence, work_dir: Path, *, n_resamples: int) -> None:
    from lungdet_mmdet.reports.score_plots import save_froc_plot
    from lungdet_mmdet.runs.atomic_files import write_json
    from lungdet_mmdet.runs.file_names import SUBMISSION_NAME
    from lungdet_mmdet.scoring.split_scores import pooled_froc, pooled_marks
    from lungdet_mmdet.scoring.submission import read_submission, write_submission
    from lungdet_mmdet.splits.coco_json import read_slab_set

    tested = []
    for fold in folds:
        slab_set = read_slab_set(fold.test_annotations)
        tested.append((slab_set, read_submission(fold.submission, series=slab_set.series)))
    result = pooled_froc(tested, n_resamples=n_resamples)
    numbers = [fold.number for fold in folds]
    data = tested[0][0].info.get("data", "")
    write_submission(work_dir / SUBMISSION_NAME, pooled_marks([marks for _, marks in tested]))
    write_json(
        work_dir / "froc.json", {"data": data, "protocol": "fold", "folds": numbers}
        | result.as_json()
    )  # fmt: skip
    title = f"{data} data, folds {', '.join(map(str, numbers))} pooled"
    save_froc_plot(work_dir / "froc.png", result, title=title)
    print(f"{title}: CPM {result.cpm_text}; {work_dir / 'froc.json'}")
