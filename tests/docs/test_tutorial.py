"""The tutorial runs as it is written, and prints what it says."""

import contextlib
import io
import os
import re
import runpy
import shlex
import sys

import pytest
import torch

pytest.importorskip("mmdet")

BLOCK = re.compile(r"^```(console|python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run_command(command):
    """Run ``python FILE ARGUMENTS`` in this process: importing torch anew takes seconds."""
    python, *arguments = shlex.split(command)
    assert python == "python", command
    before, sys.argv = sys.argv, arguments
    try:
        runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as end:
        if end.code:
            pytest.fail(f"{command}\n{end.code}")
    finally:
        sys.argv = before


def commands_of(text):
    """Return [(command, lines expected in its output)]."""
    found = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


@pytest.fixture
def workplace(repository, tmp_path, monkeypatch):
    """An empty folder that sees the repository's tools and configs."""
    for name in ("tools", "data_prep", "configs"):
        (tmp_path / name).symlink_to(repository / name)
    monkeypatch.chdir(tmp_path)
    # The tools set it; so it is forgotten afterwards whether it was there or not.
    monkeypatch.setenv("LUNGDET_DATA", "unused")
    monkeypatch.delenv("LUNGDET_DATA")
    monkeypatch.setenv("LUNGDET_OFFLINE", "1")
    threads = torch.get_num_threads()
    # On a busy machine several threads of tiny tensors wait for each other.
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_the_tutorial_runs_and_prints_what_it_says(repository, workplace):
    page = (repository / "docs" / "tutorial.md").read_text(encoding="utf-8")
    names: dict = {"__name__": "tutorial"}
    printed = ""
    for kind, text in BLOCK.findall(page):
        if kind == "text":
            assert printed == text
            continue
        steps = commands_of(text) if kind == "console" else [(text, [])]
        for step, expected in steps:
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                if kind == "console":
                    run_command(step)
                else:
                    exec(compile(step, "tutorial", "exec"), names)
            printed = output.getvalue()
            assert not [line for line in expected if line not in printed], printed

    made = {"fig1.png", "fig3.png", "model.pth", "luna16", "prepared", "work", "found"}
    assert made <= set(os.listdir(workplace / "tutorial"))


def test_links_of_the_documentation_lead_somewhere(repository):
    pages = [repository / "README.md", *sorted((repository / "docs").glob("*.md"))]
    missing = [
        f"{page.name}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert missing == []
