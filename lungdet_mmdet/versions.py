"""Which versions of the libraries this package runs on, checked when it is imported.

Reads the metadata of the installed distributions only, so the check costs milliseconds and does
not import torch. The same import names come from two families of distributions: OpenMMLab's own,
whose releases stopped in 2024, and their maintained continuation on PyPI, named ``onedl-...``.
"""

import os
import warnings
from dataclasses import dataclass
from importlib import metadata

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from lungdet_mmdet.errors import LungDetError

SKIP_VARIABLE = "LUNGDET_SKIP_VERSION_CHECK"
"""Set to 1, this environment variable turns the refusal of a version into a warning."""


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
        return f'pip install "{name}{supported}"'


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


REQUIREMENTS = (
    Requirement("torch", {"torch": ">=2.0,<3"}),
    Requirement("mmengine", {"onedl-mmengine": ">=0.10.8,<0.11", "mmengine": ">=0.10.7,<0.11"}),
    Requirement(
        "mmcv",
        {"onedl-mmcv": ">=2.3.0,<2.4", "mmcv": ">=2.1.0,<2.2", "mmcv-lite": ">=2.1.0,<2.2"},
    ),
    Requirement("mmdet", {"onedl-mmdetection": ">=3.4.0,<3.6", "mmdet": ">=3.3.0,<3.4"}),
    Requirement("numpy", {"numpy": ">=1.23,<3"}),
)


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
    findings = survey()
    problems = [finding.problem for finding in findings if finding.problem]
    if problems:
        message = "lungdet_mmdet cannot run with the libraries installed here:\n" + "\n".join(
            f"- {problem}" for problem in problems
        )
        if os.environ.get(SKIP_VARIABLE) != "1":
            raise UnsupportedVersionError(
                f"{message}\nTo try it all the same, set {SKIP_VARIABLE}=1."
            )
        warnings.warn(message, stacklevel=2)
    caution = checkpoint_caution(findings)
    if caution:
        warnings.warn(caution, stacklevel=2)


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
