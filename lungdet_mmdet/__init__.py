# SPDX-License-Identifier: Apache-2.0
"""Lung nodule detection in CT slabs: an MMDetection plugin.

Importing this package is cheap: it checks the installed versions and makes ``mmcv.ops`` importable
where mmcv came without its compiled extension. Configs register transforms, dataset, metrics and
hooks with ``custom_imports = dict(imports=['lungdet_mmdet.plugin'])``.
"""

from lungdet_mmdet.ops import install_finder
from lungdet_mmdet.versions import check_versions

__version__ = "0.2.0"

check_versions()
install_finder()
