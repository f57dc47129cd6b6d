"""The command line as a whole, and what is left after its processes are killed."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lungdet_mmdet.commands import preparing as commands
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.luna16.folder import read_luna16_folder
from lungdet_mmdet.preparation.cohort_preparation import prepare_cohort
from lungdet_mmdet.runs.workplace import process_pool
from lungdet_mmdet.splits.split_writer import write_splits
from tests.support.command_calls import left_alone, record
from tests.support.rehearsal import (
    REHEARSAL_STEPS,
    rehearsal_uid,
    write_rehearsal_folder,
)

N_SCANS = 4
TARGET = rehearsal_uid(2)
# A step that kills once, in the midst of a scan, where the environment says so.
KILL_SWITCH = """
import os, signal
from pathlib import Path
from mmdet.registry import TRANSFORMS

@TRANSFORMS.register_module()
class KillSwitch:
    def __call__(self, results):
        mark = Path(os.environ.get("KILL_MARK", "/nowhere"))
        if results["seriesuid"] == os.environ.get("KILL_ON") and not mark.exists():
            mark.touch()
            own = os.environ["KILL_WHOM"] == "worker"
            os.kill(os.getpid() if own else os.getppid(), signal.SIGKILL)
            if not own:
                signal.pause()
        return results
"""
STEPS = [*REHEARSAL_STEPS[:4], {"type": "KillSwitch"}, *REHEARSAL_STEPS[4:]]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Input folder, config and module of the kill switch."""
    work = tmp_path_factory.mktemp("prepare")
    write_rehearsal_folder(work / "luna16", N_SCANS)
    (work / "kill_switch.py").write_text(KILL_SWITCH)
    (work / "config.py").write_text(
        f"custom_imports = dict(imports=['kill_switch'])\nprep_pipeline = {STEPS!r}\n"
    )
    return work


@pytest.fixture
def run(work, repository):
    """Run the command line in a process of its own."""

    def run_command(out_dir, *arguments, **environment):
        command = [sys.executable, str(repository / "data_prep" / "prepare_luna16.py")]
        path = os.pathsep.join([str(repository), str(work)])
        return subprocess.run(
            [*command, str(work / "luna16"), str(out_dir), *map(str, arguments)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": path, **environment},
            timeout=120,
            check=False,
        )

    return run_command


@pytest.fixture
def prepare(work, monkeypatch):
    """Prepare in this process; spawned workers find the kill switch, too."""
    monkeypatch.syspath_prepend(str(work))

    def run(out_dir, workers=0):
        folder = read_luna16_folder(work / "luna16")
        pool = process_pool(workers)
        return prepare_cohort(
            folder, out_dir, STEPS, pool, workers=workers, imports=("kill_switch",), tell=str
        )

    return run


def content(out_dir):
    """Every prepared byte, and the manifest without its durations."""
    files = {
        str(path.relative_to(out_dir)): path.read_bytes()
        for path in sorted((out_dir / "slabs").rglob("*"))
        if path.is_file()
    }
    manifest = json.loads((out_dir / "manifest.json").read_text())
    for scan in manifest["scans"]:
        assert scan.pop("seconds") > 0
    return files, manifest


@pytest.fixture
def undisturbed(prepare, tmp_path):
    prepare(tmp_path / "undisturbed")
    return content(tmp_path / "undisturbed")


def test_the_command_prepares_and_splits_and_a_bad_scan_gives_exit_code_1(run, work, tmp_path):
    data = next((work / "luna16").glob(f"*/{TARGET}.zraw"))
    whole = data.read_bytes()
    data.write_bytes(whole[:-40])
    try:
        done = run(tmp_path / "out", "--config", work / "config.py", "--workers", 0)
    finally:
        data.write_bytes(whole)
    assert done.returncode == 1, done.stderr
    assert f"{N_SCANS - 1} scans done, 0 done before, 1 failed" in done.stdout
    assert f"failed: {TARGET} [input]" in done.stdout
    assert "strict protocol on phantom" in done.stdout
    names = {path.name for path in (tmp_path / "out" / "annotations").iterdir()}
    assert names == {"train.json", "val.json", "test.json", "split.json"}
    assert "Traceback" not in done.stderr


@pytest.mark.reliability("a process killed at a chosen point of prepare")
def test_a_parent_killed_in_the_midst_of_a_scan_leaves_nothing_wrong(
    run, prepare, work, tmp_path, undisturbed
):
    out = tmp_path / "out"
    killed = run(
        out,
        *("--config", work / "config.py", "--workers", 1),
        **{"KILL_ON": TARGET, "KILL_WHOM": "parent", "KILL_MARK": str(tmp_path / "mark")},
    )
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "mark").exists()
    assert not (out / "manifest.json").exists()
    assert not (out / "slabs" / TARGET).exists()
    resumed = prepare(out)
    assert set(resumed.skipped) == {rehearsal_uid(0), rehearsal_uid(1)}
    assert content(out) == undisturbed


@pytest.mark.reliability("a process killed at a chosen point of prepare")
def test_a_worker_killed_in_the_midst_of_a_scan_costs_nothing(
    prepare, tmp_path, undisturbed, monkeypatch
):
    monkeypatch.setenv("KILL_ON", TARGET)
    monkeypatch.setenv("KILL_WHOM", "worker")
    monkeypatch.setenv("KILL_MARK", str(tmp_path / "mark"))
    summary = prepare(tmp_path / "out", workers=2)
    assert (tmp_path / "mark").exists()
    assert summary.exit_code == 0
    # The same bytes as without a worker at all.
    assert content(tmp_path / "out") == undisturbed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--protocol", "fold"], "give --fold 0-9"),
        (["--config", "none.py"], "none.py: no such config file"),
        (["--workers", "-2"], "workers is -2"),
    ],
)
def test_unusable_options_are_named(arguments, message, load_tool, work, tmp_path):
    main = load_tool().main
    with pytest.raises(LungDetError, match=message):
        main([str(work / "luna16"), str(tmp_path / "out"), *arguments])


@pytest.fixture
def load_tool(repository):
    def load():
        import importlib.util

        path = repository / "data_prep" / "prepare_luna16.py"
        spec = importlib.util.spec_from_file_location("prepare_luna16", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.mark.realdata
def test_the_two_real_scans(luna16_sample, repository, tmp_path):
    from mmengine.config import Config

    config = Config.fromfile(
        repository / "configs" / "_base_" / "prep_luna16.py", import_custom_modules=False
    )
    steps = json.loads(json.dumps(config.prep_pipeline))
    folder = read_luna16_folder(luna16_sample)
    summary = prepare_cohort(folder, tmp_path / "out", steps, process_pool(0), workers=0, tell=str)
    assert len(folder.missing_series) == 886
    nodules = [n for scan in summary.manifest["scans"] for n in scan["nodules"]]
    assert len(nodules) == 3
    assert min(n["coverage"] for n in nodules) >= 0.98
    for scan, litres in zip(summary.manifest["scans"], (5.93, 5.34), strict=True):
        assert scan["lung_volume_l"] == pytest.approx(litres, rel=0.05)
        assert scan["lung_mask"]["n_lungs"] == 2


def told_of_split(out):
    split = json.loads((out / "annotations" / "split.json").read_text())
    return split["info"]["protocol"], split["info"]["seed"], split["rules"]["positive_rate"]["test"]


def test_preparing_again_keeps_the_users_split(work, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(work))
    out = tmp_path / "out"

    def again(*options):
        argv = [str(work / "luna16"), str(out), "--config", str(work / "config.py")]
        assert commands.prepare([*argv, "--workers", "0", *options]) == 0
        return capsys.readouterr().out

    again()
    assert told_of_split(out)[:2] == ("strict", 0)
    write_splits(out, seed=7, positive_rate={"test": "natural"})
    mine = told_of_split(out)
    assert "split again with the options of" in again()
    assert told_of_split(out) == mine
    again("--seed", "3")
    assert told_of_split(out) == ("strict", 3, mine[2])
    again("--protocol", "paper")
    assert told_of_split(out)[:2] == ("paper", 0)
    write_splits(out, patients={rehearsal_uid(0): "P"})
    before = (out / "annotations" / "train.json").read_bytes()
    assert "is left as it is" in again()
    assert (out / "annotations" / "train.json").read_bytes() == before


def test_a_fold_without_its_protocol_is_refused_before_any_work(work, tmp_path):
    with pytest.raises(LungDetError, match="give the fold protocol"):
        commands.prepare([str(work / "luna16"), str(tmp_path / "out"), "--fold", "3"])
    assert not (tmp_path / "out").exists()


def test_every_option_arrives(monkeypatch, work, tmp_path):
    (tmp_path / "a.csv").touch()
    own_config, annotations = str(work / "config.py"), str(tmp_path / "a.csv")
    options = shlex.split(
        "--workers 7 --dask tcp://h:1 --mask luna16 --nodule-masks MASKS --labels sphere"
        " --protocol fold --fold 3 --seed 5 --columns x=colX --coords ras --diameter-mm 6"
        f" --keep 'AgrLevel>=2' --config '{own_config}' --annotations '{annotations}'"
    )
    folders = ["SCANS", str(tmp_path / "out")]
    assert left_alone(commands.prepare_options, folders, options) == {"luna16_dir", "out_dir"}

    place = SimpleNamespace(make_executor="executor", workers=9)
    places = record(monkeypatch, "lungdet_mmdet.runs.workplace.find_workplace", place)
    scans = SimpleNamespace(scans=(), missing_series=(), warnings=(), root="SCANS")
    read = record(monkeypatch, "lungdet_mmdet.luna16.folder.read_luna16_folder", scans)
    manifest = {"scans": [{"status": "ok"}]}
    summary = SimpleNamespace(finished=True, manifest=manifest, exit_code=3)
    prepared = "lungdet_mmdet.preparation.cohort_preparation"
    calls = record(monkeypatch, f"{prepared}.prepare_cohort", summary)
    monkeypatch.setattr(f"{prepared}.summary_lines", lambda summary, folder: [])
    splits = record(monkeypatch, "lungdet_mmdet.commands.preparing.write_splits")
    monkeypatch.setattr(commands, "report_lines", lambda report: [])
    assert commands.prepare([*folders, *options]) == 3

    (place_of,) = places
    assert (place_of["workers"], place_of["dask"]) == (7, "tcp://h:1")
    assert place_of["read_from"] == [Path("SCANS"), Path("MASKS")]
    assert place_of["write_to"] == tmp_path / "out"
    source = read[0].pop("annotations")
    assert read == [{"root": Path("SCANS").resolve(), "nodule_masks": Path("MASKS").resolve()}]
    assert (source.path, source.coords, source.diameter_mm) == (tmp_path / "a.csv", "ras", 6)
    assert (source.columns, source.keep) == ({"x": "colX"}, ("AgrLevel>=2",))
    (call,) = calls
    masks = [step["method"] for step in call["steps"] if step["type"] == "OtsuLungMask"]
    assert masks == ["luna16"]
    assert [step["type"] for step in call["steps"]] == [step["type"] for step in STEPS]
    assert (call["out_dir"], call["workers"]) == (tmp_path / "out", 9)
    assert call["imports"] == ("kill_switch",)
    assert splits == [
        {"prepared_dir": tmp_path / "out", "protocol": "fold", "fold": 3, "seed": 5,
         "labels": "sphere"}
    ]  # fmt: skip
