"""What the documentation names is there: files, modules, tools and their options."""

import ast
import re

import pytest

from lungdet_mmdet.__main__ import COMMANDS

PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "configs/README.md",
    "lungdet_mmdet/weights/README.md",
)
FOLDERS = ("lungdet_mmdet", "tools", "data_prep", "configs", "docs", "tests")
# Options of the programs that docs run besides those of this repository.
PASSED_ON = "tools/stock.py"  # hands its options to one of mmdet's own tools
OTHERS = {"--nproc-per-node", "--nnodes", "--rdzv-backend", "--rdzv-endpoint", "--no-deps"}
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")
TOOL = re.compile(r"(?:tools|data_prep)/\w+\.py")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


def pages(repository):
    return [*(repository / page for page in PAGES), *sorted((repository / "docs").glob("*.md"))]


def commands(text):
    """Return (tool, options) of every command of one of the tools, lines joined at backslashes."""
    found = []
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        for part in re.split(r"&&|;|\|", line.strip("`$ ")):
            tool = TOOL.search(part)
            if tool and re.match(r"\s*(?:\S+=\S+ )*(?:\S*python3?|torchrun|srun)\s", part):
                found.append((tool[0], set(OPTION.findall(part[tool.end() :]))))
    return found


def test_links_lead_to_files(repository):
    missing = [
        f"{page.relative_to(repository)}: {target}"
        for page in pages(repository)
        for target in LINK.findall(page.read_text())
        if not (page.parent / target).exists()
    ]
    assert missing == []


def test_files_named_in_full_exist(repository):
    missing = []
    for page in pages(repository):
        for name in re.findall(r"`([\w./-]+\.(?:py|md|toml|txt|svg|png))`", page.read_text()):
            if name.startswith(tuple(f"{folder}/" for folder in FOLDERS)):
                missing += [f"{page.name}: {name}"] * (not (repository / name).exists())
    assert missing == []


def test_configs_named_exist(repository):
    names = {
        name
        for page in pages(repository)
        for name in re.findall(r"\b(lung_\w+\.py)\b", page.read_text())
    }
    assert sorted(n for n in names if not (repository / "configs" / n).is_file()) == []


def source_of_command(repository, face):
    """Return the source of a tool: where it is a subcommand's, of its function and all it names."""
    command = re.search(r"from lungdet_mmdet\.(commands\.\w+) import (\w+) as main", face)
    if command is None:
        return face
    folder = repository / "lungdet_mmdet"
    functions = {}
    for name in ("commands.__init__", "runs.command_line", command[1]):
        text = (folder / (name.replace(".", "/") + ".py")).read_text()
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef):
                functions[node.name] = ast.get_source_segment(text, node)
    wanted, found = [command[2]], {}
    while wanted:
        name = wanted.pop()
        if name in functions and name not in found:
            found[name] = functions[name]
            wanted += re.findall(r"\w+", functions[name])
    return "\n".join(found.values())


def subcommands(text):
    """Return (subcommand, options) of every ``lungdet SUBCOMMAND`` in code."""
    text = re.sub(r"\\\n\s*", " ", text)
    in_blocks = re.findall(r"^```.*?^```|^    .*$", text, re.MULTILINE | re.DOTALL)
    in_lines = re.findall(r"`(lungdet [^`\n]+)`", text)
    return [
        (match[1], set(OPTION.findall(match[2])))
        for code in [*in_blocks, *in_lines]
        for match in re.finditer(r"\blungdet ([a-z][a-z-]*)([^\n;|#]*)", code)
    ]


def test_subcommands_are_there_with_their_options(repository):
    unknown, n_seen = [], 0
    for page in pages(repository):
        for name, options in subcommands(page.read_text()):
            n_seen += 1
            if name not in COMMANDS:
                unknown.append(f"{page.name}: lungdet {name}")
                continue
            module, function = COMMANDS[name][0].split(":")
            known = OTHERS | {"--help"}
            if module.startswith("commands."):
                face = f"from lungdet_mmdet.{module} import {function} as main"
                source = source_of_command(repository, face)
                known = known | set(re.findall(r'"(--[a-z][a-z-]+)"', source))
            unknown += [f"{page.name}: lungdet {name} {o}" for o in sorted(options - known)]
    assert unknown == []
    assert n_seen > 20


def test_subcommands_are_found():
    text = "```\nx=1 lungdet a-b X \\\n  --c-d  # --e\n```\nlungdet is `lungdet f --gg 2`."
    assert subcommands(text) == [("a-b", {"--c-d"}), ("f", {"--gg"})]


def test_commands_use_options_that_their_tool_has(repository):
    unknown, n_seen = [], 0
    for page in pages(repository):
        for tool, options in commands(page.read_text()):
            n_seen += 1
            if tool == PASSED_ON:
                continue
            source = source_of_command(repository, (repository / tool).read_text())
            known = set(re.findall(r'"(--[a-z][a-z-]+)"', source)) | OTHERS | {"--help"}
            unknown += [f"{page.name}: {tool} {option}" for option in sorted(options - known)]
    assert unknown == []
    assert n_seen > 20


@pytest.mark.parametrize(
    "text", ["$ python tools/a.py X --bee 1 \\\n    --c-d", "x=1 python tools/a.py --bee --c-d"]
)
def test_commands_are_found(text):
    assert commands(text) == [("tools/a.py", {"--bee", "--c-d"})]
