"""`lungdet make-model` trains on other data each time, from the weights before, and tests once."""

import re
import shlex
from pathlib import Path

from lungdet_mmdet.commands import models
from tests.support.command_calls import left_alone, record


def plan_of(folder, *options):
    args = [
        *(folder / "out", "--scans", folder / "lung a.mhd", "--test-scans", folder / "b.mhd"),
        *("--crops", folder / "crops", "--patients", folder / "patients.csv"),
        *("--test-patients", "B", "--train-patients", "A", *options),
    ]
    return models.make_model_plan(models.make_model_options([str(word) for word in args]))


def words_of(plan, command):
    return [words for step in plan if (words := shlex.split(step.command))[1] == command]


def after(words, option):
    return words[words.index(option) + 1]


def test_each_training_goes_on_from_the_one_before_on_data_of_its_own(tmp_path):
    plan = plan_of(tmp_path, "--iters", "30", "20", "10", "--seed", "4")
    assert len({step.what for step in plan}) == len(plan)
    trainings = words_of(plan, "train")
    steps = [re.search(r"max_iters=(\d+)", " ".join(words))[1] for words in trainings]
    assert steps == ["30", "20", "10"]
    ends = [
        f"{after(words, '--work-dir')}/iter_{n}.pth"
        for words, n in zip(trainings, steps, strict=True)
    ]
    assert "--load-from" not in trainings[0]
    assert [after(words, "--load-from") for words in trainings[1:]] == ends[:-1]
    rates = [[word for word in words if "optimizer.lr" in word] for words in trainings]
    assert rates == [[], *[["optim_wrapper.optimizer.lr=0.0006"]] * 2]

    data = [after(words, "--data") for words in trainings]
    assert len(set(data)) == 3
    made = [words for words in words_of(plan, "insert") if "0,1,2/4" in words]
    for commands in (made, words_of(plan, "phantom")):
        assert len({after(words, "--seed") for words in commands}) == 3
    (published,), (tested,) = words_of(plan, "publish"), words_of(plan, "test")
    checkpoint, model = published[2:4]
    assert checkpoint == ends[-1]
    assert model in tested
    assert after(published, "--average") == ends[-2]
    assert after(published, "--data") == data[-1]


def test_a_single_training_from_random_weights_is_published_as_it_is(tmp_path):
    (published,) = words_of(plan_of(tmp_path, "--iters", "5"), "publish")
    assert "--average" not in published


def test_the_test_is_the_same_for_every_seed_and_of_patients_apart(tmp_path):
    def test_steps(*options):
        plan = plan_of(tmp_path, *options)
        (insert,) = (words for words in words_of(plan, "insert") if "3/4" in words)
        return insert

    assert test_steps() == test_steps("--seed", "7", "--iters", "5")
    assert after(test_steps(), "--exclude-patients") == "A"
    for words in words_of(plan_of(tmp_path), "insert")[:-1]:
        assert after(words, "--exclude-patients") == "B"
        assert str(tmp_path / "b.mhd") not in words


def test_weights_to_start_from_are_gone_on_from_at_the_lower_rate(tmp_path):
    plan = plan_of(tmp_path, "--iters", "5", "--load-from", tmp_path / "old.pth")
    (training,) = words_of(plan, "train")
    assert after(training, "--load-from") == str(tmp_path / "old.pth")
    assert "optim_wrapper.optimizer.lr=0.0006" in training
    (published,) = words_of(plan, "publish")
    assert after(published, "--average") == str(tmp_path / "old.pth")


def test_every_option_arrives(tmp_path, monkeypatch):
    required = shlex.split(
        "OUT --scans a --test-scans b --crops c --patients p --test-patients B --train-patients A"
    )
    options = shlex.split("--iters 30 20 --seed 4 --workers 7 --load-from old.pth")
    unchanged = left_alone(models.make_model_options, required, options)
    assert unchanged == set(vars(models.make_model_options(required))) - {
        "iters", "seed", "workers", "load_from"
    }  # fmt: skip
    runs = record(monkeypatch, "lungdet_mmdet.commands.models.run_command_steps", 3)
    assert models.make_model([*required, *options]) == 3
    assert runs[0]["out_dir"] == Path("OUT")
    plan = plan_of(tmp_path, *options)
    assert [step.what for step in runs[0]["steps"]] == [step.what for step in plan]
    for command in ("insert", "prepare", "phantom"):
        assert {after(words, "--workers") for words in words_of(plan, command)} == {"7"}
    for words in words_of(plan, "insert"):
        assert after(words, "--patients") == str(tmp_path / "patients.csv")
        assert str(tmp_path / "crops") in words
