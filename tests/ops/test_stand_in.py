import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import lungdet_mmdet
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.ops import install_finder, is_stand_in


def test_any_other_op_raises_with_its_name_and_the_remedy(stand_in):
    assert hasattr(stand_in, "carafe_forward")
    with pytest.raises(LungDetError, match=r"'carafe_forward'.*mim install onedl-mmcv"):
        stand_in.carafe_forward(torch.zeros(1), 3, group_size=1)


def test_the_error_arrives_through_mmcv(stand_in, monkeypatch):
    import mmcv.ops  # noqa: F401

    monkeypatch.setattr(sys.modules["mmcv.ops.roi_pool"], "ext_module", stand_in)
    with pytest.raises(LungDetError, match="'roi_pool_forward'"):
        sys.modules["mmcv.ops.roi_pool"].roi_pool(torch.zeros(1, 1, 4, 4), torch.zeros(1, 5), 2)


def test_questions_of_python_about_the_module_are_not_ops(stand_in):
    for name in ("__file__", "__path__", "_private"):
        assert not hasattr(stand_in, name)


def test_the_compiler_is_not_made_up(stand_in):
    assert stand_in.get_compiler_version().startswith("not compiled")
    assert stand_in.get_compiling_cuda_version().startswith("not compiled")


def test_the_finder_stands_last_once_and_finds_nothing_else(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", ["other"])
    install_finder()
    install_finder()
    assert sys.meta_path[0] == "other"
    assert len(sys.meta_path) == 2
    assert sys.meta_path[1].find_spec("mmcv", None) is None
    assert sys.meta_path[1].find_spec("mmcv._ext2", None) is None
    assert sys.meta_path[1].find_spec("mmcv._ext", None) is not None


def test_is_stand_in_looks_at_the_module_that_is_loaded(stand_in, monkeypatch):
    monkeypatch.setitem(sys.modules, "mmcv._ext", stand_in)
    assert is_stand_in()
    monkeypatch.setitem(sys.modules, "mmcv._ext", ModuleType("mmcv._ext"))
    assert not is_stand_in()


def run_beside_fake_mmcv(folder: Path, code: str, extension: str | None) -> str:
    """Run code in a new Python where ``mmcv`` is an empty package, with this ``_ext`` if any."""
    package = folder / "mmcv"
    package.mkdir()
    (package / "__init__.py").touch()
    if extension is not None:
        (package / "_ext.py").write_text(extension)
    root = Path(lungdet_mmdet.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(root)])},
        capture_output=True,
        text=True,
    )
    return done.stdout + done.stderr


STATE = """
import lungdet_mmdet
from lungdet_mmdet.ops import is_stand_in
print('stand-in:', is_stand_in())
"""


def test_without_a_compiled_extension_the_stand_in_is_found(tmp_path):
    assert "stand-in: True" in run_beside_fake_mmcv(tmp_path, STATE, None)


def test_a_compiled_extension_is_not_replaced(tmp_path):
    code = STATE + "import mmcv._ext\nprint(mmcv._ext.nms, is_stand_in())"
    out = run_beside_fake_mmcv(tmp_path, code, "nms = 'compiled nms'")
    assert "stand-in: False" in out
    assert "compiled nms False" in out


def test_a_broken_extension_is_not_hidden(tmp_path):
    code = "import lungdet_mmdet, mmcv._ext"
    out = run_beside_fake_mmcv(tmp_path, code, "raise ImportError('undefined symbol')")
    assert "ImportError: undefined symbol" in out


def test_a_broken_extension_is_told_with_what_to_do(tmp_path):
    code = "from lungdet_mmdet.ops import check_extension; check_extension()"
    out = run_beside_fake_mmcv(tmp_path, code, "raise ImportError('undefined symbol: _ZN3c10')")
    assert "LungDetError: mmcv's compiled ops do not load with torch" in out
    assert "undefined symbol: _ZN3c10" in out
    assert "--no-binary onedl-mmcv" in out


def test_importing_the_package_does_not_import_torch():
    code = "import sys, lungdet_mmdet; print(sorted({'torch', 'mmcv', 'mmdet'} & set(sys.modules)))"
    root = Path(lungdet_mmdet.__file__).parents[1]
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"


def test_mmcv_and_mmengine_find_ops():
    from mmcv.utils.ext_loader import check_ops_exist
    from mmengine.utils.dl_utils import mmcv_full_available

    assert mmcv_full_available()
    if sys.version_info < (3, 14):  # mmcv asks through pkgutil.find_loader, gone in 3.14
        assert check_ops_exist()
