# SPDX-License-Identifier: Apache-2.0
"""How long it takes to find that there is nothing to do: finished scans in one output folder.

    python -m benchmarks.finished_scans [--scans 1000 2000 4000 10000] [--dir DIR]

Makes folders of so many finished scans (links to the files of one that was worked on), and runs
preparation and detection over them again. Processor seconds are of one core.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lungdet_mmdet.apis.infer import DetectJob, DetectorOptions, detect_scans, fingerprint
from lungdet_mmdet.apis.model_file import file_sha256
from lungdet_mmdet.apis.results_folder import read_result
from lungdet_mmdet.ct.scan_inputs import ScanInput
from lungdet_mmdet.engine.by_name import SHIPPED_MODEL
from lungdet_mmdet.luna16.folder import read_luna16_folder
from lungdet_mmdet.phantom.scan import build_scan
from lungdet_mmdet.preparation.cohort_preparation import prepare_cohort
from lungdet_mmdet.preparation.prep_pipeline import PrepareJob
from lungdet_mmdet.preparation.prep_pipeline import fingerprint as prepared_fingerprint
from lungdet_mmdet.runs.files import phantom_uid
from lungdet_mmdet.runs.workplace import SerialExecutor

STEPS = [
    {"type": "LoadCTScan"},
    {"type": "ResampleScan", "spacing_zyx_mm": [2.5, 2.0, 2.0]},
    {"type": "OtsuLungMask"},
    {"type": "WindowHU", "level_hu": -600, "width_hu": 1500},
    {"type": "MIPSlabs", "thickness_mm": 7.5},
]


def uid_of(index: int) -> str:
    """Return the series UID of the scan of that index."""
    return phantom_uid(size="small", seed=2**41, index=index)


def write_scans(folder: Path, n_scans: int) -> list[Path]:
    """Bring a folder to so many scans: headers of one phantom that all name the same pixels."""
    header = folder / f"{uid_of(0)}.mhd"
    if not folder.is_dir():
        folder.mkdir()
        scan = build_scan(5, size="small")
        image = sitk.GetImageFromArray(np.asarray(scan.volume_hu))
        image.SetSpacing(scan.geometry.spacing_xyz_mm.tolist())
        sitk.WriteImage(image, str(header))
        table = "seriesuid,coordX,coordY,coordZ,diameter_mm\n"
        (folder / "annotations.csv").write_text(table, encoding="ascii")
    paths = [folder / f"{uid_of(index)}.mhd" for index in range(n_scans)]
    for path in paths:
        if not path.exists():
            path.write_text(header.read_text(encoding="ascii"), encoding="ascii")
    return paths


def _copies(first: Path, names: list[str], but: str) -> dict:
    """Link one result's files into the folders of others, but one; return that one's content."""
    for name in names:
        folder = first.parent / name
        folder.mkdir()
        for path in first.iterdir():
            if path.name != but:
                os.link(path, folder / path.name)
    return json.loads((first / but).read_text(encoding="utf-8"))


def _text(content: dict, **open_values: str) -> str:
    """Return a result as the package writes it, with marks in the place of some values."""
    return json.dumps(content | open_values, indent=1, ensure_ascii=False) + "\n"


def prepare(scans: Path, out_dir: Path) -> int:
    """Prepare a folder's scans; return how many were done before."""
    summary = prepare_cohort(
        read_luna16_folder(scans),
        out_dir,
        STEPS,
        SerialExecutor,
        workers=1,
        tell=lambda _: None,
    )
    return len(summary.skipped)


def look_prepared(scans: Path, out_dir: Path) -> None:
    """Make all scans look prepared as the first one is."""
    wanted = read_luna16_folder(scans).scans
    there = {folder.name for folder in (out_dir / "slabs").iterdir()}
    new = [scan for scan in wanted if scan.seriesuid not in there]
    first = uid_of(0)
    record = _copies(out_dir / "slabs" / first, [scan.seriesuid for scan in new], "scan.json")
    text = _text(record, fingerprint="@fingerprint")
    for scan in new:
        same = prepared_fingerprint(PrepareJob(scan, out_dir, STEPS))
        mine = text.replace(first, scan.seriesuid).replace('"@fingerprint"', json.dumps(same))
        (out_dir / "slabs" / scan.seriesuid / "scan.json").write_text(mine, encoding="utf-8")


def detect(paths: list[Path], out_dir: Path) -> int:
    """Look at scans with the model in the box; return how many were done before."""
    return sum(
        result.skipped
        for result in detect_scans(paths, out_dir, DetectorOptions(device="cpu")).results
    )


def look_detected(paths: list[Path], out_dir: Path) -> None:
    """Make the scans after the first look finished as it is."""
    new = [path for path in paths if not (out_dir / path.stem).is_dir()]
    content = _copies(out_dir / paths[0].stem, [path.stem for path in new], "candidates.json")
    text = _text(content, fingerprint="@fingerprint", place="@place")
    options = DetectorOptions((SHIPPED_MODEL,), file_sha256(SHIPPED_MODEL), device="cpu")
    for path in new:
        job = DetectJob(ScanInput(path, path.stem, title=path.stem), out_dir, options)
        # The pixels are the same file, the headers the same text: nothing is read again.
        before = content["fingerprint"] | {"files": job.scan.files_digest()}
        same = json.dumps(fingerprint(job, earlier=before))
        mine = text.replace('"@fingerprint"', same).replace("@place", job.scan.place_digest())
        (out_dir / path.stem / "candidates.json").write_text(mine, encoding="utf-8")


def timed(run: Callable[[], int], n_scans: int) -> str:
    """Return wall and processor seconds of a run that must find nothing to do."""
    read_result.cache_clear()  # of the run before, in this process
    wall, core = time.perf_counter(), time.process_time()
    with contextlib.redirect_stderr(io.StringIO()):
        skipped = run()
    cells = f"{time.perf_counter() - wall:.1f} | {time.process_time() - core:.1f}"
    if skipped != n_scans:
        raise SystemExit(f"{n_scans - skipped} of {n_scans} scans were done again")
    return cells


def main() -> None:
    """Print a table: seconds by number of scans."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scans", type=int, nargs="+", default=[1000, 2000, 4000, 10000])
    parser.add_argument("--dir", type=Path, help="where the folders are made (default: /tmp)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.dir) as name:
        scans, prepared, found = (Path(name) / part for part in ("scans", "prepared", "found"))
        detect(write_scans(scans, 1), found)
        prepare(scans, prepared)
        print("| finished scans | prepare: wall s | core s | infer: wall s | core s |")
        print("|---|---|---|---|---|")
        for count in sorted(args.scans):
            paths = write_scans(scans, count)
            look_prepared(scans, prepared)
            look_detected(paths, found)
            cells = [
                timed(functools.partial(prepare, scans, prepared), count),
                timed(functools.partial(detect, paths, found), count),
            ]
            print(f"| {count:,} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
