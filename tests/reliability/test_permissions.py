"""Folders that cannot be written to and files that cannot be read, by the real command lines."""

import json
import shutil

import pytest

from tests.reliability.tool_runs import obey_permissions, run_tools
from tests.support.rehearsal import rehearsal_uid


@pytest.fixture(scope="module")
def closed(tmp_path_factory):
    """A folder that cannot be written to."""
    folder = tmp_path_factory.mktemp("closed")
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o755)


@pytest.fixture(scope="module")
def partly_unreadable(inputs, tmp_path_factory):
    """The three scans; of one the pixels, of another the header cannot be read."""
    folder = tmp_path_factory.mktemp("unreadable") / "luna16"
    shutil.copytree(inputs.luna16, folder)
    closed = [
        next(folder.glob(f"*/{rehearsal_uid(0)}.zraw")),
        next(folder.glob(f"*/{rehearsal_uid(1)}.mhd")),
    ]
    for path in closed:
        path.chmod(0)
    (folder / "closed_folder").mkdir(mode=0)
    yield folder
    (folder / "closed_folder").chmod(0o755)
    for path in closed:
        path.chmod(0o644)


@pytest.fixture(scope="module")
def results(inputs, closed, partly_unreadable, tmp_path_factory):
    """What each command did, by name."""
    out = tmp_path_factory.mktemp("out")
    unreadable = out / "unreadable"
    unreadable.write_text("scan.mhd\n")
    unreadable.chmod(0)
    lists = unreadable.rename(out / "list.txt")
    shut = out / "shut"
    shut.mkdir(mode=0)
    prep = ("--config", inputs.prep_config, "--workers", 0)
    model = ("--checkpoint", inputs.model)
    calls = {
        "prepare into": ("data_prep/prepare_luna16.py", [inputs.luna16, closed / "out", *prep]),
        "infer into": ("tools/infer.py", [inputs.luna16, *model, "--out", closed / "out"]),
        "train into": ("tools/train.py", [inputs.train_config, "--work-dir", closed / "run"]),
        "test into": (
            "tools/test.py", [inputs.train_config, inputs.model, "--work-dir", closed / "run"],
        ),
        "splits into": ("data_prep/make_splits.py", [inputs.slabs, "--out", closed / "splits"]),
        "prepare from": (
            "data_prep/prepare_luna16.py", [partly_unreadable, out / "prepared", *prep],
        ),
        "infer from": ("tools/infer.py", [partly_unreadable, *model, "--out", out / "found"]),
        "infer from list and folder": (
            "tools/infer.py", [lists, shut, *model, "--out", out / "none"],
        ),
        "infer with": (
            "tools/infer.py", [inputs.luna16, "--checkpoint", lists, "--out", out / "none"],
        ),
    }  # fmt: skip
    done = run_tools(list(calls.values()), before=obey_permissions)
    shut.chmod(0o755)
    return out, dict(zip(calls, done, strict=True))


@pytest.mark.reliability("read-only output")
@pytest.mark.parametrize(
    "name", ["prepare into", "infer into", "train into", "test into", "splits into"]
)
def test_a_folder_that_cannot_be_written_to_ends_with_one_sentence(results, closed, name):
    done = results[1][name]
    assert done["code"] == 1
    told = done["error"] or done["out"]
    assert f"{closed}" in told
    assert "check its permissions, or choose another output folder" in told
    assert "Traceback" not in told
    assert list(closed.iterdir()) == []


@pytest.mark.reliability("unreadable input")
@pytest.mark.parametrize(
    ("name", "failures", "finished"),
    [
        ("prepare from", "prepared/failures.json", "prepared/slabs/*/scan.json"),
        ("infer from", "found/failures.json", "found/*/candidates.json"),
    ],
)
def test_scans_that_cannot_be_read_are_named_and_the_others_done(results, name, failures, finished):
    out, done = results[0], results[1][name]
    assert done["code"] == 1
    listed = json.loads((out / failures).read_text())
    assert [f["stage"] for f in listed] == ["input", "input"], listed
    assert all("check its permissions" in f["reason"] for f in listed), listed
    (only,) = out.glob(finished)
    assert only.parent.name == rehearsal_uid(2)


@pytest.mark.reliability("unreadable input")
@pytest.mark.parametrize("name", ["prepare from", "infer from"])
def test_a_folder_that_cannot_be_searched_is_told(results, name):
    assert "closed_folder: cannot be searched (Permission denied)" in results[1][name]["out"]


@pytest.mark.reliability("unreadable input")
def test_lists_and_folders_that_cannot_be_read_are_named(results):
    out, done = results[0], results[1]["infer from list and folder"]
    assert done["code"] == 1
    listed = json.loads((out / "none" / "failures.json").read_text())
    assert all("check its permissions" in f["reason"] for f in listed), listed
    assert sorted(f["seriesuid"].rsplit("/", 1)[1] for f in listed) == ["list.txt", "shut"]


@pytest.mark.reliability("unreadable input")
def test_a_checkpoint_that_cannot_be_read_is_named(results):
    done = results[1]["infer with"]
    assert done["code"] == 1
    assert "list.txt: cannot be read (Permission denied); check its permissions" in done["error"]
