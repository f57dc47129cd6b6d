import importlib.util
import sys

import pytest

import lungdet_mmdet  # noqa: F401  (makes mmcv.ops importable)
from lungdet_mmdet.ops.stand_in import StandInFinder


@pytest.fixture(scope="session")
def stand_in():
    """The stand-in module, made apart from whatever ``mmcv._ext`` is loaded here."""
    spec = StandInFinder().find_spec("mmcv._ext", None)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def mmcv_ops(stand_in, monkeypatch):
    """``mmcv.ops`` calling the stand-in, also where mmcv is compiled."""
    import mmcv.ops

    # Through sys.modules: the functions mmcv.ops.nms and roi_align hide the modules of that name.
    for name in ("focal_loss", "multi_scale_deform_attn", "nms", "roi_align"):
        monkeypatch.setattr(sys.modules[f"mmcv.ops.{name}"], "ext_module", stand_in)
    return mmcv.ops
