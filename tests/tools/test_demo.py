"""`lungdet demo` plans the whole job on phantoms, each step on what the one before made."""

import shlex

import pytest

from lungdet_mmdet.commands import recipes
from tests.support.command_calls import left_alone, record


def plan_of(folder, *options):
    return recipes.demo_plan(recipes.demo_options([str(folder), *options]))


def words_of(steps):
    """The words of each step by its command, which the demo calls once."""
    by_command = {(words := shlex.split(step.command))[1]: words for step in steps}
    assert len(by_command) == len(steps)
    return by_command


def after(words, option):
    return words[words.index(option) + 1]


def test_every_option_arrives(tmp_path, monkeypatch, capsys):
    options = ["--length", "scratch", "--seed", "5", "--labels", "sphere"]
    assert left_alone(recipes.demo_options, [str(tmp_path)], options) == {"out_dir"}
    plan = plan_of(tmp_path, *options)
    folder, length = tmp_path / "scratch", recipes.LENGTHS["scratch"]
    runs = record(monkeypatch, "lungdet_mmdet.commands.recipes.run_command_steps", 0)
    assert recipes.demo([str(tmp_path), *options]) == 0
    assert runs == [{"steps": plan, "out_dir": folder}]
    assert f"{folder / 'results'}: a page for the one scan" in capsys.readouterr().out
    words = words_of(plan)
    assert after(words["phantom"], "--seed") == "5"
    assert after(words["phantom"], "--scans") == str(length.scans)
    assert after(words["split"], "--labels") == "sphere"
    assert after(words["train"], "--work-dir") == str(folder / "work")
    assert f"train_cfg.max_iters={length.iters}" in words["train"]
    assert "--load-from" not in words["train"]
    assert str(folder / "work" / f"iter_{length.iters}.pth") in words["test"]
    # The scan that is looked at is one of the cohort's.
    (scan,) = (word for word in words["infer"] if word.endswith(".mhd"))
    assert scan.startswith(str(folder / "luna16_phantoms" / "subset0"))
    assert scan != [w for w in words_of(plan_of(tmp_path))["infer"] if w.endswith(".mhd")][0]


@pytest.mark.parametrize("length", recipes.LENGTHS)
def test_the_steps_follow_on_one_another(tmp_path, length):
    out = tmp_path / "my demo"
    steps = plan_of(out, "--length", length)
    words = words_of(steps)
    assert list(words) == ["phantom", "prepare", "split", "train", "test", "infer"]
    # Every slab is kept: too few phantoms for the protocol's rate.
    rates = words["split"].index("--positive-rate")
    assert words["split"][rates + 1 :] == ["train=natural", "val=natural", "test=natural"]
    for of_step in words.values():
        assert not [w for w in of_step if w.endswith("my") or w.startswith("demo")]
        assert [w for w in of_step if w.startswith(f"{out / length}/")]
    prepared = {words["prepare"][3], words["split"][2]}
    prepared |= {after(words[command], "--data") for command in ("train", "test")}
    assert prepared == {str(out / length / "prepared")}
