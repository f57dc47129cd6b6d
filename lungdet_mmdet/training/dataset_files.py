"""The annotation files behind a config's loaders, also inside mmdet's dataset wrappers."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config

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
