"""The wheel by itself, in an empty folder: the main job, and configs and models by name."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from lungdet_mmdet import versions

pytestmark = pytest.mark.slow

LEFT_OUT = (".*", "build", "dist", "demo", "tests", "*.egg-info", "__pycache__", "work_dirs")
FEW = "train_cfg.max_iters=2 train_cfg.val_interval=2 train_dataloader.batch_size=2"
IN_PROCESS = "train_dataloader.num_workers=0 val_dataloader.num_workers=0"
ALONE = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "LUNGDET_DATA")}

# The libraries are imported once for all.
SEVERAL = """
import sys
from lungdet_mmdet.__main__ import main

for line in sys.argv[1:]:
    sys.argv = ["lungdet", *line.split()]
    try:
        main()
    except SystemExit as end:
        if end.code:
            sys.exit(f"{line}: exit code {end.code}")
"""


class Installed:
    """An environment with the wheel, which sees the libraries of this one: nothing is fetched."""

    def __init__(self, root: Path) -> None:
        self.bin = root / "bin"
        self.folder = root / "empty"
        self.folder.mkdir()
        self.env = {**ALONE, "LUNGDET_OFFLINE": "1", "OMP_NUM_THREADS": "1"}

    def run(self, *words: str, code: int = 0) -> str:
        """Run a program of the environment in the empty folder; return what it printed."""
        done = subprocess.run(
            [self.bin / words[0], *words[1:]],
            cwd=self.folder, env=self.env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout

    def lungdet(self, *lines: str) -> str:
        """Run command lines of ``lungdet``: one by its script, several in one process."""
        if len(lines) == 1:
            return self.run("lungdet", *lines[0].split())
        return self.run("python", "-c", SEVERAL, *lines)

    def python(self, code: str) -> str:
        """Run Python code."""
        return self.run("python", "-c", code)


@pytest.fixture(scope="module")
def installed(repository, tmp_path_factory):
    root = tmp_path_factory.mktemp("wheel")
    shutil.copytree(repository, root / "source", ignore=shutil.ignore_patterns(*LEFT_OUT))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    offline = ["-q", "--no-deps", "--no-index"]
    build = [*pip, "wheel", *offline, "--no-build-isolation", "-w", root, root / "source"]
    subprocess.run(build, check=True, env=ALONE)
    venv.create(root / "env", symlinks=True)
    python = root / "env" / "bin" / "python"
    (wheel,) = root.glob("*.whl")
    subprocess.run([*pip, "--python", python, "install", *offline, wheel], check=True, env=ALONE)
    where = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    site = subprocess.check_output([python, "-c", where], text=True).strip()
    # Of this environment's folders only the libraries: its own installation is not followed.
    paths = sysconfig.get_paths()
    found = f"{paths['purelib']}\n{paths['platlib']}\n"
    # mmengine imports distutils, which since Python 3.12 comes by setuptools' file of this kind.
    for shim in Path(paths["purelib"]).glob("distutils-precedence.pth"):
        found += shim.read_text()
    (Path(site) / "libraries.pth").write_text(found)
    return Installed(root / "env")


def test_the_wheel_alone_does_the_main_job(installed):
    place = installed.python("import lungdet_mmdet; print(lungdet_mmdet.__file__)")
    assert Path(place.strip()).is_relative_to(installed.bin.parent)
    assert installed.lungdet("doctor").endswith("Usable.\n")

    config = "lung_deform_detr_phantom"
    natural = "train=natural val=natural test=natural"
    data = "--data prepared --work-dir work"
    alone = "--bootstrap 20 --cfg-options test_dataloader.num_workers=0"
    told = installed.lungdet(
        "phantom luna16 --scans 6 --seed 3 --workers 1",
        f"prepare luna16 prepared --config {config} --workers 0",
        f"split prepared --positive-rate {natural} --ratios 0.34 0.33 0.33",
        f"train {config} {data} --cfg-options {FEW} {IN_PROCESS}",
        f"test {config} work/iter_2.pth {data} {alone}",
    )
    assert "strict protocol" in told
    assert "CPM" in told
    figures = json.loads((installed.folder / "work" / "metrics.json").read_text())
    assert "AP50" in figures["metrics"]
    (scan, *_) = sorted(installed.folder.glob("luna16/subset*/*.mhd"))
    installed.lungdet(f"infer {scan} --out found")
    assert list((installed.folder / "found").rglob("candidates.json"))


BY_NAME = """
import lungdet_mmdet.plugin, numpy
from mmengine.config import Config
from mmengine.hub import get_model
from mmdet.apis import DetInferencer

assert Config.fromfile('lungdet_mmdet::lung_deform_detr.py').model.type == 'DeformableDETR'
open('own.py', 'w').write("_base_ = ['lungdet_mmdet::lung_dino.py']\\nmodel = dict(num_queries=7)")
assert Config.fromfile('own.py').model.num_queries == 7
model = get_model('lungdet_mmdet::lung_deform_detr_phantom', pretrained=True)
for scope in ('mmdet', 'lungdet_mmdet'):
    find = DetInferencer('lung_deform_detr_phantom', device='cpu', scope=scope, show_progress=False)
    assert find.model.dataset_meta['classes'] == ('nodule',)
    same = [bool((a == b).all()) for a, b in zip(model.state_dict().values(),
                                                 find.model.state_dict().values())]
    assert all(same) and len(same) > 100
    (found,) = find(numpy.zeros((96, 96, 3), numpy.uint8))['predictions']
    assert len(found['scores']) == len(found['bboxes']) > 0
"""


def test_configs_and_models_are_found_by_name(installed):
    installed.python(BY_NAME)


def test_the_package_brings_no_mm_stack_over_the_one_that_is_there(installed):
    code = "from importlib.metadata import requires; print('\\n'.join(requires('lungdet-mmdet')))"
    needed = installed.python(code).splitlines()
    always = {
        line.split("<")[0].split(">")[0].split("=")[0] for line in needed if "extra" not in line
    }
    assert always == set(versions.RANGES)
    for extra, table in (("mm", versions.MM), ("openmmlab", versions.OPENMMLAB)):
        asked = [line for line in needed if line.endswith(f'extra == "{extra}"')]
        assert all(any(line.startswith(name) for line in asked) for name in table)
