"""Attention made of layers, against PyTorch's."""

import copy
import itertools
import pickle

import pytest
import torch
from torch import Tensor, nn

from bitline.network.products import slow_attention
from bitline.network.rewrite.attention import Attention, attention
from bitline.network.rewrite.module import Stays

pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")
L, S, N, E, H = 5, 7, 3, 8, 2


def made(module: nn.Module, *, together: bool = False) -> nn.Module:
    rewritten = attention(module, {module} if together else ())
    assert rewritten is not None
    return rewritten.module


def plain(**keywords) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    module = nn.MultiheadAttention(E, H, dtype=torch.float64, **keywords).eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def agree(module: nn.Module, other: nn.Module, *x: Tensor, **keywords) -> None:
    with slow_attention():
        a, b = module(*x, **keywords), other(*x, **keywords)
    torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-9)


MASKS = {
    "none": lambda q, k: None,
    "bool": lambda q, k: torch.ones(q, k, dtype=torch.bool).triu(1),
    "float": lambda q, k: numbers(q, k),
    "each head": lambda q, k: numbers(N * H, q, k),
    "each head, bool": lambda q, k: torch.rand(N * H, q, k) > 0.7,
}


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("mask", MASKS)
def test_attention_to_itself_answers_as_before(together: bool, batch_first: bool, mask: str):
    module = plain(batch_first=batch_first)
    other = made(module, together=together)
    x = numbers(N, L, E) if batch_first else numbers(L, N, E)
    for padding, need, average in itertools.product((None, "bool", "float"), (True, False), (True, False)):
        given = MASKS[mask](L, L)
        if given is not None and given.dtype == torch.bool:
            given[..., 0] = False  # no query without a key
        hidden = None if padding is None else torch.zeros(N, L, dtype=torch.bool)
        if hidden is not None:
            hidden[1, 3:] = True
            hidden = hidden if padding == "bool" else torch.zeros(N, L, dtype=torch.float64).masked_fill(hidden, -2.5)
        keywords = {
            "attn_mask": given,
            "key_padding_mask": hidden,
            "need_weights": need,
            "average_attn_weights": average,
        }
        agree(module, other, x, x, x, **keywords)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("sizes", [{}, {"kdim": 6, "vdim": 4}, {"kdim": 6}, {"bias": False}])
@pytest.mark.parametrize("batched", [True, False])
def test_attention_to_others_answers_as_before(together: bool, sizes: dict, batched: bool):
    module = plain(batch_first=True, **sizes)
    other = made(module, together=together)
    first = (N,) if batched else ()
    q, k, v = numbers(*first, L, E), numbers(*first, S, module.kdim), numbers(*first, S, module.vdim)
    hidden = torch.zeros(*first, S, dtype=torch.bool)
    hidden[..., -2:] = True
    for need, padding in itertools.product((True, False), (None, hidden)):
        agree(module, other, q, k, v, need_weights=need, key_padding_mask=padding)
        agree(module, other, q, k, v, need_weights=need, attn_mask=numbers(L, S))


def test_a_hint_of_causality_is_taken_as_before():
    module = plain(batch_first=True)
    other = made(module, together=True)
    x, causal = numbers(N, L, E), torch.ones(L, L, dtype=torch.bool).triu(1)
    for need in (True, False):
        agree(module, other, x, x, x, need_weights=need, attn_mask=causal, is_causal=True)
    with pytest.raises(RuntimeError, match="is_causal"):
        other(x, x, x, is_causal=True)


def test_masks_of_other_shapes_are_refused():
    other = made(plain(batch_first=True))
    x = numbers(N, L, E)
    with pytest.raises(RuntimeError, match="shape of attn_mask"):
        other(x, x, x, attn_mask=numbers(1, L))
    with pytest.raises(RuntimeError, match="key_padding_mask"):
        other(x, x, x, key_padding_mask=numbers(N, 1))


@pytest.mark.parametrize("together", [True, False])
def test_former_names_read_the_weights_of_the_layers(together: bool):
    module = plain()
    other = made(module, together=together)
    assert isinstance(other, nn.MultiheadAttention)
    assert torch.equal(other.in_proj_weight, module.in_proj_weight)
    assert torch.equal(other.in_proj_bias, module.in_proj_bias)
    assert (other.in_proj_bias is None) == (module.in_proj_bias is None)


@pytest.mark.parametrize("together", [True, False])
def test_gradients_are_those_of_before(together: bool):
    module = plain()
    other = made(copy.deepcopy(module), together=together)
    x = numbers(L, N, E)
    module(x, x, x)[0].square().sum().backward()
    other(x, x, x)[0].square().sum().backward()
    names = ["in_proj"] if together else ["q_proj", "k_proj", "v_proj"]
    found = torch.cat([other.get_submodule(name).weight.grad for name in names])
    torch.testing.assert_close(found, module.in_proj_weight.grad, rtol=1e-9, atol=1e-9)


def test_dropout_drops_in_training_alone():
    module = plain(dropout=0.5)
    other = made(module, together=True)
    x = numbers(L, N, E)
    agree(module, other, x, x, x)
    other.train()
    for need in (True, False):
        assert not torch.equal(other(x, x, x, need_weights=need)[0], other(x, x, x, need_weights=need)[0])


def test_copies_and_pickles_answer_as_it_does():
    other = made(plain())
    x = numbers(L, N, E)
    for each in (copy.deepcopy(other), pickle.loads(pickle.dumps(other))):
        assert isinstance(each, Attention)
        assert torch.equal(each(x, x, x)[0], other(x, x, x)[0])


@pytest.mark.parametrize("keywords", [{"add_bias_kv": True}, {"add_zero_attn": True}])
def test_keys_of_its_own_stay(keywords: dict):
    with pytest.raises(Stays, match="adds keys of its own"):
        attention(plain(**keywords))
