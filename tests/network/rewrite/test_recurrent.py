"""Recurrent networks made of layers, against PyTorch's."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from bitline.network.rewrite.recurrent import recurrent

N, T, E, H = 3, 5, 4, 6
KINDS = {
    "lstm": (nn.LSTM, {}),
    "projected": (nn.LSTM, {"proj_size": 2}),
    "gru": (nn.GRU, {}),
    "tanh": (nn.RNN, {}),
    "relu": (nn.RNN, {"nonlinearity": "relu"}),
}


def made(module: nn.Module) -> nn.Module:
    rewritten = recurrent(module)
    assert rewritten is not None
    return rewritten.module


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def agree(a: object, b: object) -> None:
    torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-9)


def states(module: nn.RNNBase, *batch: int) -> object:
    layers = module.num_layers * (1 + module.bidirectional)
    h = numbers(layers, *batch, module.proj_size or H)
    return (h, numbers(layers, *batch, H)) if isinstance(module, nn.LSTM) else h


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("layers", "bidirectional", "batch_first", "bias"),
    [(1, False, False, True), (2, True, True, True), (3, False, True, False), (2, True, False, False)],
)
def test_networks_answer_as_before(kind: str, layers: int, bidirectional: bool, batch_first: bool, bias: bool):
    torch.manual_seed(0)
    cls, more = KINDS[kind]
    keywords = {"num_layers": layers, "bidirectional": bidirectional, "batch_first": batch_first, "bias": bias}
    module = cls(E, H, **keywords, **more).double()
    other = made(module)
    assert isinstance(other, cls)
    for x, begin in (
        (numbers(N, T, E) if batch_first else numbers(T, N, E), states(module, N)),
        (numbers(T, E), states(module)),
    ):
        agree(module(x), other(x))
        agree(module(x, begin), other(x, begin))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("ordered", [False, True])
def test_packed_sequences_answer_as_before(kind: str, bidirectional: bool, ordered: bool):
    torch.manual_seed(0)
    cls, more = KINDS[kind]
    module = cls(E, H, num_layers=2, bidirectional=bidirectional, **more).double()
    lengths = [5, 3, 3, 1] if ordered else [3, 1, 5, 3]
    x = pack_padded_sequence(numbers(T, 4, E), torch.tensor(lengths), enforce_sorted=ordered)
    begin = states(module, 4)
    for given in ((x,), (x, begin)):
        (a, last), (b, other_last) = module(*given), made(module)(*given)
        assert isinstance(b, PackedSequence)
        agree(a.data, b.data)
        agree(last, other_last)
        for name in ("batch_sizes", "sorted_indices", "unsorted_indices"):
            agree(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize(
    "module",
    [nn.LSTMCell(E, H), nn.GRUCell(E, H), nn.RNNCell(E, H), nn.RNNCell(E, H, False, "relu"), nn.LSTMCell(E, H, False)],
)
def test_cells_answer_as_before(module: nn.Module):
    module = module.double()
    other = made(module)
    for first in ((N,), ()):
        x, h = numbers(*first, E), numbers(*first, H)
        begin = (h, numbers(*first, H)) if isinstance(module, nn.LSTMCell) else h
        agree(module(x), other(x))
        agree(module(x, begin), other(x, begin))


def test_layers_have_the_very_parameters_and_read_by_their_former_names():
    module = nn.LSTM(E, H, 2, bidirectional=True, proj_size=2)
    other = made(module)
    names = [name for name, _ in module.named_parameters()]
    assert all(getattr(other, name) is getattr(module, name) for name in names)
    assert {id(p) for p in other.parameters()} == {id(p) for p in module.parameters()}
    other.flatten_parameters()
    with pytest.raises(AttributeError):
        _ = other.weight_ih_l7


def test_states_of_another_size_are_refused():
    other = made(nn.GRU(E, H))
    with pytest.raises(RuntimeError, match=r"^Expected hidden size \(1, 3, 6\), got \(1, 1, 6\)"):
        other(torch.randn(T, N, E), torch.randn(1, 1, H))


def test_gradients_are_those_of_before():
    module = nn.GRU(E, H, 2, bidirectional=True).double()
    other = made(copy.deepcopy(module))
    x = numbers(T, N, E)
    module(x)[0].square().sum().backward()
    other(x)[0].square().sum().backward()
    for name, parameter in module.named_parameters():
        agree(parameter.grad, getattr(other, name).grad)


@pytest.mark.parametrize("module", [nn.LSTM(E, H), nn.LSTMCell(E, H)])
def test_copies_pickles_and_other_types_answer(module: nn.Module):
    other = made(module)
    x = torch.randn(N, E)
    for each in (copy.deepcopy(other), pickle.loads(pickle.dumps(other))):
        agree(other(x), each(x))
    agree(module.double()(x.double()), other.double()(x.double()))


def test_dropout_drops_between_layers_in_training_alone():
    module = nn.LSTM(E, H, 2, dropout=0.5).double().eval()
    other = made(module)
    x = numbers(T, N, E)
    agree(module(x), other(x))
    other.train()
    assert not torch.equal(other(x)[0], other(x)[0])
