"""The full detectors train a step with Triton's kernels as with the other attentions."""

import os
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config

import lungdet_mmdet.plugin  # noqa: F401  (registers everything)
from lungdet_mmdet.ops import attention_choice
from tests.ops.test_training_step import one_image_batch

# Compiles both kernels to machine code, which needs no GPU; the interpreter would not see a type
# that the compiler refuses. Half-precision values with single-precision positions, as in training.
COMPILE = """
import triton, triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from lungdet_mmdet.ops import triton_attention as kernels

floats = {"value": "*fp16", "out": "*fp16", "grad_out": "*fp16", "locations": "*fp32",
          "attention": "*fp32", "grad_value": "*fp32", "grad_locations": "*fp32",
          "grad_attention": "*fp32", "shapes": "*i64", "starts": "*i64"}
constants = {"LEVELS": 4, "POINTS": 4, "ROWS": 32, "COLUMNS": 32, "FLOAT": tl.float32}
for kernel in (kernels._forward_kernel, kernels._backward_kernel):
    signature = {
        name: "constexpr" if name in constants else floats.get(name, "i32")
        for name in kernel.arg_names
    }
    places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(kernel, signature=signature, constexprs=places)
    compiled = triton.compile(source, target=GPUTarget("cuda", 80, 32))
    print("machine code of", len(compiled.asm["cubin"]) // 1000 * 1000, "bytes")
"""


def build(repository, name):
    """A config's detector with all its layers and fewer queries; samples off the pixel centres."""
    from mmdet.registry import MODELS
    from mmengine.registry import init_default_scope

    init_default_scope("mmdet")
    config = Config.fromfile(repository / "configs" / name)
    config.model.backbone.init_cfg = None
    config.model.num_queries = config.model.test_cfg.max_per_img = 50
    if "dn_cfg" in config.model:
        config.model.dn_cfg.group_cfg.num_dn_queries = 10
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MODELS.build(config.model)
        model.init_weights()
        for parameter_name, parameter in model.named_parameters():
            if "sampling_offsets.bias" in parameter_name:
                parameter.data += torch.rand_like(parameter) * 0.5 + 0.2
    return model.train()


def losses_and_gradient(model, attention):
    """Losses of one batch, and the length of the gradient of all weights."""
    with torch.random.fork_rng(devices=[]), attention_choice.attention_replaced(attention):
        torch.manual_seed(1)  # dropout and denoising queries
        losses = model.loss(*one_image_batch([[10.0, 10.0, 30.0, 34.0]]))
    model.zero_grad()
    sum(losses.values()).backward()
    gradients = [p.grad.norm() for p in model.parameters() if p.grad is not None]
    return {n: v.item() for n, v in losses.items()}, torch.stack(gradients).norm().item()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lung_deform_detr.py", "lung_dino.py"])
def test_one_step_of_the_full_detector_is_that_of_the_other_attentions(
    repository, triton_attention, monkeypatch, name
):
    if not torch.cuda.is_available():
        # 1024 rows at a time: what the interpreter takes is mostly per program.
        monkeypatch.setattr("lungdet_mmdet.ops.triton_attention.TILE", 2**15)
    calls = []

    def kernels(value, shapes, locations, weights):
        calls.append(len(value))
        areas = shapes.prod(1)
        return triton_attention.apply(
            value, shapes, areas.cumsum(0) - areas, locations, weights, 64
        )

    model = build(repository, name)
    with_kernels, slope = losses_and_gradient(model, kernels)
    assert len(calls) == 12  # six encoder and six decoder layers
    for other in (attention_choice.embedding_bag_attention, attention_choice.mmcv_attention()):
        losses, other_slope = losses_and_gradient(model, other)
        assert losses == pytest.approx(with_kernels, rel=1e-4)
        assert slope == pytest.approx(other_slope, rel=1e-3)


@pytest.mark.slow
def test_the_kernels_compile_for_a_gpu(repository, tmp_path):
    script = tmp_path / "compile_kernels.py"
    script.write_text(COMPILE)
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": str(repository), "TRITON_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("machine code") == 2
