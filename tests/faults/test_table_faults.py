"""Every odd annotations.csv: read through, or refused by line before anything is done."""

import importlib.util
import re

import pytest

from lungdet_mmdet.errors import LungDetError
from tests.faults.chest import GOOD_NAME
from tests.faults.command_runs import REMEDY, REPOSITORY
from tests.faults.corpus import TABLES
from tests.faults.metaimage_builders import write_mhd

pytestmark = pytest.mark.reliability("fault corpus: tables")

REFUSED = [fault for fault in TABLES if fault.refused]
READ = [fault for fault in TABLES if not fault.refused]


@pytest.fixture(scope="module")
def main():
    """The command line of the preparation."""
    path = REPOSITORY / "data_prep" / "prepare_luna16.py"
    spec = importlib.util.spec_from_file_location("prepare_for_tables", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture
def prepare(main, rehearsal_config, tmp_path, capsys):
    """Prepare one sound scan with that table; returns exit code, output and errors."""

    def run(content):
        write_mhd(tmp_path / "luna16", GOOD_NAME)
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / "luna16" / "annotations.csv").write_bytes(data)
        options = ["--config", str(rehearsal_config), "--workers", "0"]
        try:
            code = main([str(tmp_path / "luna16"), str(tmp_path / "out"), *options])
        except LungDetError as error:  # run_and_exit tells it and ends with 1
            return 1, capsys.readouterr().out, f"error: {error}"
        return code, *capsys.readouterr()

    return run


@pytest.mark.parametrize("fault", REFUSED, ids=lambda fault: fault.name)
def test_a_table_that_could_mislead_is_refused(prepare, tmp_path, fault):
    code, _, errors = prepare(fault.content)
    assert code == 1
    assert re.search(fault.says, errors), errors
    assert f"{tmp_path}/luna16/annotations.csv" in errors
    assert REMEDY.search(errors), errors
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("fault", READ, ids=lambda fault: fault.name)
def test_a_table_that_is_merely_odd_is_read(prepare, tmp_path, fault):
    code, output, _ = prepare(fault.content)
    assert code == 0
    assert re.search(fault.says, output), output
    assert (tmp_path / "out" / "slabs" / GOOD_NAME / "scan.json").is_file()
