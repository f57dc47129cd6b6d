# SPDX-License-Identifier: Apache-2.0
"""Ops that mmcv compiles, in pure PyTorch; and ``mmcv._ext``, where mmcv came without them.

mmdet imports ``mmcv.ops``, which loads every op from ``mmcv._ext`` on import. The finder stands
last in ``sys.meta_path``, so a compiled ``mmcv._ext`` is always found first and nothing of it is
replaced. Importing this file needs neither torch nor mmcv.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import NoReturn

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.versions import INSTALL_COMPILED, WITHOUT_COMPILED

EXTENSION = "mmcv._ext"

NOT_COMPILED = "not compiled (pure PyTorch ops of lungdet_mmdet)"
"""What mmcv reports as its compiler, for example in the environment dump of a training log."""


class _StandInModule(ModuleType):
    """Offers the pure PyTorch ops; any other op is a function that says how to get it."""

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        # Names like __file__ and __path__ are Python's own questions about a module.
        if name.startswith("_"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

        # mmcv calls each op with its own arguments: only a catch-all fits them all.
        def missing_op(*_args: object, **_options: object) -> NoReturn:
            raise LungDetError(
                f"the op {name!r} needs mmcv with compiled ops, and this mmcv has none. "
                f"Install them: {INSTALL_COMPILED}"
            )

        missing_op.__name__ = name
        return missing_op


class _StandInLoader(Loader):
    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandInModule(spec.name, doc="Pure PyTorch ops in place of mmcv's compiled ones.")

    def exec_module(self, module: ModuleType) -> None:
        # Imported only here: these need torch.
        from lungdet_mmdet.ops import deform_attn, plain_ops

        ops: tuple[Callable[..., object], ...] = (
            deform_attn.ms_deform_attn_forward,
            deform_attn.ms_deform_attn_backward,
            plain_ops.sigmoid_focal_loss_forward,
            plain_ops.sigmoid_focal_loss_backward,
            plain_ops.nms,
            plain_ops.roi_align_forward,
            plain_ops.roi_align_backward,
        )
        for op in ops:
            setattr(module, op.__name__, op)
        for query in ("get_compiler_version", "get_compiling_cuda_version"):
            setattr(module, query, lambda: NOT_COMPILED)


class StandInFinder(MetaPathFinder):
    """Finds ``mmcv._ext`` and nothing else."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Return the spec of the stand-in for ``mmcv._ext``, None for any other name."""
        if fullname != EXTENSION:
            return None
        return ModuleSpec(fullname, _StandInLoader(), origin="lungdet_mmdet")


def install_finder() -> None:
    """Make ``mmcv._ext`` importable where it is missing; a second call changes nothing."""
    if not any(isinstance(finder, StandInFinder) for finder in sys.meta_path):
        sys.meta_path.append(StandInFinder())


def check_extension() -> None:
    """Load ``mmcv._ext``, compiled or standing in.

    Raises LungDetError if mmcv's compiled extension is there and does not load, as after a change
    of torch.
    """
    # The extension is linked against torch's libraries, which have to be loaded first.
    import torch

    try:
        importlib.import_module(EXTENSION)
    except (ImportError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise LungDetError(
            f"mmcv's compiled ops do not load with torch {torch.__version__} ({reason}). Install "
            f"mmcv for this torch ({INSTALL_COMPILED}), or mmcv without ops: {WITHOUT_COMPILED}"
        ) from error


def is_stand_in() -> bool:
    """Whether ``mmcv.ops`` uses, or will use, the pure PyTorch ops instead of compiled ones.

    Imports mmcv's top level where nothing did so before.

    Raises
    ------
    ModuleNotFoundError
        Where mmcv is not installed.
    """
    if EXTENSION in sys.modules:
        return isinstance(sys.modules[EXTENSION], _StandInModule)
    spec = importlib.util.find_spec(EXTENSION)
    return spec is not None and isinstance(spec.loader, _StandInLoader)
