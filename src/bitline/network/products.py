"""Every product that a network computes, counted where PyTorch computes it: below modules, functions and scripts."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_Macs = Callable[[Any, Any], int]
"""multiplications of an operation, from its arguments and its result"""


class Made(NamedTuple):
    """Where a product is made: the innermost module that runs, and the function that it calls."""

    name: str
    op: str


def _of(first: int, second: int) -> _Macs:
    """Multiplications of a product of two matrices, or of batches of them, at these places of the arguments."""

    def macs(args: Any, _: Any) -> int:
        a, b = args[first], args[second]
        return a.numel() * (b.shape[-1] if b.dim() > 1 else 1)

    return macs


def _convolution(args: Any, out: Any) -> int:
    x, weight, transposed = args[0], args[1], len(args) > 6 and args[6] is True
    return (x if transposed else out).numel() * math.prod(weight.shape[1:])


def _attention(args: Any, _: Any) -> int:
    query, key, value = args[:3]
    return query.numel() * key.shape[-2] + math.prod(query.shape[:-1]) * key.shape[-2] * value.shape[-1]


def _bilinear(args: Any, out: Any) -> int:
    return out.numel() * args[0].shape[-1] * args[1].shape[-1]


def _recurrent(args: Any, out: Any) -> int:
    x, weights = args[0], [w for w in args[1:5] if w.dim() == 2]
    return math.prod(x.shape[:-1]) * sum(w.numel() for w in weights)


def _looked_up(args: Any, _: Any) -> int:
    """Rows of a table, weighted and added up; a sum alone multiplies nothing."""
    weights = args[6] if len(args) > 6 else None
    return 0 if weights is None else args[1].numel() * args[0].shape[-1]


def _cells(args: Any, _: Any) -> int:
    """Distances of all pairs of rows."""
    return args[0].numel() * args[1].shape[-2]


def _linear(args: Any, out: Any) -> int:
    return args[0].numel() * out.shape[-1]


_MACS: dict[str, _Macs] = {
    "mm": _of(0, 1),
    "bmm": _of(0, 1),
    "mv": _of(0, 1),
    "dot": _of(0, 1),
    "vdot": _of(0, 1),
    "addmm": _of(1, 2),
    "addbmm": _of(1, 2),
    "baddbmm": _of(1, 2),
    "addmv": _of(1, 2),
    "_addmm_activation": _of(1, 2),
    "_sparse_mm": _of(0, 1),
    "_sparse_addmm": _of(1, 2),
    "_sparse_sparse_matmul": _of(0, 1),
    "sspaddmm": _of(1, 2),
    "hspmm": _of(0, 1),
    "_int_mm": _of(0, 1),
    "_scaled_mm": _of(0, 1),
    "_grouped_mm": _linear,
    "linear": _linear,
    "_cdist_forward": _cells,
    "_euclidean_dist": _cells,
    "_trilinear": _bilinear,
    "convolution": _convolution,
    "_convolution": _convolution,
    "convolution_overrideable": _convolution,
    "mkldnn_convolution": _convolution,
    "conv_tbc": lambda args, out: out.numel() * math.prod(args[1].shape[:2]),
    "_embedding_bag": _looked_up,
    "_embedding_bag_forward_only": _looked_up,
    "mkldnn_rnn_layer": _recurrent,
    "_scaled_dot_product_flash_attention": _attention,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_efficient_attention": _attention,
    "_scaled_dot_product_cudnn_attention": _attention,
    "_scaled_dot_product_attention_math": _attention,
    "_scaled_dot_product_fused_attention_overrideable": _attention,
}
_TRANSFORMS = ("_fft_r2c", "_fft_c2r", "_fft_c2c")
_ELSEWHERE = ("linear", "conv", "matmul", "mm", "lstm", "gru", "attention")
"""what operations of other libraries are called that multiply by packed weights"""
_READS_VALUES = ("_local_scalar_dense", "is_nonzero", "equal", "nonzero")
"""operations by which code learns of values, and may go another way for it"""


_GIVES_VALUES = (Tensor.tolist, Tensor.numpy, Tensor.item, Tensor.__array__)
"""functions that do so without an operation"""
_SCALES = ("mul", "div", "addcmul")
_ADDS_UP = ("sum", "nansum", "cumsum")
_REMEMBERED = 8
"""products of numbers whose sums are looked for"""


class Running:
    """Which module of a network runs, as hooks tell.

    Attributes:
        names: of the modules that run, each inside of the one before.
        ended: by name, how many modules had ended when one did for the last time.
    """

    def __init__(self) -> None:
        self.names: list[str] = [""]
        self.ended: dict[str, int] = {}
        self.clock = 0

    @property
    def innermost(self) -> str:
        """Name of the module that runs and has none running inside."""
        return self.names[-1]

    def watch(self, named: Sequence[tuple[str, nn.Module]]) -> list[torch.utils.hooks.RemovableHandle]:
        """Follow when modules begin and end; scripted ones take no hooks, and count as what calls them."""
        handles = list[torch.utils.hooks.RemovableHandle]()
        for name, module in named:
            if not isinstance(module, torch.jit.ScriptModule):
                handles.append(module.register_forward_pre_hook(partial(self._begun, name)))
                handles.append(module.register_forward_hook(self._ended, always_call=True))
        return handles

    def _begun(self, name: str, _module: nn.Module, _args: object) -> None:
        self.names.append(name)

    def _ended(self, _module: nn.Module, _args: object, _output: object) -> None:
        self.clock += 1
        self.ended[self.names.pop()] = self.clock


class _Called(TorchFunctionMode):
    """Which function of PyTorch is called, as it is called in Python, and whether it gives values to Python."""

    def __init__(self, decided: Callable[[], None]) -> None:
        super().__init__()
        self.name: str | None = None
        self.decided = decided

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before, self.name = self.name, getattr(func, "__name__", "").strip("_").removesuffix(".default") or None
        if self.name == "rmatmul":
            self.name = "matmul"
        if func in _GIVES_VALUES:
            self.decided()
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self.name = before


class Products(TorchDispatchMode):
    """Counts the multiplications of every product that PyTorch computes while this is entered.

    Attributes:
        macs: of each place and function; 0 for what is no sum of products, as a Fourier transform.
        decides: modules whose code read values, and may go another way for other values: how many modules had ended
            before they first did.
    """

    def __init__(self, running: Running) -> None:
        super().__init__()
        self.running = running
        self.called = _Called(self._decided)
        self.macs: Counter[Made] = Counter()
        self.decides: dict[str, int] = {}
        self._multiplied: list[Tensor] = []

    def __enter__(self) -> Self:
        self.called.__enter__()
        return super().__enter__()

    def __exit__(self, *what: Any) -> None:
        super().__exit__(*what)
        self.called.__exit__(*what)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = func._schema.name
        space, _, op = name.partition("::")
        if space == "aten":
            self._aten(op.removesuffix("_") if op.endswith("_") and not op.startswith("_") else op, args, out)
        elif space not in ("prim", "prims", "bitline", "profiler") and any(word in op for word in _ELSEWHERE):
            self._add(f"{space}.{op}", _packed(args, out))
        return out

    def _aten(self, op: str, args: Any, out: Any) -> None:
        result = out[0] if isinstance(out, tuple) else out
        if op in _MACS:
            macs = _MACS[op](args, result)
            if macs:
                self._add(op, macs)
        elif op in _TRANSFORMS:
            self._add(op, 0)
        elif op in _READS_VALUES:
            self._decided()
        elif op in _SCALES and isinstance(result, Tensor):
            self._times(op, args, result)
        elif op in _ADDS_UP and any(_same(args[0], each) for each in self._multiplied):
            self._add(op, args[0].numel())
        elif op.endswith("mm"):  # by weights that are packed away
            self._add(op, _packed(args, out))

    def _decided(self) -> None:
        self.decides.setdefault(self.running.innermost, self.running.clock)

    def _times(self, op: str, args: Any, result: Tensor) -> None:
        """Note products of two tensors: each number of one by several of the other, or to be added up later.

        Where only one is spread, as a scale of channels is, each number is multiplied once.
        """
        two = [each for each in args if isinstance(each, Tensor)][-2:]
        if len(two) < 2 or two[0] is two[1] or not (result.is_floating_point() or result.is_complex()):
            return
        axes = [(1,) * (result.dim() - each.dim()) + tuple(each.shape) for each in two]
        if all(any(n == 1 < m for n, m in zip(shape, result.shape, strict=True)) for shape in axes):
            self._add(op, result.numel())
        elif all(each.dim() for each in two):
            self._multiplied = [*self._multiplied[1 - _REMEMBERED :], result.detach()]

    def _add(self, op: str, macs: int) -> None:
        self.macs[Made(self.running.innermost, self.called.name or op)] += macs


def _same(x: object, product: Tensor) -> bool:
    """Whether a tensor is a product, or a view of all of it."""
    if not isinstance(x, Tensor) or x.numel() != product.numel() or x.is_meta or x.layout != product.layout:
        return x is product
    return x.layout is torch.strided and x.data_ptr() == product.data_ptr()


def _packed(args: Any, out: Any) -> int:
    """Multiplications of a product by weights that are packed away: as many for each result as there are inputs."""
    x = next((leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)), None)
    result = next((leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)), None)
    return 0 if x is None or result is None or not x.dim() else result.numel() * x.shape[-1]


def slow_attention() -> AbstractContextManager[None]:
    """Have PyTorch's attention compute by operations that are seen, not by one of its own."""
    return _Slow()


class _Slow(AbstractContextManager[None]):
    def __enter__(self) -> None:
        self.before = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)

    def __exit__(self, *_: object) -> None:
        torch.backends.mha.set_fastpath_enabled(self.before)
