"""Long jobs as command lines: in order, told, passed over when done, stopped at a failure."""

import sys

import pytest

from lungdet_mmdet.commands import models, recipes
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs import command_line
from lungdet_mmdet.runs.command_line import CommandStep, run_command_steps


@pytest.fixture(autouse=True)
def scripts(tmp_path, monkeypatch):
    """Let `lungdet NAME.py` run a script of the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command_line, "own_command", lambda *words: [sys.executable, *words])


def script(folder, name, text):
    (folder / name).write_text(text)
    return f"lungdet {name}"


def test_steps_run_in_order_where_they_are_called(tmp_path, capfd):
    name = script(tmp_path, "add.py", "import sys; open('log', 'a').write(sys.argv[1] + ' ')")
    steps = [CommandStep("first", f"{name} 1"), CommandStep("second", f"{name} 'two words'")]
    assert run_command_steps(steps, tmp_path / "out") == 0
    assert (tmp_path / "log").read_text() == "1 two words "
    out = capfd.readouterr().out
    assert "=== 1/2  first" in out
    assert f"$ {name} 1" in out


def test_a_step_whose_result_is_there_is_passed_over(tmp_path, capfd):
    name = script(tmp_path, "fail.py", "raise SystemExit(3)")
    result = tmp_path / "result"
    result.touch()
    assert run_command_steps([CommandStep("done", name, result)], tmp_path) == 0
    assert "done before" in capfd.readouterr().out


def test_a_failure_ends_the_job_with_its_exit_code(tmp_path, capfd):
    fail = script(tmp_path, "fail.py", "raise SystemExit(3)")
    write = script(tmp_path, "write.py", "open('late', 'w')")
    steps = [CommandStep("fails", fail), CommandStep("never", write)]
    assert run_command_steps(steps, tmp_path / "out") == 3
    assert not (tmp_path / "late").exists()
    assert "step 1 failed with exit code 3" in capfd.readouterr().err


def test_a_step_that_failed_in_part_is_gone_on_from_and_told(tmp_path, capfd):
    name = script(tmp_path, "end.py", "import sys; sys.exit(int(sys.argv[1]))")
    write = script(tmp_path, "write.py", "open('late', 'w')")
    steps = [CommandStep("some scans", f"{name} 1", None, True), CommandStep("rest", write)]
    assert run_command_steps(steps, tmp_path / "out") == 1
    assert (tmp_path / "late").exists()
    assert "going on" in capfd.readouterr().err
    # An interrupt is no failure in part.
    steps = [CommandStep("cut", f"{name} 130", None, True)]
    assert run_command_steps(steps, tmp_path / "another") == 130


def test_a_folder_begun_with_other_options_is_refused(tmp_path):
    name = script(tmp_path, "add.py", "import sys; open('log', 'a').write(sys.argv[1] + ' ')")
    assert run_command_steps([CommandStep("add", f"{name} 500 --workers 2")], tmp_path) == 0
    assert run_command_steps([CommandStep("add", f"{name} 500 --workers 1")], tmp_path) == 0
    with pytest.raises(LungDetError, match=r"other options.*\n.*add.py 500\n.*add.py 1000"):
        run_command_steps([CommandStep("add", f"{name} 1000 --workers 2")], tmp_path)
    assert (tmp_path / "log").read_text() == "500 500 "


def test_a_step_that_failed_may_be_tried_with_other_options(tmp_path):
    name = script(tmp_path, "end.py", "import sys; sys.exit(int(sys.argv[1]))")
    assert run_command_steps([CommandStep("train", f"{name} 1")], tmp_path) == 1
    assert run_command_steps([CommandStep("train", f"{name} 130")], tmp_path) == 130
    # An interrupted one has left a part of its work.
    with pytest.raises(LungDetError, match="other options"):
        run_command_steps([CommandStep("train", f"{name} 0")], tmp_path)


LUNGS = "--scans a --test-scans b --crops c --patients p --test-patients B --train-patients A"


@pytest.mark.parametrize(
    ("plan", "parse", "options"),
    [
        (recipes.demo_plan, recipes.demo_options, "OUT"),
        (recipes.ablation_plan, recipes.ablation_options, "OUT"),
        (recipes.reproduce_plan, recipes.reproduce_options, "LUNA16 OUT"),
        (recipes.reproduce_plan, recipes.reproduce_options, "LUNA16 OUT --protocol fold"),
        (models.make_model_plan, models.make_model_options, f"OUT {LUNGS} --iters 9 9"),
    ],
    ids=["demo", "ablation", "reproduce", "reproduce in folds", "make-model"],
)
def test_a_job_that_was_cut_off_is_not_taken_for_another(
    tmp_path, monkeypatch, plan, parse, options
):
    calls = []
    monkeypatch.setattr(command_line.subprocess, "call", lambda words: calls.append(words) or 0)
    steps = plan(parse(options.split()))
    for _ in range(2):
        assert run_command_steps(steps, tmp_path) == 0
    assert len(calls) == 2 * len(steps)
