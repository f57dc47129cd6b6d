"""A semi-real cohort of phantom lungs and phantom nodules."""

import csv
import json
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.scan import write_metaimage
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.files import is_semireal_uid
from lungdet_mmdet.runs.workplace import process_pool
from lungdet_mmdet.semireal.cohort import (
    CohortOptions,
    in_folds,
    plan_semireal_cohort,
    read_excluded_patients,
    screen_crops,
    screening_lines,
    write_semireal_cohort,
)
from lungdet_mmdet.semireal.crops import list_crops
from lungdet_mmdet.semireal.job import find_lungs
from lungdet_mmdet.semireal.scan import PLACE_SHARES, Candidate, draw_wanted

OPTIONS = CohortOptions(seed=4, scans_per_lung=2, mean_nodules=4.0, share_nodules=True)


def write_ball(folder, name, diameter_mm, *, hu=30, spacing=0.7, wall=False):
    """Write a crop with a ball in lung, on a wall where it is to be attached."""
    n = int(2 * (diameter_mm / 2 + 9) / spacing) | 1
    axis = (np.arange(n) - n // 2) * spacing
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    mask = z**2 + y**2 + x**2 <= (diameter_mm / 2) ** 2
    image = np.where(mask, hu, -850)
    if wall:
        image[(x > 0.35 * diameter_mm) & ~mask] = 40
    geometry = ScanGeometry(mask.shape, (spacing,) * 3, (0.0, 0.0, 0.0))
    write_metaimage(folder / "image", name, image.astype(np.int16), geometry)
    write_metaimage(folder / "mask", name, mask.astype(np.uint8), geometry)


@pytest.fixture(scope="module")
def crops_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crops")
    lines = ["crop,patient_id"]
    for number in range(14):
        write_ball(folder, f"n{number}", 5.0 + number * 0.6, wall=number % 3 == 0)
        lines.append(f"n{number},donor{number}")
    write_ball(folder, "faint", 6.0, hu=-800)
    (folder / "crops.csv").write_text("\n".join([*lines, "faint,donor0"]) + "\n")
    return folder


@pytest.fixture(scope="module")
def lungs_dir(tmp_path_factory, small_scan):
    """One small phantom, with its nodules, and a file that is no scan."""
    folder = tmp_path_factory.mktemp("lungs")
    write_metaimage(folder, "chest", small_scan.volume_hu, small_scan.geometry, compress=True)
    rows = ["seriesuid,coordX,coordY,coordZ,diameter_mm"]
    for n in small_scan.nodules:
        rows.append(",".join(map(str, ("chest", *n.centre_xyz_mm, n.diameter_mm))))
    (folder / "annotations.csv").write_text("\n".join(rows) + "\n")
    (folder / "patients.csv").write_text("seriesuid,patient_id\nchest,donor13\n")
    return folder


@pytest.fixture(scope="module")
def pool(crops_dir):
    screened = screen_crops(list_crops(crops_dir))
    assert [crop.file.name for crop in screened if crop.faults] == ["faint"]
    return [Candidate(c.file, c.measures, c.slice_mm) for c in screened if not c.faults]


def plan(lungs_dir, pool, root, options=OPTIONS):
    return plan_semireal_cohort(
        find_lungs([lungs_dir]).lungs, pool, options, out_dir=root / "out", mask_dir=root / "masks"
    )


@pytest.fixture(scope="module")
def cohort(lungs_dir, pool, tmp_path_factory):
    root = tmp_path_factory.mktemp("cohort")
    jobs = plan(lungs_dir, pool, root)
    summary = write_semireal_cohort(jobs, process_pool(0), tell=lambda line: None)
    assert summary.run.exit_code == 0
    return root, jobs, summary.records


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def volumes(root, job):
    scan = sitk.ReadImage(str(job.scan_folder / f"{job.seriesuid}.mhd"))
    labels = sitk.ReadImage(str(root / "masks" / f"{job.seriesuid}.mhd"))
    return scan, labels


def test_the_folder_has_the_shape_of_luna16(cohort):
    root, jobs, _ = cohort
    uids = (root / "out" / "seriesuids.csv").read_text().split()
    assert uids == [job.seriesuid for job in jobs]
    assert all(is_semireal_uid(uid) for uid in uids)
    assert sorted(p.stem for p in (root / "out").glob("subset0/*.mhd")) == sorted(uids)
    page = (root / "out" / "insertions.html").read_text()
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("data:image/jpeg") == 2


def test_tables_and_label_volumes_tell_the_same_nodules(cohort):
    root, jobs, _ = cohort
    table = rows(root / "out" / "inserted.csv")
    assert len(table) >= 4
    for job in jobs:
        scan, labels = volumes(root, job)
        own = [row for row in table if row["seriesuid"] == job.seriesuid]
        array = sitk.GetArrayFromImage(labels)
        assert set(np.unique(array)) == {0, *range(1, len(own) + 1)}
        assert labels.GetOrigin() == scan.GetOrigin()
        for row in own:
            centre = [float(row[c]) for c in ("coordX", "coordY", "coordZ")]
            index = labels.TransformPhysicalPointToIndex(centre)
            assert labels[index] == int(row["label"])
            assert scan[index] > -650
            voxels = np.count_nonzero(array == int(row["label"]))
            volume = voxels * np.prod(labels.GetSpacing())
            # A voxel here is 4 mm^3, a ball of 5 mm has 65 mm^3: the label is a coarse likeness.
            assert np.cbrt(6 * volume / np.pi) == pytest.approx(
                float(row["diameter_mm"]), rel=0.15, abs=0.5
            )


def test_a_scan_differs_from_its_lung_at_the_nodules_only_and_is_brighter_there(cohort, small_scan):
    root, jobs, _ = cohort
    scan, labels = volumes(root, jobs[0])
    new = sitk.GetArrayFromImage(scan).astype(int)
    change = new - small_scan.volume_hu
    assert change.min() == 0
    inside = sitk.GetArrayFromImage(labels) > 0
    near = sitk.GetArrayFromImage(
        sitk.BinaryDilate(sitk.Cast(labels > 0, sitk.sitkUInt8), (3, 3, 3))
    )
    assert not change[near == 0].any()
    assert np.median(change[inside]) > 300


def test_own_nodules_are_annotated_once_and_ignored_in_further_scans(cohort, small_scan):
    root, jobs, _ = cohort
    n_own = len(small_scan.nodules)
    assert n_own > 0
    inserted = Counter(row["seriesuid"] for row in rows(root / "out" / "inserted.csv"))
    annotated = Counter(row["seriesuid"] for row in rows(root / "out" / "annotations.csv"))
    ignored = Counter(row["seriesuid"] for row in rows(root / "out" / "annotations_excluded.csv"))
    first, second = (job.seriesuid for job in jobs)
    assert annotated[first] == inserted[first] + n_own
    assert annotated[second] == inserted[second]
    assert (ignored[first], ignored[second]) == (0, n_own)


def test_findings_keep_their_distance(cohort):
    _, _, records = cohort
    for record in records:
        spheres = [(*n["centre_xyz_mm"], n["diameter_mm"]) for n in record["inserted"]]
        spheres += record["own_nodules"] + record["ignored"]
        for i, a in enumerate(spheres):
            for b in spheres[i + 1 :]:
                gap = np.linalg.norm(np.subtract(a[:3], b[:3])) - (a[3] + b[3]) / 2
                # 4 mm between surfaces; the centre that is annotated is that of the visible part.
                assert gap > 3.0 or len(spheres) == len(record["own_nodules"])


def test_a_lung_gets_no_nodule_of_its_own_patient(cohort):
    _, jobs, records = cohort
    assert all(c.file.patient_id != "donor13" for job in jobs for c in job.pool)
    assert {record["patient_id"] for record in records} == {"donor13"}


def test_same_seed_same_bytes_with_any_number_of_workers(cohort, lungs_dir, pool, tmp_path):
    root, _, _ = cohort
    jobs = plan(lungs_dir, pool, tmp_path)
    write_semireal_cohort(jobs, process_pool(2), workers=2, tell=lambda line: None)
    first, second = (
        {p.relative_to(r): p.read_bytes() for p in r.rglob("*") if p.is_file()}
        for r in (root, tmp_path)
    )
    assert first == second


def test_another_seed_makes_another_cohort(cohort, lungs_dir, pool, tmp_path):
    _, jobs, _ = cohort
    other = plan(lungs_dir, pool, tmp_path, CohortOptions(seed=5, scans_per_lung=2))
    assert not {j.seriesuid for j in jobs} & {j.seriesuid for j in other}


def test_a_second_run_makes_only_what_is_missing(cohort, tmp_path_factory):
    root, jobs, _ = cohort
    kept, lost = (job.record_path for job in jobs)
    stamp, text = kept.stat().st_mtime_ns, lost.read_text()
    lost.unlink()
    said = []
    summary = write_semireal_cohort(jobs, process_pool(0), tell=said.append)
    assert said == ["1 scans are there already"]
    assert kept.stat().st_mtime_ns == stamp
    assert lost.read_text() == text
    assert [r["seriesuid"] for r in summary.records] == [job.seriesuid for job in jobs]


def test_a_bad_scan_is_told_and_stops_nothing(lungs_dir, pool, tmp_path, small_scan):
    folder = tmp_path / "in"
    write_metaimage(folder, "chest", small_scan.volume_hu, small_scan.geometry, compress=True)
    write_metaimage(
        folder,
        "water",
        np.zeros((20, 40, 40), np.int16),
        ScanGeometry((20, 40, 40), (2, 2, 2), (0, 0, 0)),
    )
    options = CohortOptions(mean_nodules=1.0, share_nodules=True)
    jobs = plan(folder, pool, tmp_path, options)
    summary = write_semireal_cohort(jobs, process_pool(0), tell=lambda line: None)
    assert summary.run.exit_code == 1
    assert [r["source_seriesuid"] for r in summary.records] == ["chest"]
    (failure,) = json.loads((tmp_path / "out" / "failures.json").read_text())
    assert "water" in failure["reason"]


def test_a_folder_with_other_scans_is_refused(lungs_dir, pool, tmp_path):
    foreign = tmp_path / "out" / "subset0" / "1.2.3.mhd"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("other")
    with pytest.raises(LungDetError, match=r"1\.2\.3\.mhd"):
        write_semireal_cohort(plan(lungs_dir, pool, tmp_path), process_pool(0))


def test_lungs_of_two_patients_share_no_donor(lungs_dir, pool, tmp_path, small_scan):
    for uid in ("one", "two"):
        write_metaimage(
            tmp_path / "in",
            uid,
            small_scan.volume_hu[:2],
            small_scan.geometry.cropped((0, 0, 0), (2, *small_scan.geometry.size_zyx[1:])),
        )
    many = [
        Candidate(
            type(c.file)(
                f"{c.file.name}{k}", f"{c.file.patient_id}{k}", c.file.image_path, c.file.mask_path
            ),
            c.measures,
            c.slice_mm,
        )
        for c in pool
        for k in "ab"
    ]
    jobs = plan(tmp_path / "in", many, tmp_path, CohortOptions())
    donors = [{c.file.patient_id for c in job.pool} for job in jobs]
    assert not donors[0] & donors[1]
    assert len(donors[0]) == len(donors[1]) == 14
    with pytest.raises(LungDetError, match="--share-nodules"):
        plan(tmp_path / "in", pool, tmp_path, CohortOptions())


def test_folds_part_all_patients(pool):
    patients = [f"P{i}" for i in range(2000)]
    parts = [{p for p in patients if in_folds(p, {k}, 4)} for k in range(4)]
    assert sum(map(len, parts)) == 2000
    assert set.union(*parts) == set(patients)
    # 500 are expected, with a standard deviation of 19.
    assert all(abs(len(part) - 500) < 80 for part in parts)


def test_excluded_patients_come_by_name_and_by_table(tmp_path):
    table = tmp_path / "inserted.csv"
    table.write_text("seriesuid,patient_id,place\n1.2,A,vessel\n1.3,B,vessel\n")
    assert read_excluded_patients([str(table), "C"]) == {"A", "B", "C"}


def test_sizes_drawn_follow_luna16(pool):
    """Whatever the sizes on offer: here as many of 4 mm as of 30."""
    offered = [
        Candidate(
            replace(pool[0].file, name=f"{size}{attached}"),
            replace(pool[0].measures, diameter_mm=size, attached_share=attached),
            1.0,
        )
        for size in np.geomspace(4.0, 30.0, 60).round(2).tolist()
        for attached in (0.0, 0.3)
    ]
    rng = np.random.default_rng(0)
    drawn = [w for _ in range(300) for w in draw_wanted(rng, offered, 4, slice_mm=2.5)]
    sizes = np.array([w.diameter_mm for w in drawn])
    # LUNA16's 10, 25, 50, 75 and 90 % quantiles are 4.4, 5.1, 6.4, 9.7 and 15.5 mm.
    found = np.quantile(sizes, (0.1, 0.25, 0.5, 0.75, 0.9))
    assert found == pytest.approx((4.4, 5.1, 6.4, 9.7, 15.5), rel=0.08)
    shares = Counter(w.place for w in drawn)
    for place, share in PLACE_SHARES.items():
        assert shares[place] / len(drawn) == pytest.approx(share, abs=0.06)
    for wanted in drawn:
        assert (wanted.candidate.measures.attached_share > 0) == (wanted.place == "pleural")


def test_thick_slices_are_not_set_into_thin_ones(pool):
    thick = [Candidate(c.file, c.measures, 2.5) for c in pool[:7]]
    wanted = draw_wanted(np.random.default_rng(1), [*thick, *pool[7:]], 5, slice_mm=1.25)
    assert {w.candidate.slice_mm for w in wanted} == {0.7}
    wanted = draw_wanted(np.random.default_rng(1), thick, 5, slice_mm=1.25)
    assert len(wanted) == 5


def test_screening_is_told(crops_dir):
    lines = screening_lines(screen_crops(list_crops(crops_dir)))
    assert lines[0].startswith("nodules: 14 of 15 are fit to be inserted, 1 left out")
    assert lines[1].split() == ["1", "contrast", "below", "200", "HU"]


@pytest.mark.parametrize("options", [{"scans_per_lung": 0}, {"mean_nodules": 0.0}])
def test_senseless_options_are_refused(options):
    with pytest.raises(LungDetError, match="0"):
        CohortOptions(**options)


@pytest.mark.realdata
def test_a_real_chest_keeps_its_own_nodules(luna16_sample, pool, tmp_path):
    uid = "1.3.6.1.4.1.14519.5.2.1.6279.6001.170706757615202213033480003264"
    path = luna16_sample / "subset9" / f"{uid}.mhd"
    jobs = plan_semireal_cohort(
        find_lungs([path]).lungs,
        pool,
        CohortOptions(seed=2, mean_nodules=8.0, share_nodules=True),
        out_dir=tmp_path / "out",
        mask_dir=tmp_path / "masks",
    )
    (record,) = write_semireal_cohort(jobs, process_pool(0), tell=lambda line: None).records
    assert len(record["inserted"]) >= 4
    assert record["unplaced"] == []
    diameters = sorted(row[3] for row in record["own_nodules"])
    assert diameters == pytest.approx([8.79, 12.82, 21.45], abs=0.01)
    before = sitk.ReadImage(str(path))
    after, labels = volumes(tmp_path, jobs[0])
    for row in record["own_nodules"]:
        index = before.TransformPhysicalPointToIndex(row[:3])
        assert after[index] == before[index]
        assert labels[index] == 0
    change = sitk.GetArrayFromImage(after).astype(int) - sitk.GetArrayFromImage(before)
    assert change.min() == 0
    inside = sitk.GetArrayFromImage(labels) > 0
    assert np.median(change[inside]) > 500


def uids_of(lungs, pool, root):
    return {job.seriesuid for job in plan(lungs, pool, root)}


def test_a_copy_of_the_inputs_elsewhere_gives_the_same_series(lungs_dir, pool, tmp_path):
    copy = shutil.copytree(lungs_dir, tmp_path / "copy", copy_function=shutil.copyfile)
    assert uids_of(copy, pool, tmp_path) == uids_of(lungs_dir, pool, tmp_path)


def test_corrected_inputs_give_other_series(lungs_dir, pool, crops_dir, tmp_path):
    known = uids_of(lungs_dir, pool, tmp_path)
    lungs = shutil.copytree(lungs_dir, tmp_path / "lungs")
    crops = shutil.copytree(crops_dir, tmp_path / "crops")
    copied = [
        replace(
            c,
            file=replace(
                c.file,
                image_path=crops / c.file.image_path.relative_to(crops_dir),
                mask_path=crops / c.file.mask_path.relative_to(crops_dir),
            ),
        )
        for c in pool
    ]
    assert uids_of(lungs, copied, tmp_path) == known
    header, row, *others = (lungs / "annotations.csv").read_text().splitlines()
    row = row.rsplit(",", 1)[0] + ",9.25"
    corrected = {lungs / "annotations.csv": "\n".join([header, row, *others]).encode()}
    for path in (lungs / "chest.zraw", crops / "image" / "n3.raw", crops / "mask" / "n3.raw"):
        # As long as it was: one value differs.
        corrected[path] = path.read_bytes()[:-1] + b"\x01"
    for path, content in corrected.items():
        before = path.read_bytes()
        path.write_bytes(content)
        assert not uids_of(lungs, copied, tmp_path) & known
        path.write_bytes(before)
