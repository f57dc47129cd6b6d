# SPDX-License-Identifier: Apache-2.0
"""Which versions of the libraries this package runs on, checked when it is imported.

Reads the metadata of the installed distributions only, so the check costs milliseconds and does
not import torch. The same import names come from two families of distributions: OpenMMLab's own,
whose releases stopped in 2024, and their maintained continuation on PyPI, named ``onedl-...``.
"""

import os
import sys
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from lungdet_mmdet.errors import LungDetError

SKIP_VARIABLE = "LUNGDET_SKIP_VERSION_CHECK"
"""Set to 1, this environment variable turns the refusal of a version into a warning."""


# Supported versions by distribution. setup.py reads these three tables, as literals.
RANGES = {
    "torch": ">=2.0,<3",
    "numpy": ">=1.24,<3",
    "scipy": ">=1.10",
    "SimpleITK": ">=2.2",
    "opencv-python": ">=4.7",
    "pycocotools": ">=2.0.6",
    "matplotlib": ">=3.6",
    "jinja2": ">=3.1",
    "packaging": ">=22",
    "tqdm": ">=4.60",
    "rich": ">=13",
}
# The maintained continuation of OpenMMLab's stack, and OpenMMLab's own: the same import names, so
# an environment holds one of them. Neither is installed unless asked for, by the extra of its name.
MM = {
    "onedl-mmengine": ">=0.10.8,<0.11",
    "onedl-mmcv": ">=2.3.0,<2.4",
    "onedl-mmdetection": ">=3.4.0,<3.6",
}
OPENMMLAB = {"mmengine": ">=0.10.7,<0.11", "mmcv-lite": ">=2.1.0,<2.2", "mmdet": ">=3.3.0,<3.4"}

INSTALL_COMPILED = (
    "pip install onedl-mim && mim install onedl-mmcv --only-binary=onedl-mmcv (or, with "
    "OpenMMLab's own packages, mim install mmcv==2.1.0); there are wheels for some versions of "
    "Python, torch and CUDA only"
)
WITHOUT_COMPILED = "pip install --force-reinstall --no-deps --no-binary onedl-mmcv onedl-mmcv"
"""Installs mmcv without its ops; their places are then taken by this package's."""


class UnsupportedVersionError(LungDetError, ImportError):
    """A library is missing, too old, too new or installed twice."""


@dataclass(frozen=True)
class Requirement:
    """One import name and the distributions that can provide it.

    Attributes
    ----------
    module
        The import name.
    ranges
        Supported versions by distribution name; the first one is the one to install by default.
    """

    module: str
    ranges: dict[str, str]

    def install_command(self) -> str:
        """Return the pip command that installs the default distribution."""
        name, supported = next(iter(self.ranges.items()))
        return f'pip install "{name}{supported}"' + (
            ", or all of the stack: pip install 'lungdet-mmdet[mm]'" if name in MM else ""
        )


@dataclass(frozen=True)
class SurveyedLibrary:
    """What is installed for one requirement.

    Attributes
    ----------
    requirement
        What was looked for.
    installed
        Version by distribution name, of those that are installed.
    problem
        What is wrong and the remedy, or None.
    """

    requirement: Requirement
    installed: dict[str, str]
    problem: str | None


def _either(module: str, continuation: str, *originals: str) -> Requirement:
    # mmcv and mmcv-lite are one source, with and without compiled ops.
    own = OPENMMLAB | {"mmcv": OPENMMLAB["mmcv-lite"]}
    return Requirement(module, {name: (MM | own)[name] for name in (continuation, *originals)})


REQUIREMENTS = (
    Requirement("torch", {"torch": RANGES["torch"]}),
    _either("mmengine", "onedl-mmengine", "mmengine"),
    _either("mmcv", "onedl-mmcv", "mmcv", "mmcv-lite"),
    _either("mmdet", "onedl-mmdetection", "mmdet"),
    Requirement("numpy", {"numpy": RANGES["numpy"]}),
)
_OPENCV = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
# What results may depend on, and the distributions that may bring it.
LIBRARIES = {
    **{r.module: tuple(r.ranges) for r in REQUIREMENTS},
    **{name: (name,) for name in ("scipy", "SimpleITK")},
    "opencv": _OPENCV,
}
PIXEL_LIBRARIES = ("numpy", "scipy", "SimpleITK", "opencv")
"""Of :data:`LIBRARIES` those whose version may show in prepared pixels."""


def library_versions(names: Iterable[str] = tuple(LIBRARIES)) -> dict[str, str]:
    """Return the installed versions of libraries; "absent" where there is none.

    Parameters
    ----------
    names : keys of :data:`LIBRARIES`.
    """
    return {
        name: " and ".join(sorted({v for d in LIBRARIES[name] if (v := _installed_version(d))}))
        or "absent"
        for name in names
    }


SAFE_TORCH = "2.10"
"""First torch whose reader of plain weights has no known hole (CVE-2025-32434, CVE-2026-24747)."""


def unsafe_torch(version: str) -> str:
    """Say why a torch must not read files of strangers; "" where it may."""
    found = _parse(version)
    if found is not None and found.release >= _parse(SAFE_TORCH).release:  # type: ignore[union-attr]
        return ""
    return (
        f"torch {version} can be made to run code by a crafted model file, also where it reads "
        f"plain weights alone; use torch >= {SAFE_TORCH} for files of others. If you trust whoever "
        "made the file, load it with --trust-checkpoint"
    )


def check_versions() -> None:
    """Refuse a set of libraries that this package does not run on.

    Raises
    ------
    UnsupportedVersionError
        With every problem: the package, the version found, the range supported and the pip
        command. A warning instead where LUNGDET_SKIP_VERSION_CHECK=1.
    """
    command = _own_command()
    if command == "doctor":  # it reports on the versions line by line
        return
    findings = survey()
    problems = [finding.problem for finding in findings if finding.problem]
    if problems:
        message = "lungdet_mmdet cannot run with the libraries installed here:\n" + "\n".join(
            f"- {problem}" for problem in problems
        )
        if os.environ.get(SKIP_VARIABLE) != "1":
            message += f"\nTo try it all the same, set {SKIP_VARIABLE}=1."
            # Nobody can catch it in the command's own process, but somebody reads it.
            raise UnsupportedVersionError(message) if command is None else SystemExit(message)
        warnings.warn(message, stacklevel=2)
    caution = checkpoint_caution(findings)
    if caution:
        warnings.warn(caution, stacklevel=2)


def _own_command() -> str | None:
    """Return the subcommand where this process is ``lungdet``, None in any other."""
    words = [*sys.orig_argv[1:4], "", "", ""]
    if words[:2] == ["-m", __name__.partition(".")[0]]:
        return words[2]
    return words[1] if Path(words[0]).stem == "lungdet" else None


def survey() -> list[SurveyedLibrary]:
    """Look up every requirement in the metadata of the installed distributions."""
    findings = []
    for requirement in REQUIREMENTS:
        installed = {
            name: version for name in requirement.ranges if (version := _installed_version(name))
        }
        findings.append(SurveyedLibrary(requirement, installed, _problem(requirement, installed)))
    return findings


def checkpoint_caution(findings: list[SurveyedLibrary]) -> str | None:
    """Say what loading a checkpoint means with OpenMMLab's mmengine and a current torch.

    From 2.6 on ``torch.load`` accepts plain weights only by default. A checkpoint of mmengine
    holds its logs too, and OpenMMLab's mmengine (0.10.7, its last) does not allow for that; the
    plugin then reads checkpoints without that guard.
    """
    installed = {name: version for found in findings for name, version in found.installed.items()}
    torch_version, mmengine_version = installed.get("torch"), installed.get("mmengine")
    if torch_version is None or mmengine_version is None:
        return None
    if _parse(torch_version) is None or not SpecifierSet(">=2.6").contains(
        torch_version, prereleases=True
    ):
        return None
    return (
        f"mmengine {mmengine_version} cannot load its own checkpoints with torch {torch_version} "
        "by itself; this package loads them unguarded, so resume and test only your own. "
        "To be rid of this, use the maintained continuation (pip uninstall mmengine mmcv mmdet; "
        "pip install onedl-mmengine onedl-mmcv onedl-mmdetection) or a torch below 2.6 "
        '(pip install "torch<2.6").'
    )


def _installed_version(name: str) -> str | None:
    try:
        # A half-removed distribution has no version in its metadata: not the same as missing.
        return metadata.version(name) or "unknown"
    except metadata.PackageNotFoundError:
        return None
    except KeyError:
        return "unknown"


def _parse(version: str) -> Version | None:
    try:
        return Version(version)
    except InvalidVersion:
        return None


def _problem(requirement: Requirement, installed: dict[str, str]) -> str | None:
    default, supported = next(iter(requirement.ranges.items()))
    if not installed:
        return (
            f"{requirement.module} is not installed; supported: {default} {supported}. "
            f"Remedy: {requirement.install_command()}"
        )
    if len(installed) > 1:
        # Both write into the same folder, so whichever came last has overwritten half the other.
        both = " and ".join(f"{name} {version}" for name, version in installed.items())
        return (
            f"{both} are both installed and overwrite each other's files ({requirement.module}). "
            f"Remedy: pip uninstall -y {' '.join(installed)} && {requirement.install_command()}"
        )
    ((name, version),) = installed.items()
    supported = requirement.ranges[name]
    if _parse(version) is None:
        return (
            f"{name} has no readable version ({version!r}): its installation is damaged. "
            f'Remedy: pip install --force-reinstall "{name}{supported}"'
        )
    # Builds such as 2.6.0a0+nv24.10 are what vendors ship as a release.
    if not SpecifierSet(supported).contains(version, prereleases=True):
        return (
            f"{name} {version} is not supported; supported: {supported}. "
            f'Remedy: pip install "{name}{supported}"'
        )
    return None
