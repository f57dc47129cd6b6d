# SPDX-License-Identifier: Apache-2.0
"""Configs and models by name, from an installed wheel or a checkout.

``lungdet_mmdet::lung_deform_detr.py`` is a config that the package brings, as ``mmdet::...`` is one
of mmdet's, and ``lungdet://slab_dino_small.pth`` the model in the box. After :func:`install`
mmengine knows both: in ``Config.fromfile``, ``_base_``, ``get_config`` and ``get_model``, and the
names in ``configs/metafile.yml`` are models of mmdet's ``DetInferencer``.
"""

from __future__ import annotations

import difflib
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lungdet_mmdet
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.files import ANNOTATION_FOLDER

if TYPE_CHECKING:
    from mmengine.config import Config

PACKAGE = "lungdet_mmdet"
ROOT = Path(lungdet_mmdet.__file__).parent
SCHEME = "lungdet://"
SHIPPED_MODEL = ROOT / "weights" / "slab_dino_small.pth"
"""The model in the box; ``weights/README.md`` beside it is its card."""


def index_folder() -> Path:
    """Return the folder of ``configs`` and ``model-index.yml``: ``.mim``, or that of a checkout."""
    installed = ROOT / ".mim"
    return installed if (installed / "configs").is_dir() else ROOT.parent


def find_config(name: str | Path) -> Path:
    """Return the file of a config.

    Parameters
    ----------
    name : a path, or where there is no such file, the name of a config of this package, with or
        without ``lungdet_mmdet::`` or ``configs/`` before it and ``.py`` behind it.

    Raises
    ------
    LungDetError
        If there is none, with the nearest name.
    """
    if Path(name).is_file():
        return Path(name)
    folder = index_folder() / "configs"
    wanted = str(name).removeprefix(f"{PACKAGE}::").removeprefix("configs/").removesuffix(".py")
    path = folder / f"{wanted}.py"
    if path.is_file() and folder in path.parents and ".." not in path.parts:
        return path
    known = [p.relative_to(folder).with_suffix("").as_posix() for p in folder.rglob("*.py")]
    near = difflib.get_close_matches(wanted, [n for n in known if n[0] != "_"], n=1, cutoff=0.0)
    hint = f", the nearest of this package's is {near[0]}.py" if near else ""
    raise LungDetError(f"{name}: no such config file{hint}; check the path")


def find_weights(source: str) -> str:
    """Return the path of weights named ``lungdet://FILE``; any other path or URL as it is."""
    if not source.startswith(SCHEME):
        return source
    return str(SHIPPED_MODEL.parent / source.removeprefix(SCHEME).rstrip("/"))


def install() -> None:
    """Let mmengine's calls that take a package's or a model's name know this package."""
    import mmengine.hub
    import mmengine.hub.hub as hub
    from mmengine.config import Config
    from mmengine.config.utils import MODULE2PACKAGE
    from mmengine.infer import BaseInferencer
    from mmengine.runner.checkpoint import CheckpointLoader

    if PACKAGE in MODULE2PACKAGE:
        return
    MODULE2PACKAGE[PACKAGE] = PACKAGE
    CheckpointLoader.register_scheme(prefixes=SCHEME, loader=load_from_lungdet)
    Config.fromfile = staticmethod(_knowing_names(Config.fromfile))
    Config._get_cfg_path = staticmethod(_knowing_bases(Config._get_cfg_path))
    # get_model finds it in its own module.
    mmengine.hub.get_config = hub.get_config = _knowing_models(hub.get_config)
    BaseInferencer._get_models_from_metafile = staticmethod(
        _knowing_own_models(BaseInferencer._get_models_from_metafile)
    )


def _is_own(name: object) -> bool:
    return str(name).startswith(f"{PACKAGE}::")


def _knowing_names(fromfile: Callable) -> Callable:
    def from_file(filename: Any, *args: Any, **options: Any) -> Any:
        return fromfile(find_config(filename) if _is_own(filename) else filename, *args, **options)

    return from_file


def _knowing_bases(get_cfg_path: Callable) -> Callable:
    def get_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
        # No scope: what this package registers is in mmdet's registries.
        if _is_own(cfg_path):
            return str(find_config(cfg_path)), None
        return get_cfg_path(cfg_path, filename)

    return get_path


def _knowing_models(get_config: Callable) -> Callable:
    def get(cfg_path: str, pretrained: bool = False) -> Any:
        if not _is_own(cfg_path):
            return get_config(cfg_path, pretrained)
        from mmengine.config import Config

        path = find_config(cfg_path)
        config = Config.fromfile(path)
        if pretrained:
            weights = {m["Config"]: m["Weights"] for m in own_models() if m.get("Weights")}
            if str(path) not in weights:
                raise LungDetError(f"{cfg_path}: no weights of it are in this package; train it")
            config.model_path = weights[str(path)]
        return config

    return get


def _knowing_own_models(get_models: Callable) -> Callable:
    def get(folder: str) -> Iterator[dict[str, Any]]:
        yield from get_models(folder)
        if not (index_folder() / "configs").samefile(Path(folder) / "configs"):
            yield from own_models()

    return get


def own_models() -> Iterator[dict[str, Any]]:
    """Yield the models of ``configs/metafile.yml``, their ``Config`` as an absolute path."""
    from mmengine.fileio import load

    folder = index_folder()
    for metafile in load(str(folder / "model-index.yml"))["Import"]:
        for model in load(str(folder / metafile))["Models"]:
            yield {**model, "Config": str(folder / model["Config"])}


def load_from_lungdet(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Load a model file as mmdet expects a checkpoint: with the names of its classes."""
    import torch

    from lungdet_mmdet.datasets.luna16_slabs import LUNA16SlabDataset

    path = find_weights(filename)
    if not Path(path).is_file():
        raise LungDetError(f"{filename}: not in this package, which has {SHIPPED_MODEL.name}")
    content = torch.load(path, map_location=map_location, weights_only=True)
    return {
        "state_dict": content["state_dict"],
        "meta": {"dataset_meta": LUNA16SlabDataset.METAINFO},
    }


DATA_VARIABLE = "LUNGDET_DATA"


def config_from_file(path: Path, *, import_custom_modules: bool = True) -> Config:
    """Read a config by its path or name; the folder in LUNGDET_DATA reaches it as a value.

    mmengine pastes environment variables into the config's Python text, where a quotation mark in a
    folder's name is a syntax error, a backslash changes the name, and a crafted name is code. A
    word without any of these stands in while the text is run.
    """
    from mmengine.config import Config

    path = find_config(path)
    folder = os.environ.get(DATA_VARIABLE)
    if folder is None:
        return Config.fromfile(str(path), import_custom_modules=import_custom_modules)
    stand_in = f"lungdet-data-{secrets.token_hex(16)}"
    os.environ[DATA_VARIABLE] = stand_in
    try:
        config = Config.fromfile(str(path), import_custom_modules=import_custom_modules)
    finally:
        os.environ[DATA_VARIABLE] = folder
    values = _changed(config._cfg_dict.to_dict(), lambda text: text.replace(stand_in, folder))
    # The text is what was run, and would be run again.
    text = config.text.replace(stand_in, "DATA")
    return Config(values, cfg_text=text, filename=config.filename)


def on_data(config: Config, folder: Path) -> Config:
    """Return a config on another prepared folder, also one that names its own.

    Those that a run or mim has written do, in place of the variable.
    """
    from mmengine.config import Config

    old, new = config.get("data_root"), str(folder)
    if not old or old == new:
        return config
    inside = f"{old}/{ANNOTATION_FOLDER}/"

    def moved(text: str) -> str:
        return new + text.removeprefix(old) if text == old or text.startswith(inside) else text

    values = _changed(config._cfg_dict.to_dict(), moved)
    return Config(values, cfg_text=config.text, filename=config.filename)


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _changed(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_changed(item, change) for item in value)
    return value
