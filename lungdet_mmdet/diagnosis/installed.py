"""Python, the libraries' versions, whether they can be imported, and the optional ones."""

from __future__ import annotations

import importlib
import os
import platform
from collections.abc import Iterator
from importlib import metadata

from lungdet_mmdet import versions
from lungdet_mmdet.diagnosis.findings import FAIL, NOTE, OK, WARN, Line

SCIENCE_MODULES = {
    "SimpleITK": "pip install SimpleITK",
    "cv2": "pip install opencv-python-headless (it needs no libGL), or install your system's libGL",
    "skimage": "pip install scikit-image",
    "scipy": "pip install scipy",
    "pycocotools": "pip install pycocotools",
}
MM_MODULES = ("torch", "mmengine", "mmcv.ops", "mmdet.models")
EXTRAS = {
    "distributed": ("preparation on a Dask cluster", 'pip install "dask[distributed]"'),
    "pydicom": ("DICOM in", "pip install pydicom"),
    "highdicom": ("DICOM structured reports out", "pip install highdicom"),
    "tensorboard": ("training curves in TensorBoard", "pip install tensorboard"),
    "pooch": ("downloading LUNA16", "pip install pooch"),
}


def describe_platform() -> Line:
    """Return which Python, system and number of cores this is."""
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    text = f"Python {platform.python_version()}, {system}, {os.cpu_count()} CPU cores"
    return Line(OK, "python", text)


def check_versions() -> Iterator[Line]:
    """Compare the installed distributions with what the package runs on."""
    findings = versions.survey()
    for finding in findings:
        found = ", ".join(f"{name} {version}" for name, version in finding.installed.items())
        if finding.problem:
            problem, _, remedy = finding.problem.partition(" Remedy: ")
            yield Line(FAIL, finding.requirement.module, problem, remedy)
        else:
            yield Line(OK, finding.requirement.module, found)
    caution = versions.checkpoint_caution(findings)
    if caution:
        yield Line(WARN, "checkpoints", caution)


def check_imports() -> Iterator[Line]:
    """Import every library that is needed."""
    stack_remedy = "read the error; reinstall the versions named in constraints.txt"
    modules = {**SCIENCE_MODULES, **dict.fromkeys(MM_MODULES, stack_remedy)}
    for name, remedy in modules.items():
        try:
            module = importlib.import_module(name)
        except Exception as error:  # a broken binary may raise anything, and the rest goes on
            yield Line(FAIL, name, f"cannot be imported: {error}", remedy)
        else:
            yield Line(OK, name, f"imports {getattr(module, '__version__', '')}".rstrip())


def check_extras() -> Iterator[Line]:
    """Look for the optional libraries."""
    for name, (purpose, remedy) in EXTRAS.items():
        try:
            yield Line(OK, name, f"{metadata.version(name)}: {purpose}")
        except metadata.PackageNotFoundError:
            yield Line(NOTE, name, f"not installed (optional: {purpose})", remedy)
