import importlib.util
import os
import sys

import pytest
import torch

import lungdet_mmdet  # noqa: F401  (makes mmcv.ops importable)
from lungdet_mmdet.ops import StandInFinder
from lungdet_mmdet.ops.attention_choice import FUNCTION, KEPT

if not torch.cuda.is_available():
    # Triton reads it when it is imported: before any test is run, and for all of them.
    os.environ["TRITON_INTERPRET"] = "1"


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
    # Where the plugin was imported, its dispatch stands in the place of mmcv's function.
    attention = mmcv.ops.multi_scale_deform_attn
    own = getattr(attention, KEPT, getattr(attention, FUNCTION))
    monkeypatch.setattr(attention, FUNCTION, own)
    return mmcv.ops


@pytest.fixture(scope="session")
def triton_attention():
    """The kernels' function: compiled where there is a GPU, else in Triton's interpreter."""
    from lungdet_mmdet.ops.triton_attention import TritonAttention

    return TritonAttention
