"""`lungdet ablation` plans every run on the same scans, and prepares slabs once per pipeline."""

import shlex

from lungdet_mmdet.commands import recipes
from lungdet_mmdet.engine.by_name import find_config
from tests.support.command_calls import left_alone, record


def plan_of(tmp_path, *options):
    return recipes.ablation_plan(recipes.ablation_options([str(tmp_path), *options]))


def test_every_variant_has_a_config_and_is_trained_and_tested(tmp_path):
    steps = plan_of(tmp_path)
    for variant in recipes.VARIANTS:
        config = recipes.config_of(variant)
        assert find_config(config).is_file()
        mine = [s.command for s in steps if s.what.startswith(f"{variant}:")]
        assert [shlex.split(c)[1] for c in mine] == [
            "prepare",
            "split",
            "train",
            "test",
        ]
        assert all(config in c for c in mine if "lungdet split" not in c)


def test_detectors_share_the_main_slabs_and_thicknesses_have_their_own(tmp_path):
    steps = plan_of(tmp_path, "--only", "main", "detr", "mip5")
    prepared = {
        s.what.split(":")[0]: shlex.split(s.command)[3] for s in steps if "prepare" in s.what
    }
    assert prepared["main"] == prepared["detr"] != prepared["mip5"]


def test_a_finished_training_is_known_by_its_last_checkpoint(tmp_path):
    steps = plan_of(tmp_path, "--iters", "30", "--only", "ce")
    (training,) = (s for s in steps if s.what == "ce: train")
    assert training.result == tmp_path / "work_ce" / "iter_30.pth"


def test_a_folder_with_a_space_is_one_argument(tmp_path):
    steps = plan_of(tmp_path / "my study", "--only", "main", "mip5")
    for step in steps:
        words = shlex.split(step.command)
        assert not [word for word in words if word.endswith("my") or word.startswith("study")]
        assert [word for word in words if str(tmp_path / "my study") in word]


def test_every_option_arrives(tmp_path, monkeypatch):
    options = shlex.split("--iters 30 --scans 9 --seed 5 --only ce")
    assert left_alone(recipes.ablation_options, ["OUT"], options) == {"out_dir"}
    plan = plan_of(tmp_path, *options)
    phantom, prepare, split, train, test, compare = (shlex.split(step.command) for step in plan)
    runs = record(monkeypatch, "lungdet_mmdet.commands.recipes.run_command_steps", 3)
    assert recipes.ablation([str(tmp_path), *options]) == 3
    assert runs == [{"steps": plan, "out_dir": tmp_path}]
    assert phantom[phantom.index("--scans") :][:4] == ["--scans", "9", "--seed", "5"]
    assert train[train.index("--cfg-options") + 1 :] == [
        "randomness.seed=5", "train_cfg.max_iters=30", "train_cfg.val_interval=30",
        "param_scheduler.1.end=30",
    ]  # fmt: skip
    assert compare[2] == str(tmp_path / "work_ce")
