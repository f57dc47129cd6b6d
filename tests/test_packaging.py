import re

import pytest

import lungdet_mmdet
from lungdet_mmdet.commands.training import run_test_options, train_options


def test_every_folder_with_modules_is_a_package(repository):
    folders = {path.parent for path in (repository / "lungdet_mmdet").rglob("*.py")}

    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_the_source_archive_holds_whatever_stands_beside_the_package(repository):
    lines = re.findall(
        r"^recursive-include (\S+) (.+)$", (repository / "MANIFEST.in").read_text(), re.MULTILINE
    )
    beside = {"benchmarks", "configs", "data_prep", "docs", "tests", "tools"}
    inside = {"lungdet_mmdet/reports/pages", "lungdet_mmdet/weights"}
    assert {folder for folder, _ in lines} == beside | inside
    left_out = [
        path
        for folder, patterns in lines
        for path in (repository / folder).rglob("*")
        if path.is_file()
        and not path.name.startswith(".")
        and "__pycache__" not in path.parts
        and not any(path.match(pattern) for pattern in patterns.split())
    ]
    assert left_out == []


def test_version_is_the_same_everywhere(repository):
    citation = (repository / "CITATION.cff").read_text()
    changelog = (repository / "CHANGELOG.md").read_text()
    version = lungdet_mmdet.__version__

    assert f"\nversion: {version}\n" in citation
    assert re.search(r"^## \[([^]]+)\]", changelog, flags=re.MULTILINE)[1] == version


def test_every_module_says_its_licence(repository):
    rooms = ("lungdet_mmdet", "tools", "data_prep", "benchmarks")
    paths = [repository / "setup.py", *(p for r in rooms for p in (repository / r).rglob("*.py"))]
    line = "# SPDX-License-Identifier: Apache-2.0\n"
    silent = [path for path in paths if ".mim" not in path.parts]
    assert [p for p in silent if not p.read_text(encoding="utf-8").startswith(line)] == []


@pytest.mark.parametrize(
    ("tool", "options", "line"),
    [("train", train_options, "config.py"), ("test", run_test_options, "config.py best.pth")],
)
def test_mim_can_call_the_tools(repository, capsys, tool, options, line):
    # mim runs .mim/tools/NAME.py, and looks in its help for an option of its own, --gpus.
    script = (repository / "tools" / f"{tool}.py").read_text()
    assert f"import {options.__name__.removesuffix('_options')} as main\n" in script
    args = options([*line.split(), "--launcher", "none", "--work-dir", "work"])
    assert args.launcher == "none"
    with pytest.raises(SystemExit):
        options(["-h"])
    assert "--gpus" not in capsys.readouterr().out
