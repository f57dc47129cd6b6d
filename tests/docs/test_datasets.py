"""Every recipe of docs/datasets.md, on a few made-up scans of that layout."""

import csv
import re
import runpy
import shlex
import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from lungdet_mmdet.ct.dicom.header import patient_digest
from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.splits.coco_json import read_coco
from lungdet_mmdet.splits.prepared import read_prepared
from tests.annotations.lidc_files import square, write_xml
from tests.support import rehearsal
from tests.support.dicom_export import write_dicom_series

N_SCANS = 3
GRID = ScanGeometry(rehearsal.SIZE_ZYX, rehearsal.SPACING_ZYX_MM, rehearsal.ORIGIN_XYZ_MM)
DIAMETER = rehearsal.NODULE_DIAMETER_MM


def write_scan(path, index):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(rehearsal._volume(index))
    image.SetSpacing(GRID.spacing_xyz_mm.tolist())
    image.SetOrigin(GRID.origin_xyz_mm)
    sitk.WriteImage(image, str(path))


def write_series(folder, index, uid):
    pytest.importorskip("pydicom")
    return write_dicom_series(folder, rehearsal._volume(index), GRID, seriesuid=uid)


def write_table(path, columns, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns.split(","), *rows])


def luna16(work):
    rehearsal.write_rehearsal_folder(work / "LUNA16", N_SCANS)


def lidc_idri(work):
    for index in range(N_SCANS):
        uid = f"1.3.6.1.4.1.14519.5.2.1.6279.6001.{index + 1}"
        patient = f"LIDC-IDRI/LIDC-IDRI-000{index + 1}"
        write_series(work / patient / "01-01-2000-30178" / f"3000566-{index}", index, uid)
        x, y, z = (GRID.world_to_voxel(np.array(rehearsal.nodule_centre(index)))[::-1]).round()
        outline = [(x + column - 5, y + row - 5) for column, row in square(2, 8)]
        slices = [GRID.origin_xyz_mm[2] + 5 * (z + step) for step in (-1, 0, 1)]
        reading = [(height, 1, [(int(a), int(b)) for a, b in outline]) for height in slices]
        folder = work / "LIDC-XML-only" / "tcia-lidc-xml" / "157"
        folder.mkdir(parents=True, exist_ok=True)
        write_xml(folder / f"{index}.xml", uid, [[reading]] * 4)


def lndb(work):
    rows = []
    for index in range(N_SCANS):
        number = index + 1
        write_scan(work / "LNDb" / f"data{index}" / f"LNDb-{number:04d}.mhd", index)
        write_scan(work / "LNDb" / "masks" / f"LNDb-{number:04d}_rad1.mhd", index)
        volume = np.pi * DIAMETER**3 / 6
        centre = rehearsal.nodule_centre(index)
        rows.append([number, "1,2", "1,1", 1, *centre, 2, 1, volume, 5])
        rows.append([number, "1", "2", 2, -70, 0, 80, 1, 0, 0, 0])
    columns = "LNDbID,RadID,RadFindingID,FindingID,x,y,z,AgrLevel,Nodule,Volume,Text"
    write_table(work / "LNDb" / "trainset_csv" / "trainNodules_gt.csv", columns, rows)


def luna25(work):
    rows = []
    for index in range(N_SCANS):
        uid = f"1.2.840.113654.2.55.{index + 1}"
        write_scan(work / "LUNA25" / "luna25_images" / f"{uid}.mha", index)
        centre, patient = rehearsal.nodule_centre(index), index // 2
        rows.append([patient, uid, "20000102", *centre, 3, f"{index}_3", f"{index}_3", 0, 75, "F"])
    columns = (
        "PatientID,SeriesInstanceUID,StudyDate,CoordX,CoordY,CoordZ,LesionID,AnnotationID,"
        "NoduleID,label,Age_at_StudyDate,Gender"
    )
    write_table(work / "LUNA25/LUNA25_Public_Training_Development_Data.csv", columns, rows)


def dlcs(work):
    rows = []
    for index in range(N_SCANS):
        name = f"DLCS_{index + 1:04d}"
        write_scan(work / "DLCS24" / "subset_1" / f"{name}.nii.gz", index)
        place, sides = rehearsal.nodule_centre(index), (DIAMETER, DIAMETER, DIAMETER)
        rows.append([name, f"{name}_01", f"{name}.nii.gz", *place, *sides, 0, "train"])
    columns = (
        "patient-id,nodule_id,ct_nifti_file,coordX,coordY,coordZ,w,h,d,Malignant_lbl,"
        "benchmark_split"
    )
    write_table(work / "DLCSD24_Annotations.csv", columns, rows)


def hospital(work):
    (work / "markups").mkdir()
    rows = []
    for index in range(N_SCANS):
        write_series(work / "export" / f"CASE{index}" / "CT", index, f"1.2.3.{index + 1}")
        x, y, z = rehearsal.nodule_centre(index)
        ends = f"[{-x},{-y},{z - DIAMETER / 2}]", f"[{-x},{-y},{z + DIAMETER / 2}]"
        points = ",".join(f'{{"position": {end}}}' for end in ends)
        (work / "markups" / f"CASE{index}.mrk.json").write_text(
            '{"markups": [{"type": "Line", "coordinateSystem": "RAS", "coordinateUnits": "mm", '
            f'"controlPoints": [{points}]}}]}}'
        )
        rows.append([f"CASE{index}", -x, -y, z, DIAMETER])
    write_table(work / "nodules.csv", "Patient,R,A,S,Size", rows)


RECIPES = {
    "LUNA16": luna16,
    "LIDC-IDRI": lidc_idri,
    "LNDb": lndb,
    "LUNA25": luna25,
    "Duke's DLCS": dlcs,
    "Your own hospital": hospital,
}


@pytest.fixture
def run(repository, tmp_path, monkeypatch):
    """Run a recipe's command in this process, with steps that take a blink."""
    (tmp_path / "steps.py").write_text(f"prep_pipeline = {rehearsal.REHEARSAL_STEPS!r}\n")
    monkeypatch.chdir(tmp_path)

    def run_command(command):
        python, script, *arguments = shlex.split(command)
        assert python == "python"
        arguments += ["--workers", "0"]
        if script.endswith("prepare_luna16.py"):
            arguments += ["--config", "steps.py"]
        monkeypatch.setattr("sys.argv", [script, *arguments])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(repository / script), run_name="__main__")
        assert end.value.code == 0
        return arguments[1]

    return run_command


def commands_of(repository, heading):
    text = (repository / "docs" / "datasets.md").read_text(encoding="utf-8")
    section = text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return [c for c in re.findall(r"^\$ (.+)$", section, re.M) if "download" not in c]


@pytest.mark.parametrize("name", RECIPES)
def test_recipe(name, repository, tmp_path, run, capsys):
    RECIPES[name](tmp_path)
    outputs = [run(command) for command in commands_of(repository, name)]
    prepared = [tmp_path / folder for folder in outputs if folder.startswith("prepared")]
    assert prepared
    assert "are the coordinates LPS millimetres" not in capsys.readouterr().out
    for folder in prepared:
        cohort = read_prepared(folder)
        assert len(cohort.scans) == N_SCANS
        for index, scan in enumerate(cohort.scans):
            if name == "LUNA16":
                index = next(i for i in range(3) if rehearsal.rehearsal_uid(i) == scan.seriesuid)
            (nodule,) = scan.nodules
            wanted = rehearsal.nodule_centre(index)
            # Outlines count whole pixels of 5 mm.
            away = np.abs(np.subtract(nodule.centre_xyz_mm, wanted)).max()
            assert away <= (2.5 if name == "LIDC-IDRI" else 1e-3)
            if name not in ("LIDC-IDRI", "LUNA25"):
                assert nodule.diameter_mm == pytest.approx(DIAMETER, abs=1e-3)
            assert len(scan.excluded) == (name == "LNDb")


def test_patients_of_a_table_stay_on_one_side(tmp_path, repository, run):
    luna25(tmp_path)
    folder = tmp_path / run(commands_of(repository, "LUNA25")[0])
    patients = [
        read_coco(folder / "annotations" / f"{part}.json")["patients"]
        for part in ("train", "val", "test")
    ]
    sides = [set(of.values()) for of in patients]
    assert sorted(p for side in sides for p in side) == sorted(map(patient_digest, "01"))


@pytest.mark.parametrize("coords", ["ras", "voxel"])
def test_a_table_in_another_system_gives_the_same_boxes(coords, tmp_path, run):
    rehearsal.write_rehearsal_folder(tmp_path / "LUNA16", N_SCANS)
    run("python data_prep/prepare_luna16.py LUNA16 lps")
    rows = []
    for index in range(N_SCANS):
        point = np.array(rehearsal.nodule_centre(index))
        turned = point * (-1, -1, 1) if coords == "ras" else GRID.world_to_voxel(point)[::-1]
        rows.append([rehearsal.rehearsal_uid(index), *turned.tolist(), DIAMETER])
    write_table(tmp_path / "other.csv", "scan,x,y,z,diameter", rows)
    run(f"python data_prep/prepare_luna16.py LUNA16 {coords} --annotations other.csv "
        f"--coords {coords}")  # fmt: skip
    for part in ("train", "val", "test"):
        lps, other = (
            read_coco(tmp_path / folder / "annotations" / f"{part}.json")["annotations"]
            for folder in ("lps", coords)
        )
        assert len(lps) == len(other) > 0
        for one, two in zip(lps, other, strict=True):
            assert one["bbox"] == pytest.approx(two["bbox"], abs=1e-9)


def test_the_run_asks_where_places_are_in_another_system(tmp_path, run, capsys):
    rehearsal.write_rehearsal_folder(tmp_path / "LUNA16", N_SCANS)
    table = tmp_path / "LUNA16" / "annotations.csv"
    header, *rows = table.read_text().splitlines()
    turned = []
    for row in rows:
        uid, x, y, z, diameter = row.split(",")
        turned.append(f"{uid},-{x},-{y},{z},{diameter}".replace("--", ""))
    table.write_text("\n".join([header, *turned]) + "\n")
    run("python data_prep/prepare_luna16.py LUNA16 out")
    out = capsys.readouterr().out
    assert "3 of 3 nodules lie outside the lungs" in out
    assert "with x and y turned round 3 lie on tissue" in out
    shutil.rmtree(tmp_path / "out")
    table.write_text("\n".join([header, *(r.replace(",80.0,", ",1080.0,") for r in rows)]) + "\n")
    run("python data_prep/prepare_luna16.py LUNA16 out")
    assert "3 of 3 nodules lie outside their scans" in capsys.readouterr().out
