import pytest
import torch
from torch import nn

from halve.techniques.compression.pruning.structured.attention import OpenAttention, can_be_opened, open_attentions


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_opened_it_is_the_same_function(batch_first, bias):
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(16, 4, batch_first=batch_first, bias=bias).eval()
    if bias:
        nn.init.normal_(attention.in_proj_bias)
    query, key = torch.randn(3, 5, 16), torch.randn(3, 7, 16)
    padding = torch.zeros(3, 7, dtype=torch.bool)
    padding[1, 4:] = True
    mask = torch.randn(5, 7)
    given = (query, key, key) if batch_first else tuple(t.transpose(0, 1) for t in (query, key, key))
    arguments = {"key_padding_mask": padding.float().masked_fill(padding, float("-inf")), "attn_mask": mask}
    expected = attention(*given, need_weights=False, **arguments)[0]
    found, weights = OpenAttention(attention)(*given, **arguments)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert weights is None


def test_a_mask_per_head_reaches_its_head():
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    states, mask = torch.randn(3, 4, 8), torch.rand(6, 4, 4) < 0.3
    mask[:, :, 0] = False
    expected = attention(states, states, states, attn_mask=mask, need_weights=False)[0]
    torch.testing.assert_close(OpenAttention(attention)(states, states, states, attn_mask=mask)[0], expected)


def test_inside_a_transformer_layer_the_fast_path_does_not_skip_it():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).eval()
    states = torch.randn(2, 5, 16)
    with torch.no_grad():
        expected = layer(states)
        open_attentions(layer)
        assert isinstance(layer.self_attn, OpenAttention)
        assert layer.self_attn.num_heads == 4
        torch.testing.assert_close(layer(states), expected, rtol=1e-5, atol=1e-5)


def test_attention_of_other_widths_or_extra_keys_stays():
    assert not can_be_opened(nn.MultiheadAttention(16, 4, kdim=8))
    assert not can_be_opened(nn.MultiheadAttention(16, 4, add_bias_kv=True))
    assert not can_be_opened(nn.Linear(4, 4))
