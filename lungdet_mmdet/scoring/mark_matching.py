"""Which marks of a scan hit a nodule, by the rules of the LUNA16 challenge's own evaluation.

The rules (Setio et al., Medical Image Analysis 2017, and the challenge's evaluation script):

- Of each scan, the 100 highest marks count; marks that tie with the 101st are left out with it.
- A mark hits a nodule when its distance to the centre is less than the radius. A nodule that is hit
  takes the highest score among its hits; the others are dropped, and are no false positives.
- A mark that hits no nodule but an excluded finding is dropped. A finding without a diameter gets
  10 mm.
- Every other mark is a false positive. Nodules that are not hit stay in the denominator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.nodules.tables import Finding, Nodule
from lungdet_mmdet.scoring.submission import Marks

MAX_MARKS_PER_SCAN = 100


@dataclass(frozen=True)
class FrocMatches:
    """The marks that count, best score first, and everything that was left out, counted.

    ``scores``, ``is_nodule`` and ``series_rows`` run over hit nodules (by their best mark) and
    false positives; ``missed_per_series`` over the scans.
    """

    series: tuple[str, ...]
    scores: NDArray[np.float64]
    is_nodule: NDArray[np.bool_]
    series_rows: NDArray[np.intp]
    missed_per_series: NDArray[np.int64]
    ignored: int
    duplicates: int
    over_limit: int

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


def match_marks(
    marks: Marks,
    nodules: Sequence[Nodule],
    findings: Sequence[Finding],
    series: Sequence[str],
    *,
    max_marks_per_scan: int | None = MAX_MARKS_PER_SCAN,
) -> FrocMatches:
    """Decide for every mark whether it is a hit, a duplicate, ignored or a false positive.

    Marks, nodules and findings of other series are left out.

    Raises
    ------
    LungDetError
        When there is no series, or one is named twice.
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
    return _joined(tuple(series), scans)


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
