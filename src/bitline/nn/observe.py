"""Looking at a network while it runs: the mode it runs in, and what enters its modules."""

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from torch import Tensor, nn

from bitline.mapping.lower import Lowerable, with_batch
from bitline.nn.grid import Grid
from bitline.nn.layer import CrossbarLayer
from bitline.nn.read import Mode

_M = TypeVar("_M", bound=nn.Module)


@contextmanager
def in_mode(mode: Mode, *modules: CrossbarLayer | Grid) -> Generator[None]:
    """Have layers and grids in a mode for a while."""
    before: list[Mode] = [module.mode for module in modules]
    try:
        for module in modules:
            module.mode = mode
        yield
    finally:
        for module, own in zip(modules, before, strict=True):
            module.mode = own


@contextmanager
def watching(modules: Iterable[_M], see: Callable[[_M, Tensor], None]) -> Generator[None]:
    """Call `see` with every module and its input before it answers; that of a layer has its batch axis."""

    def hook(module: Any, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        x = args[0] if args else kwargs["input"]
        on_chip = isinstance(module, CrossbarLayer)
        see(module, x.view(with_batch(cast("Lowerable", module), x.shape)) if on_chip else x)

    handles = [module.register_forward_pre_hook(hook, with_kwargs=True) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
