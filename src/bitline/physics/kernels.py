"""Loops in C++ for what is drawn and written, where they are built; the same numbers as without them, sooner.

`bitline.mvm.native` has the compiled module, above all that draws and writes: it is set here when that is imported.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

native: Any = None
"""the compiled module; None where it is not built or not asked for"""
_COUNT = 2000


def draws() -> Any:
    """Return the module if its numbers are those of torch's generators here, else None."""
    return native if native is not None and _agrees(native) else None


def on_state(generator: torch.Generator, draw: Callable[[Tensor], None]) -> None:
    """Draw from a generator by a loop that reads and moves its state."""
    state = generator.get_state()
    draw(state)
    generator.set_state(state)


@cache
def _agrees(module: Any) -> bool:
    """Compare what torch draws in each way that loops do; another version of it may draw otherwise."""
    torches, own = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    uniform = torch.rand(_COUNT, generator=torches)
    whole = torch.empty(_COUNT, dtype=torch.int64).random_(-(2**63), None, generator=torches)
    shares = torch.empty(_COUNT, dtype=torch.int64).random_(0, 2**53, generator=torches)
    raw = torch.empty(5 * _COUNT, dtype=torch.int32)
    try:
        on_state(own, lambda state: module.numbers(state, raw))
    except ValueError:
        return False
    numbers = raw.long() & 0xFFFFFFFF
    first, rest = numbers[:_COUNT], numbers[_COUNT:].view(2, _COUNT, 2)
    pairs = (rest[..., 0] << 32) + rest[..., 1]
    return (
        uniform.equal((first & 0xFFFFFF).float() * 2**-24)
        and whole.equal(pairs[0])
        and shares.equal(pairs[1] & (2**53 - 1))
        and torches.get_state().equal(own.get_state())
    )
