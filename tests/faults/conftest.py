"""The corpus built once, and the command lines run over it once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.chest import GOOD_NAME
from tests.faults.command_runs import LEFT_OUT, CommandRun, read_list, run_command
from tests.faults.corpus import DICOM, METAIMAGE, OTHER_FORMATS, VOLUMES, Fault
from tests.faults.dicom_builders import uid_of
from tests.faults.metaimage_builders import write_mhd
from tests.faults.table_texts import GOOD
from tests.support.rehearsal import REHEARSAL_STEPS

# Few small slabs: these runs are about reading, not about finding.
QUICK = {"ResampleScan": {"spacing_zyx_mm": [5.0, 8.0, 8.0]}, "MIPSlabs": {"thickness_mm": 60.0}}
QUICK_STEPS = [{**step, **QUICK.get(step["type"], {})} for step in REHEARSAL_STEPS]


def build_all(root: Path, faults: Sequence[Fault]) -> dict[str, Path]:
    """Build every case in a folder of its own; return where each lies."""
    root.mkdir()
    return {fault.name: fault.build(root / fault.name, fault.name) for fault in faults}


@pytest.fixture(scope="session")
def luna16_of_faults(tmp_path_factory) -> dict[str, Path]:
    """A cohort in which every broken MetaImage lies beside one sound scan."""
    root = tmp_path_factory.mktemp("faults") / "luna16"
    paths = build_all(root, (*METAIMAGE, *VOLUMES))
    paths[GOOD_NAME] = write_mhd(root / GOOD_NAME, GOOD_NAME)
    (root / "annotations.csv").write_text(GOOD)
    return paths


@pytest.fixture(scope="session")
def dicom_of_faults(tmp_path_factory) -> dict[str, Path]:
    return build_all(tmp_path_factory.mktemp("faults") / "dicom", DICOM)


@pytest.fixture(scope="session")
def rehearsal_config(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("config") / "config.py"
    path.write_text(f"prep_pipeline = {REHEARSAL_STEPS!r}\n")
    return path


@pytest.fixture(scope="session")
def preparation(luna16_of_faults, rehearsal_config, tmp_path_factory) -> CommandRun:
    """data_prep/prepare_luna16.py on the cohort."""
    work = tmp_path_factory.mktemp("prepare")
    root, out = luna16_of_faults[GOOD_NAME].parents[1], work / "out"
    options = ("--config", rehearsal_config, "--workers", "1")
    done = run_command("data_prep/prepare_luna16.py", root, out, *options, tmp=work / "tmp")
    source = {path.stem: str(path) for path in luna16_of_faults.values()}
    records = [json.loads(p.read_text()) for p in out.glob("slabs/*/scan.json")]
    return CommandRun(
        out_dir=out,
        exit_code=done.returncode,
        stderr=done.stderr.decode(),
        reasons=tuple(entry["reason"] for entry in read_list(out / "failures.json")),
        results={source[record["seriesuid"]]: record for record in records},
        left_in_tmp=tuple(p.name for p in (work / "tmp").iterdir()),
    )


@pytest.fixture(scope="session")
def inference(luna16_of_faults, dicom_of_faults, tmp_path_factory) -> CommandRun:
    """tools/infer.py on every case, each named by itself."""
    from lungdet_mmdet.apis.model_file import write_model_file
    from tests.support.untrained_model import untrained_model

    work = tmp_path_factory.mktemp("infer")
    others = build_all(work / "others", OTHER_FORMATS)
    model = untrained_model()
    config = {**model.config, "prep_pipeline": QUICK_STEPS}
    write_model_file(work / "model.pth", replace(model, config=config))
    inputs = [*luna16_of_faults.values(), *others.values(), *dicom_of_faults.values()]
    options = ("--checkpoint", work / "model.pth", "--out", work / "out", "--device", "cpu")
    done = run_command("tools/infer.py", *inputs, *options, tmp=work / "tmp")
    contents = [json.loads(p.read_text()) for p in work.glob("out/*/candidates.json")]
    return CommandRun(
        out_dir=work / "out",
        exit_code=done.returncode,
        stderr=done.stderr.decode(),
        reasons=tuple(entry["reason"] for entry in read_list(work / "out" / "failures.json")),
        results={content["source"]: content for content in contents},
        left_in_tmp=tuple(p.name for p in (work / "tmp").iterdir()),
    )


@pytest.fixture(scope="session")
def conversion(dicom_of_faults, tmp_path_factory) -> CommandRun:
    """data_prep/convert_dicom.py on the tree of all DICOM cases."""
    work = tmp_path_factory.mktemp("convert")
    root, out = next(iter(dicom_of_faults.values())).parent, work / "out"
    done = run_command("data_prep/convert_dicom.py", root, out, "--workers", "1", tmp=work / "tmp")
    source = {uid_of(name): str(path) for name, path in dicom_of_faults.items()}
    rejects, converted = (read_list(out / name) for name in ("rejects.json", "converted.json"))
    return CommandRun(
        out_dir=out,
        exit_code=done.returncode,
        stderr=done.stderr.decode(),
        reasons=tuple(
            f"{source.get(r['seriesuid'])}: "
            f"{LEFT_OUT if r['stage'] == 'unsuitable' else ''}{r['reason']}"
            for r in rejects
        ),
        results={source[c["seriesuid"]]: c for c in converted if c["seriesuid"] in source},
        left_in_tmp=tuple(p.name for p in (work / "tmp").iterdir()),
    )
