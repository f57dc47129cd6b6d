# SPDX-License-Identifier: Apache-2.0
"""FROC by LUNA16's rules: marks matched to nodules in 3-D, the curve and its mean."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lungdet_mmdet.annotations.tables import Finding, Nodule
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.scoring.intervals import (
    DEFAULT_RESAMPLES,
    Interval,
    finite_or_none,
    last_of_ties,
    limits_or_none,
    limits_to_show,
    percentile_interval,
    resample_weights,
    value_with_interval,
)
from lungdet_mmdet.scoring.run_files import Marks
from lungdet_mmdet.scoring.slab_records import SlabSet

MAX_MARKS_PER_SCAN = 100


@dataclass(frozen=True)
class FrocMatches:
    """The marks that count, best score first, and everything that was left out, counted.

    ``scores``, ``is_nodule`` and ``series_rows`` run over hit nodules (by their best mark) and
    false positives; ``missed_per_series`` and ``looked_at`` over the scans (None: all were).
    """

    series: tuple[str, ...]
    scores: NDArray[np.float64]
    is_nodule: NDArray[np.bool_]
    series_rows: NDArray[np.intp]
    missed_per_series: NDArray[np.int64]
    ignored: int
    duplicates: int
    over_limit: int
    looked_at: NDArray[np.bool_] | None = None

    @property
    def scans_looked_at(self) -> NDArray[np.float64]:
        """1.0 for each scan that counts in false positives per scan, 0.0 for the others."""
        if self.looked_at is None:
            return np.ones(len(self.series))
        return self.looked_at.astype(np.float64)

    @property
    def true_positives(self) -> int:
        """Nodules hit by at least one mark."""
        return int(np.count_nonzero(self.is_nodule))

    @property
    def false_positives(self) -> int:
        """Marks on neither a nodule nor an excluded finding."""
        return len(self.scores) - self.true_positives

    @property
    def false_negatives(self) -> int:
        """Nodules without a mark."""
        return int(self.missed_per_series.sum())

    @property
    def n_nodules(self) -> int:
        """Nodules to be found."""
        return self.true_positives + self.false_negatives

    def counts(self) -> dict[str, int]:
        """Return what the figures rest on, by the names that json and metrics give it."""
        return {
            "n_scans": int(self.scans_looked_at.sum()),
            "n_nodules": self.n_nodules,
            "true_positives": self.true_positives,
            "false_positives": self.false_positives,
            "ignored": self.ignored,
            "duplicates": self.duplicates,
            "false_negatives": self.false_negatives,
            "over_limit": self.over_limit,
        }


def match_marks(
    marks: Marks,
    nodules: Sequence[Nodule],
    findings: Sequence[Finding],
    series: Sequence[str],
    *,
    max_marks_per_scan: int | None = MAX_MARKS_PER_SCAN,
    not_looked_at: Collection[str] = (),
) -> FrocMatches:
    """Decide for every mark whether it is a hit, a duplicate, ignored or a false positive.

    Marks, nodules and findings of other series are left out. Of series ``not_looked_at`` the
    nodules are missed, but they are no scans without false positives. Raises LungDetError when
    there is no series, or one is named twice.
    """
    if not series or len(set(series)) != len(series):
        raise LungDetError(
            f"{len(series)} series, {len(set(series))} of them distinct; give each series once"
        )
    marks_of = _rows_by_series(marks.seriesuids)
    nodules_of = _rows_by_series([item.seriesuid for item in nodules])
    findings_of = _rows_by_series([item.seriesuid for item in findings])
    nodule_spheres = _spheres([(item.centre_xyz_mm, item.diameter_mm) for item in nodules])
    finding_spheres = _spheres([(item.centre_xyz_mm, item.extent_mm) for item in findings])
    nothing = np.zeros(0, dtype=np.intp)
    scans = []
    for uid in series:
        rows = marks_of.get(uid, nothing)
        scans.append(
            _match_scan(
                marks.centres_xyz_mm[rows],
                marks.scores[rows],
                nodule_spheres[nodules_of.get(uid, nothing)],
                finding_spheres[findings_of.get(uid, nothing)],
                max_marks_per_scan,
            )
        )
    matches = _joined(tuple(series), scans)
    if not not_looked_at:
        return matches
    return replace(matches, looked_at=np.array([uid not in not_looked_at for uid in series]))


@dataclass(frozen=True)
class _ScanMatches:
    """One scan: best score of each nodule hit, scores of false positives, and the counts."""

    hits: NDArray[np.float64]
    wrong: NDArray[np.float64]
    missed: int
    ignored: int
    duplicates: int
    over_limit: int


def _match_scan(
    points_xyz_mm: NDArray[np.float64],
    scores: NDArray[np.float64],
    nodule_spheres: NDArray[np.float64],
    finding_spheres: NDArray[np.float64],
    limit: int | None,
) -> _ScanMatches:
    """Apply the rules to the marks (M, 3) and (M,) of one scan; spheres are (N, 4)."""
    kept = _within_limit(scores, limit)
    points, values = points_xyz_mm[kept], scores[kept]
    hits = _inside(points, nodule_spheres)
    on_nodule = hits.any(axis=1)
    on_finding = _inside(points, finding_spheres).any(axis=1)
    hits_per_nodule = hits.sum(axis=0)
    found = hits_per_nodule > 0
    best = np.where(hits, values[:, None], -np.inf).max(axis=0, initial=-np.inf)
    return _ScanMatches(
        hits=best[found],
        wrong=values[~on_nodule & ~on_finding],
        missed=int(np.count_nonzero(~found)),
        ignored=int(np.count_nonzero(on_finding & ~on_nodule)),
        duplicates=int((hits_per_nodule[found] - 1).sum()),
        over_limit=int(np.count_nonzero(~kept)),
    )


def _joined(series: tuple[str, ...], scans: Sequence[_ScanMatches]) -> FrocMatches:
    """Put scans together, best score first (ties keep the order of scans, hits before errors)."""
    scores = np.concatenate([part for scan in scans for part in (scan.hits, scan.wrong)])
    is_nodule = np.concatenate(
        [np.arange(len(scan.hits) + len(scan.wrong)) < len(scan.hits) for scan in scans]
    )
    rows = np.repeat(np.arange(len(scans)), [len(scan.hits) + len(scan.wrong) for scan in scans])
    order = np.argsort(-scores, kind="stable")
    return FrocMatches(
        series=series,
        scores=scores[order],
        is_nodule=is_nodule[order],
        series_rows=rows[order].astype(np.intp),
        missed_per_series=np.array([scan.missed for scan in scans], dtype=np.int64),
        ignored=sum(scan.ignored for scan in scans),
        duplicates=sum(scan.duplicates for scan in scans),
        over_limit=sum(scan.over_limit for scan in scans),
    )


def match_marks_of_split(
    slab_set: SlabSet, marks: Marks, *, max_marks_per_scan: int = MAX_MARKS_PER_SCAN
) -> FrocMatches:
    """Match candidates to the nodules of a split by LUNA16's rules.

    Nodules that do not count are neither missed nor false positives when found, so they are
    treated as excluded findings.
    """
    discarded = [
        Finding(item.seriesuid, item.centre_xyz_mm, item.diameter_mm) for item in slab_set.discarded
    ]
    return match_marks(
        marks,
        slab_set.nodules,
        [*slab_set.excluded, *discarded],
        slab_set.series,
        max_marks_per_scan=max_marks_per_scan,
        not_looked_at=slab_set.not_looked_at,
    )


def _rows_by_series(seriesuids: Sequence[str]) -> dict[str, NDArray[np.intp]]:
    rows: dict[str, list[int]] = {}
    for row, uid in enumerate(seriesuids):
        rows.setdefault(uid, []).append(row)
    return {uid: np.array(members, dtype=np.intp) for uid, members in rows.items()}


def _spheres(
    items: Sequence[tuple[tuple[float, float, float], float]],
) -> NDArray[np.float64]:
    """Return (N, 4): x, y, z of the centre and the squared radius."""
    rows = [(*centre, (diameter / 2.0) ** 2) for centre, diameter in items]
    return np.array(rows, dtype=np.float64).reshape(-1, 4)


def _inside(points: NDArray[np.float64], spheres: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell for each point (M, 3) and sphere (N, 4) whether the point is inside: (M, N)."""
    offset = points[:, None, :] - spheres[None, :, :3]
    squared = offset[..., 0] ** 2 + offset[..., 1] ** 2 + offset[..., 2] ** 2
    return squared < spheres[None, :, 3]


def _within_limit(scores: NDArray[np.float64], limit: int | None) -> NDArray[np.bool_]:
    if limit is None or len(scores) <= limit:
        return np.ones(len(scores), dtype=bool)
    return scores > np.sort(scores)[::-1][limit]


FP_RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class FrocCurve:
    """False positives per scan, sensitivity and score threshold (K,) along the curve."""

    fp_per_scan: NDArray[np.float64]
    sensitivity: NDArray[np.float64]
    thresholds: NDArray[np.float64]

    def sensitivity_at(self, fp_rates: Sequence[float] = FP_RATES) -> NDArray[np.float64]:
        """Return the sensitivity at each rate of false positives per scan."""
        return np.interp(fp_rates, self.fp_per_scan, self.sensitivity)


@dataclass(frozen=True)
class FrocResult:
    """Sensitivities at the seven rates, their mean (CPM), intervals and counts."""

    sensitivities: tuple[float, ...]
    cpm: float
    matches: FrocMatches
    curve: FrocCurve
    sensitivity_intervals: tuple[Interval, ...] = ()
    cpm_interval: Interval | None = None

    @property
    def cpm_text(self) -> str:
        """CPM with its 95 % interval where there is one, such as "0.912 (0.841 - 0.967)"."""
        return value_with_interval(self.cpm, self.cpm_interval)

    def as_json(self) -> dict[str, object]:
        """Return the figures under the names of the command's json; null where undefined."""
        return {
            "fp_rates": list(FP_RATES),
            "sensitivities": [finite_or_none(value) for value in self.sensitivities],
            "cpm": finite_or_none(self.cpm),
            "cpm_ci95": limits_or_none(self.cpm_interval),
            "cpm_ci95_is_exact": self.cpm_interval is not None and self.cpm_interval.is_exact,
            "sensitivities_ci95": [limits_or_none(item) for item in self.sensitivity_intervals]
            or None,
            **self.matches.counts(),
        }


def froc_curve(matches: FrocMatches, weights: NDArray[np.float64] | None = None) -> FrocCurve:
    """Return the curve of the scans, each counted as often as ``weights`` (S,) says.

    Sensitivities are NaN without nodules.
    """
    if weights is None:
        weights = np.ones(len(matches.series))
    per_mark = weights[matches.series_rows]
    last = last_of_ties(matches.scores)
    hits = np.cumsum(np.where(matches.is_nodule, per_mark, 0.0))[last]
    wrong = np.cumsum(np.where(matches.is_nodule, 0.0, per_mark))[last]
    n_hits, n_wrong = (float(run[-1]) if len(run) else 0.0 for run in (hits, wrong))
    n_nodules = n_hits + float(weights @ matches.missed_per_series)
    # Shares first, then counts: the official script does it so, and where a rate falls exactly on a
    # point of the curve, rounding decides which of two neighbouring values is read off.
    n_scans = weights @ matches.scans_looked_at
    fp_per_scan = (wrong / n_wrong) * n_wrong / n_scans if n_wrong else wrong
    sensitivity = (hits / n_hits) * n_hits / n_nodules if n_hits else hits
    start = np.zeros(1)
    if not n_nodules:
        sensitivity, start = np.full(len(hits), np.nan), np.full(1, np.nan)
    return FrocCurve(
        np.concatenate([np.zeros(1), fp_per_scan]),
        np.concatenate([start, sensitivity]),
        np.concatenate([np.full(1, np.inf), matches.scores[last]]),
    )


def evaluate_froc(
    matches: FrocMatches, *, n_resamples: int = DEFAULT_RESAMPLES, seed: int = 0
) -> FrocResult:
    """Return sensitivities, CPM and their 95 % intervals from resampling scans.

    Where all resamples agree, the limits are exact binomial ones.

    ``n_resamples`` 0 leaves the intervals out.
    """
    curve = froc_curve(matches)
    sensitivities = curve.sensitivity_at()
    intervals: tuple[Interval, ...] = ()
    cpm_interval = None
    if n_resamples:
        rng = np.random.default_rng(seed)
        weights = resample_weights(len(matches.series), n_resamples, rng=rng)
        resampled = np.array([froc_curve(matches, column).sensitivity_at() for column in weights.T])
        intervals = tuple(
            _interval(value, column, matches)
            for value, column in zip(sensitivities.tolist(), resampled.T, strict=True)
        )
        cpm_interval = _interval(float(sensitivities.mean()), resampled.mean(axis=1), matches)
    return FrocResult(
        sensitivities=tuple(sensitivities.tolist()),
        cpm=float(sensitivities.mean()),
        matches=matches,
        curve=curve,
        sensitivity_intervals=intervals,
        cpm_interval=cpm_interval,
    )


def _interval(value: float, resampled: NDArray[np.float64], matches: FrocMatches) -> Interval:
    interval = percentile_interval(resampled)
    return limits_to_show(value, interval, matches.n_nodules) or interval


def cpm_difference(
    ours: FrocMatches,
    theirs: FrocMatches,
    *,
    n_resamples: int = DEFAULT_RESAMPLES,
    seed: int = 0,
) -> tuple[float, Interval]:
    """Return how much higher our CPM is on the same scans, with the 95 % interval of that.

    Every resample draws the same scans for both, so that what makes a scan hard is in neither.
    """
    both = (ours, theirs)
    weights = resample_weights(len(ours.series), n_resamples, rng=np.random.default_rng(seed))
    drawn = np.array(
        [[froc_curve(m, column).sensitivity_at().mean() for m in both] for column in weights.T]
    )
    cpm, other = (float(froc_curve(m).sensitivity_at().mean()) for m in both)
    return cpm - other, percentile_interval(drawn[:, 0] - drawn[:, 1])
