# SPDX-License-Identifier: Apache-2.0
"""A config made ready to run: read, given its data, checked against it, and made one for a fold."""

from __future__ import annotations

import difflib
import hashlib
import inspect
import json
import os
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import Runner

import lungdet_mmdet.plugin  # noqa: F401  (registers everything before anything is built)
from lungdet_mmdet.datasets.luna16_slabs import check_holds_slabs, missing_data_message
from lungdet_mmdet.engine.by_name import DATA_VARIABLE, config_from_file, find_config, on_data
from lungdet_mmdet.engine.run_setup import quieten, trained_checkpoint
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.preparation.prep_pipeline import (
    PIXELS_VERSION,
    pipeline_difference,
    prep_steps,
)
from lungdet_mmdet.runs.atomic_files import replacing_folder, write_json
from lungdet_mmdet.runs.command_line import loading_processes, usable_cores
from lungdet_mmdet.runs.files import ANNOTATION_FOLDER, MANIFEST_NAME, SUBMISSION_NAME
from lungdet_mmdet.splits.coco_checks import check_leaks
from lungdet_mmdet.splits.coco_json import read_coco
from lungdet_mmdet.splits.prepared import check_finished
from lungdet_mmdet.splits.split_writer import recorded_label_rules, write_splits

PARTS = ("train", "val", "test")


def annotation_files(config: Config, part: str) -> list[Path]:
    """Return the annotation files that "train", "val" or "test" names, whether there or not.

    ``RepeatDataset``, ``ConcatDataset`` and the like are looked into.
    """
    return [
        Path(dataset.get("data_root") or "") / dataset["ann_file"]
        for dataset in datasets(config, part)
        if dataset.get("ann_file")
    ]


def datasets(config: Config, part: str) -> list[dict]:
    """Return the dataset configs of a part that wrap no other."""
    loader = config.get(f"{part}_dataloader")
    return _inner(loader.dataset) if loader else []


def _inner(dataset: dict) -> list[dict]:
    inner = dataset.get("datasets") or ([dataset["dataset"]] if "dataset" in dataset else [])
    return [leaf for one in inner for leaf in _inner(one)] if inner else [dataset]


WORKERS_VARIABLE = "LUNGDET_WORKERS"
"""Loading processes of each loader; set before the start, it overrides the number of cores."""


def read_config(
    path: Path,
    *,
    data: Path | None = None,
    work_dir: Path | None = None,
    cfg_options: dict | None = None,
) -> Config:
    """Read a config file.

    Parameters
    ----------
    path : the config, or the name of one of this package's.
    data : the prepared dataset; None leaves it to LUNGDET_DATA or the config's default.
    work_dir : None means the config's own, else ``work_dirs/<config name>``.
    cfg_options : overrides, applied last.

    Raises
    ------
    LungDetError
        If there is no such config, or its detector is asked for more boxes than it proposes.
    """
    if data is not None:
        os.environ[DATA_VARIABLE] = str(data)
    trainings = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # torchrun says so
    workers = loading_processes(usable_cores(), trainings)
    os.environ.setdefault(WORKERS_VARIABLE, str(workers))
    quieten(MMLogger.get_current_instance())
    config = config_from_file(path)
    if data is not None:
        config = on_data(config, data)
    if cfg_options:
        check_options(config, cfg_options)
        config.merge_from_dict(cfg_options)
    _check_queries(config, path)
    _drop_persistence_without_workers(config)
    if work_dir is not None:
        config.work_dir = str(work_dir)
    elif config.get("work_dir") is None:
        config.work_dir = str(Path("work_dirs") / find_config(path).stem)
    return config


NEAR = 0.75
"""How like an existing key a new one has to be, as difflib counts, to be taken for a slip."""


def check_options(config: Config, options: dict) -> None:
    """Refuse overrides whose key is a slip: mmengine would add it, and nothing would come of it.

    Parameters
    ----------
    config : as read.
    options : values by dotted key, as ``--cfg-options`` gives them.

    Raises
    ------
    LungDetError
        If a key is not there and is like one that is, or is no part of a run; with the nearest.
    """
    for key in options:
        place: Any = config
        for number, word in enumerate(key.split(".")):
            if isinstance(place, (list, tuple)):
                known = [str(index) for index in range(len(place))]
            elif isinstance(place, (dict, Config)):
                known = [*place.keys(), *([] if number else _runner_keys())]
            else:
                break  # a value that becomes a part of the config
            if word not in known:
                near = difflib.get_close_matches(word, known, n=1, cutoff=NEAR)
                if not near and number and isinstance(place, dict):
                    break  # parts take more than their configs name
                rest = key.split(".")[number + 1 :]
                there = ".".join([*key.split(".")[:number], *near, *rest])
                hint = f"the nearest is {there}" if near else f"there are {', '.join(known)}"
                raise LungDetError(
                    f"--cfg-options {key}: the config has no {word!r} there, {hint}; if it is "
                    "meant as it stands, write it into a config of your own"
                )
            place = place[int(word)] if isinstance(place, (list, tuple)) else place.get(word)


def _runner_keys() -> list[str]:
    return list(inspect.signature(Runner.__init__).parameters)


def _drop_persistence_without_workers(config: Config) -> None:
    """Let ``num_workers=0`` work: torch refuses options that only workers have."""
    for part in ("train", "val", "test"):
        loader = config.get(f"{part}_dataloader")
        if loader and loader.get("num_workers") == 0:
            loader.persistent_workers = False
            loader.pop("prefetch_factor", None)


def _check_queries(config: Config, path: Path) -> None:
    """Refuse more boxes a slab than there are queries: mmdet would stop at the first validation."""
    model = config.get("model") or {}
    queries, most = model.get("num_queries"), (model.get("test_cfg") or {}).get("max_per_img")
    if queries and most and most > queries:
        raise LungDetError(
            f"{path}: model.test_cfg.max_per_img asks for {most} boxes a slab, and "
            f"model.num_queries proposes {queries}; set model.test_cfg.max_per_img={queries} or "
            "lower as well"
        )


def check_data(config: Config, parts: tuple[str, ...]) -> None:
    """Check that the annotation files of "train", "val", "test" are there, and none is empty.

    Raises
    ------
    LungDetError
        Naming the missing or empty file and the commands that make it.
    """
    for part in parts:
        for dataset in datasets(config, part):
            check_finished(Path(dataset.get("data_root") or ""))
        for path in annotation_files(config, part):
            if not path.is_file():
                raise LungDetError(missing_data_message(path))
            check_holds_slabs(path, read_coco(path))


def check_config_leaks(config: Config, *, allow: bool = False) -> tuple[str, ...]:
    """Look for series, patients or images on two sides of the split that a config names.

    Parameters
    ----------
    config : its train, val and test annotation files are compared as far as they are there. A part
        may join several: each is compared with those of the other parts.
    allow : only warn; for overfitting on purpose.

    Returns
    -------
    Sentences for the log.

    Raises
    ------
    LungDetError
        On a leak (a paper split shares series by design: it only warns).
    """
    there = [[p for p in annotation_files(config, part) if p.is_file()] for part in PARTS]
    found = [
        warning
        for paths in product(*(files or [None] for files in there))
        for warning in check_leaks(dict(zip(PARTS, paths, strict=True)), allow=allow).warnings
    ]
    return tuple(dict.fromkeys(found))


def check_prep_pipeline(config: Config, *, allow: bool = False) -> tuple[str, ...]:
    """Compare the config's ``prep_pipeline`` with the one that made the prepared slabs.

    A model carries its config's pipeline and is later fed by it, so training on slabs made by
    another one gives a model that never sees what it was trained on. The mask method is left out of
    the comparison: preparation can choose it per run.

    Parameters
    ----------
    config : with ``prep_pipeline`` and the training data's folder.
    allow : only warn.

    Returns
    -------
    Sentences for the log; also where the folder does not tell how it was made.

    Raises
    ------
    LungDetError
        Naming the steps that differ, and the command that prepares the data for this config.
    """
    if not config.get("prep_pipeline"):
        return ("the config has no prep_pipeline: the model cannot be used on scans later",)
    wanted = prep_steps(config, source="the training config")
    roots = dict.fromkeys(Path(d.get("data_root") or "") for d in datasets(config, "train"))
    messages = [_other_pipeline(root / MANIFEST_NAME, wanted, allow=allow) for root in roots]
    return tuple(message for message in messages if message)


def _other_pipeline(manifest: Path, wanted: list[dict], *, allow: bool) -> str | None:
    """Compare one prepared folder with the steps wanted; return what is to be said of it."""
    try:
        record = json.loads(manifest.read_text(encoding="utf-8"))
        made_by, version = record["pipeline"], record.get("pixels_version", PIXELS_VERSION)
    except FileNotFoundError:
        return f"{manifest}: not there, so nobody can tell how these slabs were prepared"
    except (ValueError, KeyError, TypeError) as error:
        raise LungDetError(
            f"{manifest}: not a manifest of prepared slabs ({error!r}); prepare the scans again"
        ) from error
    told = pipeline_difference(wanted, made_by, names=("the config's", "the data's"))
    if not told and version == PIXELS_VERSION:
        return None
    told = told or f"Their pixels are of version {version}, those of this package {PIXELS_VERSION}"
    message = f"{manifest}: these slabs were prepared by another pipeline than the config's. {told}"
    if allow:
        return message
    raise LungDetError(
        f"{message}. Prepare a folder of its own with\n"
        "  lungdet prepare LUNA16_DIR PREPARED_DIR --config CONFIG\n"
        "or train on these slabs all the same with --allow-other-prep"
    )


FOLD_CONFIG_NAME = "config.py"
FOLD_STATE_NAME = "fold.json"


@dataclass(frozen=True)
class Fold:
    """One fold: its number, its folder, and a digest of everything that its result depends on."""

    number: int
    folder: Path
    digest: str

    @property
    def config_path(self) -> Path:
        """The fold's own config, complete in itself."""
        return self.folder / FOLD_CONFIG_NAME

    @property
    def test_annotations(self) -> Path:
        """What the fold tests on."""
        return self.folder / ANNOTATION_FOLDER / "test.json"

    @property
    def submission(self) -> Path:
        """The candidates the fold's model found on its test scans."""
        return self.folder / SUBMISSION_NAME

    def is_done(self) -> bool:
        """Whether it was trained and tested.

        Raises
        ------
        LungDetError
            If it was begun with another config or other annotations.
        """
        try:
            state = json.loads((self.folder / FOLD_STATE_NAME).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return False
        if state.get("digest") != self.digest:
            raise LungDetError(
                f"{self.folder}: was begun with another config, other options or other prepared "
                "data; give a new --work-dir, or delete this folder"
            )
        return bool(state.get("done"))

    def remember(self, *, done: bool) -> None:
        """Note that the fold was begun, or that it needs no second run."""
        write_json(
            self.folder / FOLD_STATE_NAME,
            {"fold": self.number, "digest": self.digest, "done": done},
        )

    def checkpoint(self) -> Path:
        """Return the checkpoint to test: the best on the validation fold, else the last.

        Raises
        ------
        LungDetError
            If there is none.
        """
        return trained_checkpoint(self.folder)


def make_fold(
    config: Config, work_dir: Path, number: int, *, seed: int, pretrained: str | None = None
) -> Fold:
    """Write a fold's annotations and its config; nothing where it was begun with others.

    Parameters
    ----------
    config : as read by ``read_config``; it is changed.
    work_dir : of the cross-validation; the fold lies in ``fold_K`` under it.
    number : the official subset that tests; the next one validates.
    seed : of the draw of healthy training slabs.
    pretrained : initial weights of the backbone, if not those of the config.

    Raises
    ------
    LungDetError
        If the prepared data cannot be split by official subset, a dataset has no ``ann_file``, or
        the fold was begun with another config or other data.
    """
    folder = Path(work_dir).resolve() / f"fold_{number}"
    data_root = Path(config.train_dataloader.dataset.get("data_root") or "")
    split_folder = folder / ANNOTATION_FOLDER
    # What a label is stays what it is in the folder's own split.
    rules = recorded_label_rules(data_root / ANNOTATION_FOLDER)
    digest = hashlib.sha256((pretrained or "").encode())
    with replacing_folder(split_folder) as partial:
        write_splits(data_root, protocol="fold", fold=number, seed=seed, out_dir=partial, **rules)
        for part in PARTS:
            path = split_folder / f"{part}.json"
            digest.update((partial / path.name).read_bytes())
            config[f"{part}_dataloader"].dataset.ann_file = str(path)
            if part != "train":
                _point_evaluators(config, part, path)
        config.work_dir = str(folder)
        matters = _without_loading(config.to_dict())
        digest.update(json.dumps(matters, sort_keys=True, default=str).encode())
        fold = Fold(number, folder, digest.hexdigest())
        fold.is_done()  # a fold of other data or options is left as it is
    config.dump(folder / FOLD_CONFIG_NAME)
    return fold


def _without_loading(value: Any) -> Any:
    """Leave out what differs from machine to machine and changes no result."""
    if isinstance(value, dict):
        loading = ("num_workers", "persistent_workers", "prefetch_factor")
        return {k: _without_loading(v) for k, v in value.items() if k not in loading}
    return [_without_loading(v) for v in value] if isinstance(value, (list, tuple)) else value


def _point_evaluators(config: Config, part: str, path: Path) -> None:
    evaluators = config[f"{part}_evaluator"]
    for evaluator in evaluators if isinstance(evaluators, list) else [evaluators]:
        evaluator.ann_file = str(path)
