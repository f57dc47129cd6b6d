import builtins

import pytest
import torch
from mmcv.ops import multi_scale_deform_attn

import lungdet_mmdet.plugin  # noqa: F401  (installs the dispatch)
from lungdet_mmdet.ops import attention_choice as choice
from lungdet_mmdet.ops import is_stand_in

GPU, CPU = torch.device("cuda"), torch.device("cpu")
NO_COMPILED_OP = is_stand_in()


@pytest.fixture
def triton_runs(monkeypatch, triton_attention):
    """As on a GPU where the kernels compile."""
    monkeypatch.setattr(choice, "triton_fault", lambda device: None)
    monkeypatch.delenv(choice.CHOICE, raising=False)
    return triton_attention


@pytest.fixture
def triton_fails(monkeypatch):
    monkeypatch.setattr(choice, "triton_fault", lambda device: "no compiler")
    monkeypatch.delenv(choice.CHOICE, raising=False)


def test_a_gpu_takes_triton_and_a_cpu_the_bag(triton_runs):
    assert choice.kernel_for(GPU) is triton_runs
    assert choice.kernel_for(CPU) is choice.BagAttention


def test_a_gpu_without_triton_takes_the_bag(triton_fails):
    assert choice.kernel_for(GPU) is choice.BagAttention


def test_deterministic_algorithms_take_the_bag_unless_triton_is_asked_for(triton_runs, monkeypatch):
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert choice.kernel_for(GPU) is choice.BagAttention
    monkeypatch.setenv(choice.CHOICE, choice.TRITON)
    assert choice.kernel_for(GPU) is triton_runs


def test_the_environment_can_ask_for_the_bag(triton_runs, monkeypatch):
    monkeypatch.setenv(choice.CHOICE, choice.BAG)
    assert choice.kernel_for(GPU) is choice.BagAttention


def test_what_runs_is_said(triton_runs, monkeypatch):
    monkeypatch.setattr(multi_scale_deform_attn, choice.FUNCTION, choice.CudaAttention)
    assert choice.describe_attention(GPU) == (
        "deformable attention on cuda: Triton kernels (lungdet_mmdet)"
    )
    assert not choice.is_slow_on(GPU)
    monkeypatch.setattr(choice, "triton_fault", lambda device: "no compiler")
    assert choice.describe_attention(GPU).endswith("one embedding bag, slower: no compiler")
    assert choice.is_slow_on(GPU)
    assert not choice.is_slow_on(CPU)
    assert choice.describe_attention(CPU).endswith("one embedding bag (lungdet_mmdet)")
    monkeypatch.setattr(multi_scale_deform_attn, choice.FUNCTION, object())
    monkeypatch.setattr(choice, "is_stand_in", lambda: False)
    assert choice.describe_attention(GPU).endswith("mmcv's compiled op")


def test_missing_triton_is_a_fault_with_its_reason(monkeypatch):
    real = builtins.__import__

    def without_triton(name, *args, **options):
        if name == "triton":
            raise ImportError("No module named 'triton'")
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without_triton)
    assert choice._triton_fault(GPU) == "Triton cannot be imported (No module named 'triton')"


def test_kernels_that_raise_or_err_are_a_fault(monkeypatch):
    def broken(device):
        raise RuntimeError("ptxas not found\nand more")

    monkeypatch.setattr(choice, "_difference_from_bag", broken)
    assert "RuntimeError: ptxas not found)" in choice._triton_fault(GPU)
    monkeypatch.setattr(choice, "_difference_from_bag", lambda device: 0.5)
    assert choice._triton_fault(GPU) == ("Triton's kernels are off by 5.0e-01 of the largest value")


def test_the_trial_finds_no_difference_where_there_is_none(triton_attention):
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    assert choice._difference_from_bag(device) < 1e-5


@pytest.mark.skipif(not NO_COMPILED_OP, reason="mmcv's compiled op is here and stays in its place")
def test_the_dispatch_stands_in_the_place_of_mmcvs_function():
    assert getattr(multi_scale_deform_attn, choice.FUNCTION) is choice.CudaAttention
    assert getattr(multi_scale_deform_attn, choice.KEPT).__name__ == choice.FUNCTION


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_positions_keep_their_precision_under_half_precision_values(dtype):
    # On a map 1000 pixels wide bfloat16 would take this point 0.8 pixels to the right.
    value = torch.zeros(1, 1000, 1, 1, dtype=dtype)
    value[0, 901] = 1.0
    shapes, starts = torch.tensor([[1, 1000]]), torch.tensor([0])
    where = torch.tensor([0.9015, 0.5]).view(1, 1, 1, 1, 1, 2)
    out = choice.CudaAttention.apply(value, shapes, starts, where, torch.ones(1, 1, 1, 1, 1), 64)
    assert out.item() == pytest.approx(1.0, abs=0.01)
