# SPDX-License-Identifier: Apache-2.0
"""A cohort of semi-real scans in the shape in which LUNA16 is published."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from lungdet_mmdet.annotations.tables import PATIENT_COLUMNS, read_csv_rows
from lungdet_mmdet.ct.scan_inputs import ScanInput, content_digest
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.phantom.cohort import N_SUBSETS, refuse_foreign_scans
from lungdet_mmdet.reports.ct_planes import STRIP_COLUMNS
from lungdet_mmdet.reports.page import image_uri, render
from lungdet_mmdet.runs.atomic_files import (
    check_writable,
    only_run_in,
    sweep_leftovers,
    write_bytes,
    write_csv,
    write_json,
)
from lungdet_mmdet.runs.files import (
    ANNOTATION_TABLE,
    EXCLUDED_TABLE,
    FAILURES_NAME,
    PATIENT_TABLE,
    SERIES_TABLE,
    search_files,
    semireal_uid,
)
from lungdet_mmdet.runs.scan_runs import RunSummary, failure_of, run_per_scan
from lungdet_mmdet.runs.workplace import ExecutorFactory
from lungdet_mmdet.semireal.crops import CropFile, CropMeasures, faults_of, load_crop, measure_crop
from lungdet_mmdet.semireal.job import LungSource, SemirealJob, make_semireal_scan, read_record
from lungdet_mmdet.semireal.scan import Candidate

INSERTION_VERSION, DRAWS_VERSION, VARIANTS_VERSION = 2, 1, 2
"""Raised by hand whenever the same command would write other scans, or draw other places."""
PAGE_NAME = "insertions.html"
MAX_SCANS_ON_PAGE = 40
FEWEST_PATIENTS = 10
_SPHERE_COLUMNS = ("seriesuid", "coordX", "coordY", "coordZ", "diameter_mm")


@dataclass(frozen=True)
class ScreenedCrop:
    """One nodule on offer, and why it was left out, if it was."""

    file: CropFile
    measures: CropMeasures | None
    slice_mm: float
    faults: tuple[str, ...]


@dataclass(frozen=True)
class CohortOptions:
    """What a cohort is to be.

    Parameters
    ----------
    seed : seed of all random draws.
    scans_per_lung : scans made of each lung.
    mean_nodules : nodules inserted per scan, on average.
    vary : whether scans after a lung's first are changed (mirrored, thicker slices, ...).
    share_nodules : whether one patient's nodules may go to lungs of several patients.
    """

    seed: int = 0
    scans_per_lung: int = 1
    mean_nodules: float = 6.0
    vary: bool = True
    share_nodules: bool = False

    def __post_init__(self) -> None:
        if self.scans_per_lung < 1:
            raise LungDetError(f"scans per lung is {self.scans_per_lung}: ask for at least 1")
        if not 0 < self.mean_nodules <= 100:
            raise LungDetError(
                f"nodules per scan is {self.mean_nodules}: ask for more than 0, at most 100"
            )


@dataclass
class CohortSummary:
    """What a run made.

    Parameters
    ----------
    records : records of all scans that are there, in the order of the plan.
    run : what happened to those that had to be made.
    """

    records: list[dict] = field(default_factory=list)
    run: RunSummary = field(default_factory=RunSummary)


def screen_crops(crops: Sequence[CropFile]) -> list[ScreenedCrop]:
    """Measure nodules and name what makes some of them unfit; one bad file stops nothing."""
    screened = []
    for file in crops:
        try:
            crop = load_crop(file)
        except (LungDetError, OSError) as error:
            reason = failure_of(file.name, error).reason
            screened.append(ScreenedCrop(file, None, 0.0, (f"unreadable: {reason}",)))
            continue
        measures = measure_crop(crop)
        screened.append(ScreenedCrop(file, measures, crop.spacing_zyx_mm[0], faults_of(measures)))
    return screened


def in_folds(patient_id: str, folds: Collection[int], n_folds: int) -> bool:
    """Say whether a patient belongs to one of the folds; his name alone decides."""
    # Other selections hash plain names too: a prefix keeps folds independent of them.
    digest = hashlib.sha256(f"nodule fold of {patient_id}".encode()).hexdigest()
    return int(digest, 16) % n_folds in folds


def read_excluded_patients(items: Iterable[str]) -> set[str]:
    """Return patients by name, or from tables with a column ``patient_id``.

    Raises LungDetError if a table has no such column.
    """
    patients: set[str] = set()
    for item in items:
        if item.endswith(".csv"):
            rows = read_csv_rows(item).records(
                ("patient_id",), aliases={"patient_id": ("patient",)}
            )
            patients.update(fields[0] for _, fields in rows)
        else:
            patients.add(item)
    return patients


def plan_semireal_cohort(
    lungs: Sequence[LungSource],
    pool: Sequence[Candidate],
    options: CohortOptions,
    *,
    out_dir: Path,
    mask_dir: Path,
) -> list[SemirealJob]:
    """Plan a cohort: which nodules each lung may get, and the seeds of its scans.

    A lung never gets nodules of its own patient, nor of another lung's. Unless nodules are shared,
    each patient's nodules go to the lungs of one patient only, so that a split by patients of lungs
    is one by patients of nodules too. All scans of one patient's lungs go to one subset folder.
    Raises LungDetError if there are no lungs, or too few patients with nodules for them.
    """
    if not lungs:
        raise LungDetError("no scan was given to set nodules into")
    owners = sorted({lung.patient_id for lung in lungs})
    usable = [c for c in pool if c.file.patient_id not in owners]
    donors = sorted({c.file.patient_id for c in usable})
    dealt: dict[str, set[str]] = {owner: set(donors) for owner in owners}
    if not options.share_nodules:
        order = np.random.default_rng([options.seed, len(donors)]).permutation(len(donors))
        for number, owner in enumerate(owners):
            dealt[owner] = {donors[i] for i in order[number :: len(owners)]}
    fewest = min(len(patients) for patients in dealt.values())
    if fewest < (1 if options.share_nodules else FEWEST_PATIENTS):
        raise LungDetError(
            f"nodules of {len(donors)} patients for lungs of {len(owners)}: at least "
            f"{FEWEST_PATIENTS} for each are needed; give more nodules, fewer scans, or "
            "--share-nodules"
        )
    files = {lung.path for lung in lungs}
    files.update(path for c in usable for path in (c.file.image_path, c.file.mask_path))
    contents = {path: _content(path) for path in files}
    jobs = []
    for lung in lungs:
        own_pool = tuple(c for c in usable if c.file.patient_id in dealt[lung.patient_id])
        draws, made = _digests(lung, own_pool, options, contents)
        subset = owners.index(lung.patient_id) % N_SUBSETS
        for variant in range(options.scans_per_lung):
            jobs.append(
                SemirealJob(
                    seriesuid=semireal_uid(seed=options.seed, digest=made, variant=variant),
                    lung=lung,
                    seed=(options.seed, draws, variant),
                    pool=own_pool,
                    mean_nodules=options.mean_nodules,
                    vary=options.vary and variant > 0,
                    own_count=variant == 0,
                    out_dir=out_dir,
                    scan_folder=out_dir / f"subset{subset}",
                    mask_folder=mask_dir,
                )
            )
    return jobs


def _content(path: Path) -> str | None:
    """Return a digest of what a scan's files hold, wherever they lie; None if it cannot be read."""
    try:
        files = search_files(path).files if path.is_dir() else ScanInput(path, path.name).files()
        return content_digest(files)
    except (LungDetError, OSError):
        return None  # It is said where the scan is made.


def _digests(
    lung: LungSource,
    pool: Sequence[Candidate],
    options: CohortOptions,
    contents: Mapping[Path, str | None],
) -> tuple[int, int]:
    """Return numbers of what a lung's draws follow from, and of all that its scans are made from.

    Places of files are in neither. A corrected nodule gives other scans with the same draws.
    """
    drawn = {
        "version": DRAWS_VERSION,
        "lung": [lung.seriesuid, lung.patient_id, len(lung.nodules), len(lung.findings)],
        "pool": [c.file.name for c in pool],
        "options": [options.mean_nodules, options.vary and VARIANTS_VERSION],
    }
    crops = [c.file for c in pool]
    made = {
        "insertion": INSERTION_VERSION,
        "lung": contents[lung.path],
        "nodules": [[*n.centre_xyz_mm, n.diameter_mm] for n in lung.nodules],
        "findings": [[*f.centre_xyz_mm, f.diameter_mm] for f in lung.findings],
        "pool": [[c.patient_id, contents[c.image_path], contents[c.mask_path]] for c in crops],
    }
    return _number(drawn), _number([drawn, made])


def _number(told: object) -> int:
    text = json.dumps(told, sort_keys=True).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:4], "big") or 1


def write_semireal_cohort(
    jobs: Sequence[SemirealJob],
    make_executor: ExecutorFactory,
    *,
    workers: int = 1,
    screened: Sequence[ScreenedCrop] = (),
    remarks: Sequence[str] = (),
    tell: Callable[[str], None] = print,
) -> CohortSummary:
    """Make the scans of a plan that are not there yet, then the tables and the page.

    Parameters
    ----------
    jobs : the plan; all scans go to one folder.
    make_executor, workers : where the work is done.
    screened : the nodules on offer, for ``crops_screened.csv``.
    remarks : sentences for the page.
    tell : takes a line for the user.

    Raises
    ------
    LungDetError
        If the folder holds scans that the plan does not make.
    """
    out_dir, mask_dir = jobs[0].out_dir, jobs[0].mask_folder
    refuse_foreign_scans(out_dir, {(job.scan_folder.name, job.seriesuid) for job in jobs})
    check_writable(mask_dir)
    with only_run_in(out_dir):
        for folder in {mask_dir, *(job.scan_folder for job in jobs)}:
            sweep_leftovers(folder)
        waiting = [job for job in jobs if not _is_made(job)]
        if len(waiting) < len(jobs):
            tell(f"{len(jobs) - len(waiting)} scans are there already")
        summary = CohortSummary()
        summary.run = run_per_scan(
            make_semireal_scan, waiting, make_executor, max_at_work=workers, description="inserting"
        )
        made = [job for job in jobs if _is_made(job)]
        summary.records = [read_record(job.record_path) for job in made]
        _write_tables(out_dir, summary.records)
        if screened:
            _write_screening(out_dir / "crops_screened.csv", screened)
        failures = [failure.as_dict() for failure in summary.run.failures]
        write_json(out_dir / FAILURES_NAME, failures)
        pictures = {job.seriesuid: job.record_path.with_suffix(".jpg") for job in made}
        there = {uid: path for uid, path in pictures.items() if path.is_file()}
        html = insertion_page(summary.records, there, remarks)
        write_bytes(out_dir / PAGE_NAME, html.encode("utf-8"))
    return summary


def quantiles_text(diameters_mm: np.ndarray) -> str:
    """Return the 5, 25, 50, 75 and 95 % quantiles of diameters (N,) as text."""
    levels = np.quantile(diameters_mm, (0.05, 0.25, 0.5, 0.75, 0.95))
    return " / ".join(f"{level:.1f}" for level in levels)


def insertion_page(
    records: Sequence[Mapping], pictures: Mapping[str, Path], remarks: Sequence[str]
) -> str:
    """Return a self-contained page: what was made, then the nodules of up to forty scans.

    Parameters
    ----------
    records : of all scans, in order.
    pictures : the JPEG of `nodule_strips` of each series that has one.
    remarks : sentences for the top of the page.
    """
    nodules = [n for r in records for n in r["inserted"]]
    sizes = np.array([n["diameter_mm"] for n in nodules] or [np.nan])
    places = {p: sum(n["place"] == p for n in nodules) for p in ("isolated", "vessel", "pleural")}
    shown = [r for r in records if r["seriesuid"] in pictures][:MAX_SCANS_ON_PAGE]
    facts = [
        ("scans", str(len(records))),
        ("inserted nodules", f"{len(nodules)} of {sum(r['asked'] for r in records)} asked for"),
        ("places", ", ".join(f"{name} {count}" for name, count in places.items())),
        ("diameters, mm", f"{quantiles_text(sizes)} (5, 25, 50, 75, 95 % of the nodules)"),
        ("shown below", f"{len(shown)} scans; each row: {', '.join(STRIP_COLUMNS)}; 60 mm wide"),
    ]
    return render(
        "insertions.html",
        title="Semi-real cohort",
        style="test_report.css",
        script=None,
        remarks=remarks,
        facts=facts,
        scans=[_scan(record, pictures[record["seriesuid"]]) for record in shown],
        image_uri=image_uri,
    )


def _scan(record: Mapping, picture: Path) -> dict[str, object]:
    nodules = [
        f"{number}. {n['crop']}, {n['place']}, {n['diameter_mm']:.1f} mm, scaled {n['scale']:.2f}"
        for number, n in enumerate(record["inserted"], start=1)
    ]
    changes = ", ".join(f"{name} {value}" for name, value in record["variant"].items())
    return {
        "seriesuid": record["seriesuid"],
        "source": f"{record['source_seriesuid']}, {changes}",
        "jpeg": picture.read_bytes(),
        "nodules": "; ".join(nodules),
    }


def screening_lines(screened: Sequence[ScreenedCrop]) -> list[str]:
    """Say how many nodules were left out, and why."""
    left_out = [crop for crop in screened if crop.faults]
    reasons = Counter(
        "unreadable" if fault.startswith("unreadable") else fault
        for crop in left_out
        for fault in crop.faults
    )
    lines = [
        f"nodules: {len(screened) - len(left_out)} of {len(screened)} are fit to be inserted"
        + (f", {len(left_out)} left out (a nodule may have several reasons):" if left_out else "")
    ]
    return lines + [f"  {count:4d} {reason}" for reason, count in reasons.most_common()]


def cohort_lines(summary: CohortSummary) -> list[str]:
    """Say what a cohort holds."""
    nodules = [n for r in summary.records for n in r["inserted"]]
    asked = sum(r["asked"] for r in summary.records)
    own = sum(len(r["own_nodules"]) for r in summary.records)
    ignored = sum(len(r["ignored"]) for r in summary.records)
    lungs = len({r["patient_id"] for r in summary.records})
    donors = len({n["patient_id"] for n in nodules})
    lines = [
        f"{len(summary.records)} scans of the lungs of {lungs} patients, {len(nodules)} nodules of "
        f"{donors} other patients inserted ({asked} asked for), {own} of the lungs' own annotated, "
        f"{ignored} regions to ignore"
    ]
    if nodules:
        sizes = np.array([n["diameter_mm"] for n in nodules])
        lines.append(
            f"diameters: {quantiles_text(sizes)} mm (5, 25, 50, 75, 95 % of the inserted nodules)"
        )
    return lines + [f"not made: {f.seriesuid}: {f.reason}" for f in summary.run.failures]


def _is_made(job: SemirealJob) -> bool:
    header = f"{job.seriesuid}.mhd"
    there = (job.record_path, job.scan_folder / header, job.mask_folder / header)
    return all(path.is_file() for path in there)


def _write_tables(out_dir: Path, records: Sequence[dict]) -> None:
    nodules: list[list] = []
    ignored: list[list] = []
    inserted: list[list] = []
    patients: list[list] = []
    for record in records:
        uid = record["seriesuid"]
        patients.append([uid, record["patient_id"]])
        for number, nodule in enumerate(record["inserted"], start=1):
            sphere = [*_fixed(nodule["centre_xyz_mm"]), f"{nodule['diameter_mm']:g}"]
            nodules.append([uid, *sphere])
            inserted.append(
                [uid, number, *sphere, nodule["crop"], nodule["patient_id"], nodule["place"]]
            )
        for rows, spheres in ((nodules, record["own_nodules"]), (ignored, record["ignored"])):
            rows.extend([uid, *_fixed(s[:3]), f"{s[3]:g}"] for s in spheres)
    write_csv(out_dir / ANNOTATION_TABLE, _SPHERE_COLUMNS, nodules)
    write_csv(out_dir / EXCLUDED_TABLE, _SPHERE_COLUMNS, ignored)
    columns = ("seriesuid", "label", *_SPHERE_COLUMNS[1:], "crop", "patient_id", "place")
    write_csv(out_dir / "inserted.csv", columns, inserted)
    write_csv(out_dir / PATIENT_TABLE, PATIENT_COLUMNS, patients)
    series = "".join(f"{record['seriesuid']}\n" for record in records)
    write_bytes(out_dir / SERIES_TABLE, series.encode())


def _fixed(centre: Sequence[float]) -> list[str]:
    return [f"{value:.6f}" for value in centre]


def _write_screening(path: Path, screened: Sequence[ScreenedCrop]) -> None:
    names = [name for name in CropMeasures.__dataclass_fields__ if name != "attached_zyx"]
    rows = []
    for crop in screened:
        values = asdict(crop.measures) if crop.measures else {}
        told = [
            f"{values[n]:.4g}" if isinstance(values.get(n), float) else values.get(n, "")
            for n in names
        ]
        rows.append([crop.file.name, crop.file.patient_id, "; ".join(crop.faults), *told])
    write_csv(path, ("crop", "patient_id", "left_out_because", *names), rows)
