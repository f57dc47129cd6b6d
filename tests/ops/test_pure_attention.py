import pytest
import torch
from mmcv.ops import MultiScaleDeformableAttention, multi_scale_deform_attn

import lungdet_mmdet.plugin  # noqa: F401  (installs the replacement)
from lungdet_mmdet.ops import attention_choice

SHAPES = torch.tensor([[6, 5], [3, 2]])
KEYS = 36


@pytest.fixture
def layer():
    """An attention layer with random weights and offsets of several pixels."""
    torch.manual_seed(0)
    layer = MultiScaleDeformableAttention(
        embed_dims=16, num_heads=4, num_levels=2, num_points=3, batch_first=True
    ).eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    return layer


def attend(layer, query):
    """The layer's output at one reference point per key, as the encoder calls it."""
    batch = len(query)
    reference = torch.rand(batch, KEYS, 2, 2, generator=torch.Generator().manual_seed(1))
    return layer(
        query,
        value=query,
        reference_points=reference,
        spatial_shapes=SHAPES,
        level_start_index=torch.tensor([0, 30]),
    )


def test_a_layer_of_mmcv_on_a_cpu_calls_the_replacement(layer, monkeypatch):
    called = []
    monkeypatch.setattr(
        multi_scale_deform_attn,
        attention_choice.NAME,
        lambda *inputs: called.append(1) or attention_choice.embedding_bag_attention(*inputs),
    )
    attend(layer, torch.randn(1, KEYS, 16))
    assert called == [1]


def test_the_replacement_is_in_place_and_installed_once():
    attention_choice.install()
    assert (
        getattr(multi_scale_deform_attn, attention_choice.NAME)
        is attention_choice.embedding_bag_attention
    )
    assert attention_choice.mmcv_attention() is not attention_choice.embedding_bag_attention


def test_outputs_and_gradients_of_a_layer_equal_those_with_mmcv_attention(layer):
    query = torch.randn(2, KEYS, 16, generator=torch.Generator().manual_seed(2))
    results = []
    for restored in (False, True):
        inputs = query.clone().requires_grad_()
        if restored:
            with attention_choice.attention_replaced(attention_choice.mmcv_attention()):
                out = attend(layer, inputs)
        else:
            out = attend(layer, inputs)
        results.append((out, *torch.autograd.grad(out.sin().sum(), [inputs, *layer.parameters()])))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


def test_mmcv_has_its_own_function_within_the_block_and_loses_it_after_an_error():
    with attention_choice.attention_replaced(attention_choice.mmcv_attention()):
        inside = getattr(multi_scale_deform_attn, attention_choice.NAME)
    assert inside is attention_choice.mmcv_attention()
    with (
        pytest.raises(ZeroDivisionError),
        attention_choice.attention_replaced(attention_choice.mmcv_attention()),
    ):
        1 / 0  # noqa: B018
    after = getattr(multi_scale_deform_attn, attention_choice.NAME)
    assert after is attention_choice.embedding_bag_attention
