"""Small phantoms of the situations in which lung masks are known to fail, one for each name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.phantom.anatomy import Anatomy, draw_anatomy
from lungdet_mmdet.phantom.findings import PhantomNodule
from lungdet_mmdet.phantom.organs import Surroundings
from lungdet_mmdet.phantom.scan import PhantomScan, Protocol, Recipe, build_scan

_PATIENT_SCALE = 0.72
_LEAVES_PER_LUNG = 70
_PIXEL_MM = 1.5
_OBLIQUE_DEGREES = (8.0, -5.0, 12.0)

Setting = tuple[Anatomy, Protocol, Surroundings]


def build(name: str, seed: int) -> PhantomScan:
    """Build the phantom of one hard case.

    Parameters
    ----------
    name : one of `NAMES`; see the functions of this module for what each one holds.
    seed : same seed, same scan.

    Raises
    ------
    LungDetError
        If there is no such case.
    """
    if name not in _CASES:
        raise LungDetError(f"no hard case is called {name!r}: use one of {', '.join(NAMES)}")
    patient = draw_anatomy(np.random.default_rng([seed, 0]), patient_scale=_PATIENT_SCALE)
    # Fixed where a case depends on it: the field of view is chosen for this chest.
    patient = replace(patient, scale_xyz=(_PATIENT_SCALE,) * 3, fatness=1.0)
    protocol = Protocol(
        spacing_zyx_mm=(3.0, _PIXEL_MM, _PIXEL_MM), n_pixels=184, z_range_mm=(-218.0, 104.0)
    )
    setting = (patient, protocol, Surroundings(table=True, blanket=False))
    anatomy, protocol, surroundings = _CASES[name](*setting)
    recipe = Recipe(
        anatomy=anatomy,
        protocol=protocol,
        surroundings=surroundings,
        nodules=_NODULES.get(name),
        excluded_count=0,
        leaves_per_lung=_LEAVES_PER_LUNG,
    )
    wanted = [n.place for n in recipe.nodules or ()]
    for attempt in range(20):
        scan = build_scan([seed, 1, attempt], size="small", recipe=recipe)
        if recipe.nodules is None or [n.place for n in scan.nodules] == wanted:
            return scan
    raise LungDetError(f"hard case {name!r}: seed {seed} has no room for its nodule; use another")


def _body_touches_border(a: Anatomy, p: Protocol, s: Surroundings) -> Setting:
    """The field of view is narrower than the body, so skin and muscle run off the picture."""
    return a, replace(p, n_pixels=144), s


def _table_and_blanket(a: Anatomy, p: Protocol, s: Surroundings) -> Setting:
    """Foam as light as lung under the back, a sheet with air below it over the chest."""
    return a, p, Surroundings(table=True, blanket=True)


def _open_trachea(a: Anatomy, p: Protocol, s: Surroundings) -> Setting:
    """The air of the room reaches the lungs through a tracheostomy."""
    return replace(a, open_trachea=True), replace(p, z_range_mm=(-218.0, 122.0)), s


def _padding_2000(a: Anatomy, p: Protocol, s: Surroundings) -> Setting:
    """-2000 outside the round field of view."""
    return a, replace(p, padding_hu=-2000), s


def _padding_3024(a: Anatomy, p: Protocol, s: Surroundings) -> Setting:
    """-3024 outside the round field of view."""
    return a, replace(p, padding_hu=-3024), s


def _bowel_gas(a: Anatomy, p: Protocol, s: Surroundings) -> Setting:
    """Gas-filled colon under the diaphragm, and a stomach bubble."""
    return replace(a, bowel_gas=True), replace(p, z_range_mm=(-285.0, 100.0)), s


def _unchanged(a: Anatomy, p: Protocol, s: Surroundings) -> Setting:
    """The plain chest; the case lies in its nodule."""
    return a, p, s


def _consolidation(a: Anatomy, p: Protocol, s: Surroundings) -> Setting:
    """An airless region of some 40 mm on the chest wall and an effusion below it, both right."""
    mass = ((-94.0, 48.0, -55.0), 28.0)
    return replace(a, consolidation=mass, effusion_mm=22.0), p, s


def _one_lung(a: Anatomy, p: Protocol, s: Surroundings) -> Setting:
    """The left lung was removed; fluid fills its place."""
    return replace(a, left_lung=False), p, s


def _apex_only(a: Anatomy, p: Protocol, s: Surroundings) -> Setting:
    """The scan ends above the carina."""
    return a, replace(p, z_range_mm=(30.0, 110.0)), s


def _base_only(a: Anatomy, p: Protocol, s: Surroundings) -> Setting:
    """The scan begins below the heart's middle."""
    return a, replace(p, z_range_mm=(-228.0, -95.0)), s


def _thin_06(a: Anatomy, p: Protocol, s: Surroundings) -> Setting:
    """Slices of 0.6 mm."""
    thin = replace(p, spacing_zyx_mm=(0.6, 1.8, 1.8), n_pixels=148, z_range_mm=(-110.0, 30.0))
    return a, thin, s


def _thick_5(a: Anatomy, p: Protocol, s: Surroundings) -> Setting:
    """Slices of 5 mm."""
    return a, replace(p, spacing_zyx_mm=(5.0, _PIXEL_MM, _PIXEL_MM)), s


def _flipped(a: Anatomy, p: Protocol, s: Surroundings) -> Setting:
    """All three axes stored backwards."""
    return a, replace(p, flip_xyz=(True, True, True)), s


def _oblique(a: Anatomy, p: Protocol, s: Surroundings) -> Setting:
    """The grid lies turned in the world."""
    return (
        a,
        replace(p, rotation=_rotation(_OBLIQUE_DEGREES), shift_xyz_mm=(14.0, -170.0, -90.0)),
        s,
    )


def _no_lungs(a: Anatomy, p: Protocol, s: Surroundings) -> Setting:
    """A scan of the belly, with bowel gas."""
    return replace(a, bowel_gas=True), replace(p, z_range_mm=(-345.0, -232.0)), s


def _joined_lungs(a: Anatomy, p: Protocol, s: Surroundings) -> Setting:
    """The lungs touch in front of the great vessels: the line between them is below a voxel."""
    return replace(a, junction_mm=-0.6), p, s


def _cut_by_fov(a: Anatomy, p: Protocol, s: Surroundings) -> Setting:
    """The field of view cuts through both lungs."""
    return a, replace(p, n_pixels=116, padding_hu=-3024), s


def _rotation(degrees_xyz: tuple[float, float, float]) -> tuple[float, ...]:
    """Row-major rotation about x, then y, then z."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.radians(degrees_xyz)), np.sin(np.radians(degrees_xyz))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return tuple((about_z @ about_y @ about_x).ravel().tolist())


_CASES: dict[str, Callable[[Anatomy, Protocol, Surroundings], Setting]] = {
    "body_touches_border": _body_touches_border,
    "table_and_blanket": _table_and_blanket,
    "open_trachea": _open_trachea,
    "padding_2000": _padding_2000,
    "padding_3024": _padding_3024,
    "bowel_gas": _bowel_gas,
    "pleural_nodule": _unchanged,
    "mediastinal_nodule": _unchanged,
    "consolidation": _consolidation,
    "one_lung": _one_lung,
    "apex_only": _apex_only,
    "base_only": _base_only,
    "thin_06": _thin_06,
    "thick_5": _thick_5,
    "flipped": _flipped,
    "oblique": _oblique,
    "no_lungs": _no_lungs,
    "joined_lungs": _joined_lungs,
    "cut_by_fov": _cut_by_fov,
}

_NODULES: dict[str, tuple[PhantomNodule, ...]] = {
    "pleural_nodule": (PhantomNodule((0.0, 0.0, 0.0), 16.0, place="pleural"),),
    "mediastinal_nodule": (PhantomNodule((0.0, 0.0, 0.0), 13.0, place="mediastinal"),),
    "no_lungs": (),
}

NAMES = tuple(_CASES)
"""The cases that `build` knows."""
