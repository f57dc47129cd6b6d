import argparse
import errno
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

from lungdet_mmdet.__main__ import COMMANDS, dispatch
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.command_line import Terminated, run_and_exit

pytestmark = pytest.mark.reliability("one ending for all command lines, closed pipes")

ROOT = Path(__file__).parents[2]


def ended(main):
    with pytest.raises(SystemExit) as caught:
        run_and_exit(main)
    return caught.value.code


def raising(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize("code", [0, 1])
def test_the_exit_code_is_that_of_main(code):
    assert ended(lambda: code) == code


def test_an_error_with_a_remedy_is_one_sentence(capsys):
    assert ended(raising(LungDetError("a.mha: bad; mend it"))) == 1
    assert capsys.readouterr().err == "error: a.mha: bad; mend it\n"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "run/log"),
            "error: run/log: No space left on device; free some space and run the same command "
            "again\n",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "out/x.png"),
            "error: out/x.png: Permission denied; check the path and its permissions\n",
        ),
    ],
)
def test_errors_of_the_system_are_one_sentence(capsys, error, told):
    assert ended(raising(error)) == 1
    assert capsys.readouterr().err == told


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (Terminated(), 143)])
def test_interrupts_have_their_exit_codes(capsys, error, code):
    assert ended(raising(error)) == code
    assert capsys.readouterr().err == "interrupted; run the same command again to go on\n"


def test_an_interrupt_may_say_how_to_go_on(capsys):
    assert ended(raising(Terminated("begin at step 3"))) == 143
    assert capsys.readouterr().err == "interrupted; begin at step 3\n"


SCRIPT = """
import sys
from lungdet_mmdet.runs.command_line import run_and_exit
def main():
    for n in range(20000):
        print("line", n)
    sys.stdout.flush()
    print("told", file=sys.stderr)
    open(sys.argv[1], "w").close()
    return 0
run_and_exit(main)
"""


@pytest.mark.parametrize("shell", ["{} | head -1", "{} >&-", "{} 2>&- >/dev/null"])
def test_a_closed_pipe_stops_the_output_and_not_the_work(tmp_path, shell):
    (tmp_path / "script.py").write_text(SCRIPT)
    call = f"{sys.executable} {tmp_path / 'script.py'} {tmp_path / 'done'}"
    command = shell.format(call)
    if "|" in command:
        command += "; test ${PIPESTATUS[0]} = 0"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "done").is_file()
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


SUBCOMMANDS = {name: f"lungdet_mmdet.{target}" for name, (target, _) in COMMANDS.items()}
# Without doctor.py, which has to speak where this package cannot be imported.
TOOLS = [
    p
    for room in ("tools", "data_prep")
    for p in sorted((ROOT / room).glob("*.py"))
    if p.stem != "doctor"
]


@pytest.mark.parametrize("tool", TOOLS, ids=lambda path: path.stem)
def test_every_command_line_has_the_one_ending(tool):
    text = tool.read_text()
    assert "run_and_exit(main)" in text
    assert "sys.exit(main" not in text


def test_every_module_of_commands_holds_subcommands():
    modules = {
        f"lungdet_mmdet.commands.{p.stem}"
        for p in (ROOT / "lungdet_mmdet" / "commands").glob("[a-z]*.py")
    }
    used = {target.partition(":")[0] for target in SUBCOMMANDS.values()}
    assert modules == used - {"lungdet_mmdet.doctor"}


def parsers_of(parser):
    """Return a parser and those of its subcommands."""
    found = [parser]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            assert len(action._choices_actions) == len(action.choices)  # each with a help text
            found += [p for sub in action.choices.values() for p in parsers_of(sub)]
    return found


# `stock` hands its options on to mmdet's tools.
@pytest.mark.parametrize("name", [n for n in SUBCOMMANDS if n != "stock"])
def test_every_option_says_what_it_does(name, monkeypatch):
    seen = []

    def stop(parser, *_):
        seen.append(parser)
        raise SystemExit(0)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
    with pytest.raises(SystemExit):
        pkgutil.resolve_name(SUBCOMMANDS[name])()
    actions = [a for parser in parsers_of(seen[0]) for a in parser._actions]
    silent = [
        a.dest for a in actions if not isinstance(a, argparse._SubParsersAction) and not a.help
    ]
    assert silent == []


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_lungdet_lists_its_commands(words, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lungdet", *words])
    assert dispatch() == 0
    out = capsys.readouterr().out
    assert all(f"\n  {name} " in out for name in SUBCOMMANDS)


def test_a_misspelt_command_is_told_with_the_nearest(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lungdet", "tarin", "CONFIG"])
    assert dispatch() == 2
    assert "'tarin', the nearest is 'train'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        ("commands.data:phantom_options", ["out", "--scans", "1"]),
        ("commands.data:download_options", ["out"]),
        ("commands.data:convert_options", ["dicom", "out"]),
        ("commands.data:lidc_labels_options", ["luna16", "--out", "out"]),
        ("commands.models:infer_options", ["a.mhd"]),
        ("commands.preparing:prepare_options", ["luna16", "out"]),
        ("commands.recipes:reproduce_options", ["luna16", "out"]),
    ],
)
def test_no_workers_means_this_process_to_every_command(options, needed):
    read = pkgutil.resolve_name(f"lungdet_mmdet.{options}")
    assert read([*needed, "--workers", "0"]).workers == 0


def test_phantoms_are_made_in_this_process_without_workers(tmp_path, monkeypatch):
    from lungdet_mmdet.commands.data import phantom
    from lungdet_mmdet.phantom import cohort

    pools = []

    def none_written(out_dir, plan, *, executor, on_scan):
        pools.append(executor)
        return []

    monkeypatch.setattr(cohort, "write_cohort", none_written)
    assert phantom([str(tmp_path), "--scans", "1", "--workers", "0"]) == 0
    assert pools == [None]
    with pytest.raises(LungDetError, match="workers is -1"):
        phantom([str(tmp_path), "--scans", "1", "--workers", "-1"])
