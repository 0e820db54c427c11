"""Recurrent networks with their projections as linear layers: of the inputs of all steps at once, and of each state."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from bitline.network.rewrite.module import Rewritten, Stays, keeps_to, linear, twin
from bitline.network.subclass import gain

State = tuple[Tensor, ...]
"""of a cell: (h,), or (h, c) of an LSTM; each (batch, features)"""
_FLAT = ("_flat_weights", "_flat_weights_names", "_flat_weight_refs", "_all_weights")


class _Layers(nn.Module):
    """Weights are read by their former names too: ``weight_ih_l0`` is that of the layer ``ih_l0``."""

    def __getattr__(self, name: str) -> Any:
        kind, _, layer = name.partition("_")
        if kind in ("weight", "bias") and layer in self.__dict__.get("_modules", {}):
            return getattr(self._modules[layer], kind)
        return super().__getattr__(name)


def _lstm(x: Tensor, h: Tensor, state: State) -> State:
    i, f, g, o = (x + h).chunk(4, -1)
    c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def _gru(x: Tensor, h: Tensor, state: State) -> State:
    (x_r, x_z, x_n), (h_r, h_z, h_n) = x.chunk(3, -1), h.chunk(3, -1)
    z = (x_z + h_z).sigmoid()
    n = (x_n + (x_r + h_r).sigmoid() * h_n).tanh()
    return (n + z * (state[0] - n),)


def _tanh(x: Tensor, h: Tensor, _: State) -> State:
    return ((x + h).tanh(),)


def _relu(x: Tensor, h: Tensor, _: State) -> State:
    return ((x + h).relu(),)


_STEPS = {"LSTM": _lstm, "GRU": _gru, "RNN_TANH": _tanh, "RNN_RELU": _relu}


class Recurrent(_Layers):
    """nn.LSTM, nn.GRU or nn.RNN whose projections are layers: ``ih_l0`` of inputs, ``hh_l0`` of states, ``hr_l0``."""

    mode: str
    num_layers: int
    hidden_size: int
    proj_size: int
    batch_first: bool
    bidirectional: bool
    dropout: float

    __setstate__ = nn.Module.__setstate__
    _apply = nn.Module._apply
    _replicate_for_data_parallel = nn.Module._replicate_for_data_parallel  # pyright: ignore

    def __getstate__(self) -> dict[str, Any]:
        return vars(self)

    def flatten_parameters(self) -> None:
        """Do nothing: there is no flat copy of the weights."""

    def forward(self, input: Tensor | PackedSequence, hx: Any = None) -> tuple[Any, Any]:
        """Run as the plain module does, with the same arguments and results; a packed input is padded inside."""
        packed, batched, valid, lengths = input, True, None, None
        if isinstance(input, PackedSequence):
            x, lengths = pad_packed_sequence(input, batch_first=True)
            valid = (torch.arange(x.shape[1]) < lengths[:, None]).to(x.device)
        else:
            batched = input.dim() == 3
            x = input.unsqueeze(0) if not batched else input if self.batch_first else input.transpose(0, 1)
        if x.dim() != 3:
            raise ValueError(f"{self.mode}: Expected input to be 2D or 3D, got {x.dim() - (not batched)}D instead")
        y, last = self._layers(x, self._begin(x, hx, batched=batched), valid)
        if isinstance(packed, PackedSequence):
            assert lengths is not None
            order = packed.sorted_indices
            if order is not None:
                y, lengths = y[order], lengths[order.to(lengths.device)]
            joined = pack_padded_sequence(y, lengths, batch_first=True)
            result = PackedSequence(joined.data, joined.batch_sizes, order, packed.unsorted_indices)
        else:
            result = y.squeeze(0) if not batched else y if self.batch_first else y.transpose(0, 1)
        states = tuple(each if batched else each.squeeze(1) for each in last)
        return result, states if self.mode == "LSTM" else states[0]

    def _begin(self, x: Tensor, hx: Any, *, batched: bool) -> State:
        """States to begin with, each (layers, batch, features)."""
        layers = self.num_layers * (1 + self.bidirectional)
        sizes = [self.proj_size or self.hidden_size, *([self.hidden_size] if self.mode == "LSTM" else [])]
        if hx is None:
            return tuple(x.new_zeros(layers, x.shape[0], size) for size in sizes)
        given: State = tuple(hx) if self.mode == "LSTM" else (hx,)
        given = given if batched else tuple(each.unsqueeze(1) for each in given)
        for each, size in zip(given, sizes, strict=True):
            expected = (layers, x.shape[0], size)
            if tuple(each.shape) != expected:
                raise RuntimeError(f"Expected hidden size {expected}, got {tuple(each.shape)}")
        return given

    def _layers(self, x: Tensor, begin: State, valid: Tensor | None) -> tuple[Tensor, State]:
        last: list[State] = []
        for layer in range(self.num_layers):
            ways: list[Tensor] = []
            for way in ("", "_reverse")[: 1 + self.bidirectional]:
                y, state = self._run(x, f"_l{layer}{way}", tuple(each[len(last)] for each in begin), valid)
                ways.append(y)
                last.append(state)
            x = torch.cat(ways, -1)
            if self.dropout and self.training and layer < self.num_layers - 1:
                x = F.dropout(x, self.dropout)
        return x, tuple(torch.stack(each) for each in zip(*last, strict=True))

    def _run(self, x: Tensor, suffix: str, state: State, valid: Tensor | None) -> tuple[Tensor, State]:
        """Go through the steps of one layer; where a sequence is over, or has not begun, its state stays."""
        step, hh, hr = _STEPS[self.mode], self.get_submodule("hh" + suffix), self._modules.get("hr" + suffix)
        gates = self.get_submodule("ih" + suffix)(x).unbind(1)
        steps = range(len(gates))
        outputs: dict[int, Tensor] = {}
        for t in reversed(steps) if suffix.endswith("_reverse") else steps:
            new = step(gates[t], hh(state[0]), state)
            if hr is not None:
                new = (hr(new[0]), *new[1:])
            if valid is not None:
                new = tuple(torch.where(valid[:, t, None], a, b) for a, b in zip(new, state, strict=True))
            state, outputs[t] = new, new[0]
        return torch.stack([outputs[t] for t in steps], 1), state


class Cell(_Layers):
    """nn.LSTMCell, nn.GRUCell or nn.RNNCell whose projections are layers: ``ih`` of inputs, ``hh`` of states."""

    hidden_size: int
    step: str

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        """Go one step as the plain module does, with the same arguments and results."""
        lstm = self.step == "LSTM"
        batched = input.dim() == 2
        x = input if batched else input.unsqueeze(0)
        if hx is None:
            state: State = (x.new_zeros(x.shape[0], self.hidden_size),) * (1 + lstm)
        else:
            state = tuple(each if batched else each.unsqueeze(0) for each in (hx if lstm else (hx,)))
        for each in state:
            if tuple(each.shape) != (x.shape[0], self.hidden_size):
                raise RuntimeError(f"hidden of shape {tuple(each.shape)}; expected {(x.shape[0], self.hidden_size)}")
        new = _STEPS[self.step](self.get_submodule("ih")(x), self.get_submodule("hh")(state[0]), state)
        new = new if batched else tuple(each.squeeze(0) for each in new)
        return new if lstm else new[0]


_HOW = "projections of inputs and states are linear layers, its cells stay digital"


def recurrent(module: nn.Module) -> Rewritten | None:
    """Make layers of the projections of a recurrent network or cell.

    Raises:
        Stays: a forward of its own.
    """
    if isinstance(module, Recurrent | Cell):
        return None
    for cls in (nn.LSTM, nn.GRU, nn.RNN, nn.LSTMCell, nn.GRUCell, nn.RNNCell):
        if isinstance(module, cls):
            if not keeps_to(module, cls):
                raise Stays(f"{type(module).__name__} has a forward of its own")
            return Rewritten(_network(module) if isinstance(module, nn.RNNBase) else _cell(module), _HOW)
    return None


def _network(module: nn.RNNBase) -> nn.Module:
    names = [name for layer in module._all_weights for name in layer]  # pyright: ignore
    new = twin(module, without=(*_FLAT, *names))
    _add_layers(new, module, names)
    gain(new, Recurrent, type(module))
    return new


def _cell(module: nn.Module) -> nn.Module:
    names = [name for name in module._parameters if name.startswith(("weight_", "bias_"))]  # pyright: ignore
    new = twin(module, without=names)
    _add_layers(new, module, names)
    nonlinearity = getattr(module, "nonlinearity", "tanh").upper()
    kinds = {nn.LSTMCell: "LSTM", nn.GRUCell: "GRU", nn.RNNCell: f"RNN_{nonlinearity}"}
    vars(new)["step"] = next(kind for cls, kind in kinds.items() if isinstance(module, cls))
    gain(new, Cell, type(module))
    return new


def _add_layers(new: nn.Module, module: nn.Module, names: list[str]) -> None:
    for name in names:
        kind, _, layer = name.partition("_")
        if kind == "weight":
            bias = getattr(module, f"bias_{layer}", None)
            new._modules[layer] = linear(getattr(module, name), bias, like=module)  # pyright: ignore
