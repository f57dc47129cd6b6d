"""Imports point down: rooms have an order, modules no circle, and the linter guards the layers."""

import ast
import subprocess
import sys

# From the bottom up; a room imports from those before it only. "" is the package itself.
ROOMS = (
    "errors", "versions", "ops", "", "models", "runs", "ct",
    "annotations", "phantom", "luna16", "scoring", "splits", "reports", "semireal", "datasets",
    "preparation", "engine", "evaluation", "plugin", "registry", "utils", "apis", "inference",
    "doctor", "commands", "__main__",
)  # fmt: skip


def imports_by_module(package):
    """Return the modules of the package, each with those that it imports anywhere."""
    paths = {
        ".".join(path.relative_to(package).with_suffix("").parts)
        .removesuffix("__init__")
        .strip("."): path
        for path in package.rglob("*.py")
    }
    return {name: set(_imported(path, paths)) for name, path in paths.items()}


def _imported(path, modules):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [n if _inside(n) in modules else node.module for n in names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        yield from (_inside(n) for n in names if n.split(".")[0] == "lungdet_mmdet")


def _inside(name):
    return name.removeprefix("lungdet_mmdet").strip(".")


def test_every_room_imports_from_rooms_below_it(repository):
    upward = [
        f"{module} imports {other}"
        for module, imported in imports_by_module(repository / "lungdet_mmdet").items()
        for other in imported
        if ROOMS.index(other.split(".")[0]) > ROOMS.index(module.split(".")[0])
    ]
    assert upward == []


def test_nothing_that_is_used_imports_from_the_tests(repository):
    folders = ("lungdet_mmdet", "tools", "data_prep", "benchmarks")
    importing = [
        str(path.relative_to(repository))
        for folder in folders
        for path in (repository / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.ImportFrom, ast.Import))
        for name in [getattr(node, "module", None) or node.names[0].name]
        if name.split(".")[0] == "tests"
    ]
    assert importing == []


def test_no_modules_import_each_other_in_a_circle(repository):
    left = imports_by_module(repository / "lungdet_mmdet")
    # Take away, again and again, what imports nothing that is still there; a circle stays.
    while free := [
        name for name, imported in left.items() if not (imported & left.keys()) - {name}
    ]:
        for name in free:
            del left[name]
    assert sorted(left) == []


def test_the_plugin_loads_no_maker_of_phantoms():
    code = (
        "import sys, lungdet_mmdet.plugin\n"
        "loaded = [m for m in sys.modules if m.startswith('lungdet_mmdet.phantom.')]\n"
        "sys.exit(f'loaded: {loaded}' if loaded else 0)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def run_ruff(repository, source, filename):
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "ruff",
            "check",
            "--select",
            "TID251",
            "--stdin-filename",
            str(repository / filename),
            "-",
        ],
        input=source,
        capture_output=True,
        text=True,
        cwd=repository,
        check=False,
    )


def test_science_layer_may_not_import_torch(repository):
    result = run_ruff(repository, "import torch\n", "lungdet_mmdet/ct/breach.py")
    assert result.returncode == 1
    assert "TID251" in result.stdout


def test_science_layer_may_not_import_the_mm_layer(repository):
    source = "from lungdet_mmdet.datasets.transforms import CLAHE\n"
    result = run_ruff(repository, source, "lungdet_mmdet/scoring/breach.py")
    assert result.returncode == 1
    assert "TID251" in result.stdout


def test_mm_layer_may_import_torch(repository):
    result = run_ruff(repository, "import torch\n", "lungdet_mmdet/datasets/transforms/fine.py")
    assert result.returncode == 0, result.stdout


def test_science_layer_loads_without_any_framework():
    code = (
        "import sys\n"
        "import lungdet_mmdet.ct.slabs, lungdet_mmdet.ct.reading, lungdet_mmdet.ct.resample\n"
        "import lungdet_mmdet.annotations.tables, lungdet_mmdet.scoring.slab_records\n"
        "bad = {'torch', 'mmengine', 'mmcv', 'mmdet'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {bad}' if bad else 0)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
