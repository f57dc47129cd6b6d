"""Coverage-guided fuzzing of what reads files, with atheris where it is installed.

``python tests/fuzz/coverage_guided.py [RUNS]`` fuzzes every target in a process of its own; atheris
comes with ``pip install -e ".[fuzz]"``.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
TARGETS = ("header.mha", "header.nrrd", "header.nii", "slice.dcm", "table.csv")
RUNS = 20_000
# No input of this size may take so much; libFuzzer reports the one that does.
LIMITS = ("-rss_limit_mb=4096", "-timeout=20", "-max_len=2048")


def main() -> int:
    """Fuzz all targets; 0 where no input got past them."""
    if find_spec("atheris") is None:
        print('atheris is not installed (pip install -e ".[fuzz]"): coverage-guided part left out')
        return 0
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else RUNS
    failed = []
    for target in TARGETS:
        print(f"coverage-guided: {target}, {runs:,} runs", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "--target", target, folder, f"-runs={runs}"]
            done = subprocess.run(
                [*command, *LIMITS], cwd=folder, check=False, stderr=-1, text=True
            )
        if done.returncode:
            failed.append(target)
            print(done.stderr[-4000:])
    print(f"coverage-guided: {len(TARGETS) * runs:,} runs, failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


def fuzz(name: str, folder: Path, options: list[str]) -> None:
    """Fuzz one target in this process, which atheris ends."""
    import atheris

    sys.path.insert(0, str(REPOSITORY))
    with atheris.instrument_imports(include=["lungdet_mmdet.ct", "lungdet_mmdet.annotations"]):
        from lungdet_mmdet.annotations import tables
        from lungdet_mmdet.ct.dicom.header import read_dicom_header
        from lungdet_mmdet.ct.reading import read_scan
    from lungdet_mmdet.errors import LungDetError

    path = folder / name
    readers = {
        ".csv": (tables.read_nodules, tables.read_series, tables.read_patients),
        ".dcm": (read_dicom_header,),
    }.get(path.suffix, (read_scan,))

    def one(data: bytes) -> None:
        path.write_bytes(data)
        for reader in readers:
            with suppress(LungDetError):
                reader(path)

    corpus = folder / "corpus"
    corpus.mkdir()
    (corpus / "seed").write_bytes(seed_of(path.suffix, folder))
    atheris.Setup([sys.argv[0], *options, str(corpus)], one)
    atheris.Fuzz()


def seed_of(suffix: str, folder: Path) -> bytes:
    """Return a sound little file to begin with."""
    import numpy as np
    import SimpleITK as sitk

    if suffix == ".csv":
        return b"seriesuid,coordX,coordY,coordZ,diameter_mm\n1.2.3,-1.5,2,3,4.25\n"
    volume = np.arange(60, dtype=np.int16).reshape(3, 4, 5) - 1000
    path = folder / f"seed{suffix}"
    if suffix == ".dcm":
        from lungdet_mmdet.ct.geometry import ScanGeometry
        from tests.support.dicom_export import write_dicom_series

        grid = ScanGeometry((3, 4, 5), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
        path = write_dicom_series(folder / "series", volume, grid, seriesuid="2.999.1")[0]
    else:
        sitk.WriteImage(sitk.GetImageFromArray(volume), str(path))
    return path.read_bytes()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--target"]:
        fuzz(sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
    else:
        sys.exit(main())
