# SPDX-License-Identifier: Apache-2.0
"""Registers everything of this package in mmdet's registries.

Configs load it with ``custom_imports = dict(imports=['lungdet_mmdet.plugin'])``.
"""

import contextlib
import io
import warnings

import lungdet_mmdet  # noqa: F401  (makes mmcv.ops importable first)
from lungdet_mmdet.ops import check_extension

# On import mmdet prints two lines about a cloud package that nobody here uses; with worker
# processes they would swamp the progress bar.
with contextlib.redirect_stdout(io.StringIO()):
    check_extension()
    import mmdet.datasets  # noqa: F401

from lungdet_mmdet import evaluation, models
from lungdet_mmdet.datasets import luna16_slabs, transforms
from lungdet_mmdet.engine import by_name, hooks
from lungdet_mmdet.engine.hooks.checkpoints import let_mmengine_read_its_checkpoints
from lungdet_mmdet.ops import attention_choice

__all__ = ["evaluation", "hooks", "luna16_slabs", "models", "transforms"]

let_mmengine_read_its_checkpoints()
attention_choice.install()
by_name.install()
# Of metrics that this package does not use, and of mmdet's own use of torch: not for its users.
warnings.filterwarnings("ignore", "faster_coco_eval is not installed")
warnings.filterwarnings("ignore", "torch.meshgrid")
