# SPDX-License-Identifier: Apache-2.0
"""Where mmengine's ``get_model`` and mmdet's tools look for ``register_all_modules``."""


def register_all_modules(init_default_scope: bool = True) -> None:
    """Register everything of mmdet and of this package.

    Parameters
    ----------
    init_default_scope : also make mmdet's scope the default one.
    """
    from mmdet.utils import register_all_modules as register_mmdet

    import lungdet_mmdet.plugin  # noqa: F401

    register_mmdet(init_default_scope=init_default_scope)
