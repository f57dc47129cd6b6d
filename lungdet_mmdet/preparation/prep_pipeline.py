# SPDX-License-Identifier: Apache-2.0
"""The prep pipeline of a config: the one owner of the order of preprocessing steps.

And whether a scan that it prepared is still right: decided by content, not by its being there.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lungdet_mmdet
from lungdet_mmdet.ct.metaimage_header import read_metaimage_header
from lungdet_mmdet.ct.reading import METAIMAGE_SUFFIXES, scan_suffix
from lungdet_mmdet.ct.slabs import SLAB_THICKNESS_MM
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.atomic_files import read_json_or
from lungdet_mmdet.runs.files import RECORD_NAME, SLAB_FOLDER

if TYPE_CHECKING:
    from lungdet_mmdet.luna16.folder import ScanOnDisk

PIXELS_VERSION = 4
"""Which prepared pixels this code makes of the same scan, config and libraries.

Raise it by hand with every change of code that changes slabs, masks or the coverage of nodules:
cohorts prepared before are then prepared again, and models trained on them are flagged.
``tests/preparation/test_golden_pixels.py`` fails when pixels change and this number does not.
"""

CODE = f"{lungdet_mmdet.__version__}, pixels {PIXELS_VERSION}"
"""The version of the package and of its pixels: what work done in several places must agree in."""


def code_marks(steps: list[dict]) -> dict[str, str]:
    """Return what of a scan's fingerprint is the same for all scans: pipeline and pixels."""
    return {"pipeline": digest(steps), "pixels": str(PIXELS_VERSION)}


def is_of(record: dict | None, marks: dict[str, str]) -> bool:
    """Whether a record was made by the pipeline and code of these marks."""
    before = (record or {}).get("fingerprint") or {}
    return all(before.get(key) == value for key, value in marks.items())


def digest(value: object) -> str:
    """Return a short digest of plain values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


# The steps of this package are at hand without the whole plugin, which would import mmdet's
# data sets and models into every worker: seconds and 200 MB each.
_OWN_STEPS = "lungdet_mmdet.datasets.transforms"
_WHOLE_PLUGIN = "lungdet_mmdet.plugin"


def prep_steps(config: Any, *, source: str) -> list[dict]:
    """Return the ``prep_pipeline`` of a config as a list of plain dicts.

    Raises
    ------
    LungDetError
        If the config has none, naming `source`.
    """
    steps = config.get("prep_pipeline")
    if not steps:
        raise LungDetError(
            f"{source}: the config has no prep_pipeline; inherit one with "
            "_base_ = ['./_base_/prep_luna16.py', ...]"
        )
    named = [{**step, "type": _class_name(step["type"])[1]} for step in steps]
    return json.loads(json.dumps(named, default=dict))


def _class_name(step_type: Any) -> tuple[str, str]:
    """Return module ("" if unknown) and name of a step's class.

    Pure-Python configs have the class itself, or what is left of it in a config made a plain dict.
    """
    if isinstance(step_type, type):
        return step_type.__module__, step_type.__name__
    module, _, name = str(step_type).rpartition(".")
    return module, name


def prep_imports(config: Any) -> tuple[str, ...]:
    """Return the modules of a config's ``custom_imports`` that may register steps of its own."""
    imports = (config.get("custom_imports") or {}).get("imports") or []
    names = [imports] if isinstance(imports, str) else list(imports)
    names += [_class_name(step["type"])[0] for step in config.get("prep_pipeline") or ()]
    own = (_WHOLE_PLUGIN, _OWN_STEPS)
    return tuple(dict.fromkeys(n for n in names if n and not n.startswith(own)))


def override_mask_method(steps: list[dict], method: str) -> list[dict]:
    """Return the steps with another ``method`` of OtsuLungMask ("otsu" or "luna16").

    Raises
    ------
    LungDetError
        If no step is OtsuLungMask.
    """
    if not any(step["type"] == "OtsuLungMask" for step in steps):
        raise LungDetError(
            f"the mask method '{method}' was asked for, but the prep_pipeline has no OtsuLungMask; "
            "leave the option out or use another config"
        )
    return [
        {**step, "method": method} if step["type"] == "OtsuLungMask" else step for step in steps
    ]


def build_prep_pipeline(steps: list[dict], *, imports: Sequence[str] = ()) -> Any:
    """Build the steps from mmdet's TRANSFORMS registry into one callable on a results dict.

    Parameters
    ----------
    steps : plain dicts with a ``type``.
    imports : modules to import first, because they register further steps.

    Raises
    ------
    LungDetError
        If a module cannot be imported, or a step is unknown or refuses its parameters.
    """
    return _build_cached(json.dumps(steps, sort_keys=True), tuple(imports))


@lru_cache(maxsize=4)
def _build_cached(steps_json: str, imports: tuple[str, ...]) -> Any:
    from mmcv.transforms import Compose

    for name in (_OWN_STEPS, *imports):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise LungDetError(
                f"module {name} of the config's custom_imports cannot be imported ({error}); "
                "put its folder on PYTHONPATH"
            ) from error
    return Compose([_build_step(step) for step in json.loads(steps_json)])


def _build_step(step: dict) -> Any:
    from mmdet.registry import TRANSFORMS

    parameters = {key: value for key, value in step.items() if key != "type"}
    # The registry's own build() imports all of mmdet's data sets first.
    step_class = TRANSFORMS.module_dict.get(step["type"])
    try:
        return TRANSFORMS.build(step) if step_class is None else step_class(**parameters)
    except (TypeError, KeyError) as error:
        raise LungDetError(
            f"prep_pipeline: step {step['type']} with {parameters} cannot be built ({error}); "
            "correct the config"
        ) from error


def run_steps(
    pipeline: Any,
    results: dict,
    *,
    after_step: Callable[[str, dict], None] | None = None,
) -> tuple[dict, dict[str, float]]:
    """Run a built pipeline step by step.

    Parameters
    ----------
    pipeline : of :func:`build_prep_pipeline`.
    results : with ``scan_path``, or ``scan``.
    after_step : called with a step's name and the results; its time is not counted.

    Returns
    -------
    results : of the last step.
    seconds : by the name of the step, in order.
    """
    seconds: dict[str, float] = {}
    for step in pipeline.transforms:
        name = type(step).__name__
        began = time.perf_counter()
        results = step(results)
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - began
        if after_step is not None:
            after_step(name, results)
    return results, seconds


def check_code(sent_by: str) -> None:
    """Refuse to work for a process of another version: the pixels would be others.

    Raises
    ------
    LungDetError
        If `sent_by`, the `CODE` of whoever sent the work, is not this process's own.
    """
    if sent_by != CODE:
        raise LungDetError(
            f"this worker ({socket.gethostname()}) has lungdet_mmdet {CODE}, the run has "
            f"{sent_by}; install the same version on all machines"
        )


def with_stride(steps: list[dict], stride_mm: float | None) -> list[dict]:
    """Return the prep pipeline with another distance of neighbouring slabs.

    Raises
    ------
    LungDetError
        If the stride is not positive or exceeds the slab thickness, which would leave gaps, or the
        model looks at single slices or at no slabs of this package's making.
    """
    if stride_mm is None:
        return steps
    slabs = [s for s in steps if s["type"] == "MIPSlabs"]
    thickness = min((s.get("thickness_mm", SLAB_THICKNESS_MM) for s in slabs), default=0.0)
    if not thickness > 0:
        raise LungDetError(
            f"slab stride is {stride_mm} mm, but this model looks at every slice or has no step "
            "MIPSlabs: there is nothing between its slabs to look at; leave out --stride-mm"
        )
    if not 0.0 < stride_mm <= thickness:
        raise LungDetError(
            f"slab stride is {stride_mm} mm: it must be above 0 and at most the slab thickness, "
            f"{thickness} mm, or nodules between the slabs are never seen"
        )
    return [{**s, "stride_mm": stride_mm} if s["type"] == "MIPSlabs" else s for s in steps]


def pipeline_difference(
    first: Sequence[Mapping[str, Any]],
    second: Sequence[Mapping[str, Any]],
    *,
    names: tuple[str, str],
) -> str:
    """Say in one sentence how two prep pipelines differ; "" where they make the same slabs.

    The mask method is left out of the comparison: preparation can choose it per run.
    """
    here, there = (
        [
            json.dumps(
                {k: v for k, v in step.items() if (step["type"], k) != ("OtsuLungMask", "method")},
                sort_keys=True,
            )
            for step in steps
        ]
        for steps in (first, second)
    )
    if here == there:
        return ""
    if sorted(here) == sorted(there):
        return "The steps are the same, their order differs"
    only = [
        ", ".join(step for step in own if step not in other) or "nothing"
        for own, other in ((here, there), (there, here))
    ]
    return f"Only in {names[0]} prep_pipeline: {only[0]}; only in {names[1]}: {only[1]}"


def pixels_difference(version: object) -> str:
    """Say so where a model learnt from pixels of another version; "" where not, or not known."""
    if version is None or str(version) == str(PIXELS_VERSION):
        return ""
    return (
        f"the model was trained on pixels of version {version}, this package makes version "
        f"{PIXELS_VERSION}: scores may differ"
    )


NOT_PREPARED = "not prepared yet"
_EXPLAINED = {
    "source": "the scan's file changed",
    "annotations": "its annotations changed",
    "nodule_mask": "its nodule mask changed",
}


@dataclass(frozen=True)
class PrepareJob:
    """One scan to prepare, as it travels to a worker.

    Parameters
    ----------
    scan : the file and its annotations.
    out_dir : the prepared dataset's folder.
    steps : the prep pipeline, plain dicts.
    imports : modules that register steps beyond this package's own.
    code : preparation code of whoever sends the job; a worker of another version refuses it.
    """

    scan: ScanOnDisk
    out_dir: Path
    steps: list[dict]
    imports: tuple[str, ...] = ()
    code: str = CODE

    @property
    def seriesuid(self) -> str:
        """Series UID of the scan."""
        return self.scan.seriesuid

    @property
    def folder(self) -> Path:
        """Folder of the scan's slabs and record."""
        return self.out_dir / SLAB_FOLDER / self.scan.seriesuid


def _file_state(path: Path | None) -> list | None:
    if path is None:
        return None
    try:
        stat = path.stat()
    except OSError as error:
        raise LungDetError(f"{path}: cannot be read ({error.strerror})") from error
    return [path.name, stat.st_size, stat.st_mtime_ns]


def fingerprint(job: PrepareJob) -> dict[str, str]:
    """Return what the result depends on: source files, annotations, pipeline, pixels version.

    Two equal fingerprints mean that the prepared scan on disk is still right. Source files count
    by name, size and time of change, so that 120 GB need not be read to find nothing to do.

    Raises
    ------
    LungDetError
        If a file is missing or its header unusable.
    """
    scan = job.scan
    lungs = mask_files(scan.lung_mask_path) if scan.lung_mask_path else [None]
    source = [_file_state(path) for path in (*_source_files(scan), *lungs)]
    annotations = [[*n.centre_xyz_mm, n.diameter_mm] for n in scan.nodules]
    annotations += [[*f.centre_xyz_mm, f.diameter_mm] for f in scan.findings]
    found = {
        "source": digest(source),
        "annotations": digest([len(scan.nodules), annotations, scan.subset]),
        **code_marks(job.steps),
    }
    if (mask := scan.nodule_mask_path) is not None:
        states = [_file_state(path) for path in mask_files(mask)]
        ratings = {str(label): dict(scan.ratings[label]) for label in scan.ratings}
        found["nodule_mask"] = digest([states, ratings])
    return found


def _source_files(scan: ScanOnDisk) -> list[Path]:
    if scan_suffix(scan.path) in METAIMAGE_SUFFIXES:
        return [scan.path, read_metaimage_header(scan.path).data_path]
    return scan.source.files()


def mask_files(mask: Path) -> list[Path]:
    """Return the files of a mask: it, and the pixels beside a .mhd header."""
    if mask.suffix.lower() != ".mhd":
        return [mask]
    try:
        data = read_metaimage_header(mask).data_path
    except LungDetError:
        # What is wrong with it is said when it is read; the scan is prepared without it.
        return [mask]
    return [mask, data]


def read_record(folder: Path) -> dict | None:
    """Return a prepared scan's record, or None where there is no whole one."""
    record = read_json_or(folder / RECORD_NAME, {})
    return record if "slabs" in record else None


def why_not_current(job: PrepareJob, record: dict | None) -> list[str]:
    """Return why the scan has to be prepared (again), in words; empty where it is still right.

    Parameters
    ----------
    job : the scan.
    record : what :func:`read_record` finds in its folder.

    Raises
    ------
    LungDetError
        If the scan's files cannot be read.
    """
    now = fingerprint(job)
    if record is None:
        if (job.folder / RECORD_NAME).exists():
            return ["its record is damaged"]
        return [NOT_PREPARED]
    before = record.get("fingerprint") or {}
    reasons = [_EXPLAINED[key] for key in _EXPLAINED if before.get(key) != now.get(key)]
    if before.get("pipeline") != now["pipeline"]:
        changes = "; ".join(pipeline_changes(record.get("pipeline") or [], job.steps))
        reasons.append(f"the prep pipeline changed ({changes})")
    if before.get("pixels") != now["pixels"]:
        made_by = before.get("pixels") or "unknown"
        reasons.append(f"the package makes other pixels now (version {made_by} -> {now['pixels']})")
    if not reasons and not _images_are_there(job.folder, record):
        reasons.append("slab images are missing")
    return reasons


def _images_are_there(folder: Path, record: dict) -> bool:
    sizes = {entry.name: entry.stat().st_size for entry in os.scandir(folder) if entry.is_file()}
    names = (slab.get(key) for slab in record["slabs"] for key in ("file_name", "depth_file_name"))
    return all(sizes.get(name.rpartition("/")[2], 0) > 0 for name in names if name)


def pipeline_changes(before: list[dict], now: list[dict]) -> list[str]:
    """Say in words what differs between two pipelines, e.g. ``WindowHU.level_hu: -600 -> -500``."""
    names_before, names_now = ([step.get("type") for step in steps] for steps in (before, now))
    if names_before != names_now:
        added = [f"{name} added" for name in names_now if name not in names_before]
        dropped = [f"{name} dropped" for name in names_before if name not in names_now]
        return [*added, *dropped] or ["another order of steps"]
    changes = []
    for old, new in zip(before, now, strict=True):
        for key in sorted({*old, *new}):
            if old.get(key, _UNSET) != new.get(key, _UNSET):
                changes.append(f"{new['type']}.{key}: {_shown(old, key)} -> {_shown(new, key)}")
    return changes


_UNSET: Any = object()


def _shown(step: dict, key: str) -> str:
    return json.dumps(step[key]) if key in step else "default"
