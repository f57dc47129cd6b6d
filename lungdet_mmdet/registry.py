# SPDX-License-Identifier: Apache-2.0
"""Registries of the scope ``lungdet_mmdet``, below those of mmdet.

What this package registers is in mmdet's own registries, so that every mmdet config finds it. These
let ``get_model('lungdet_mmdet::...')`` and ``DetInferencer(..., scope='lungdet_mmdet')``, which
name the scope, find it as well.
"""

from mmdet import registry as mmdet_registry
from mmengine.registry import Registry

import lungdet_mmdet.plugin  # noqa: F401

SCOPE = "lungdet_mmdet"
REGISTRIES = {
    name: Registry(parent.name, parent=parent, scope=SCOPE)
    for name, parent in vars(mmdet_registry).items()
    if isinstance(parent, Registry)
}
