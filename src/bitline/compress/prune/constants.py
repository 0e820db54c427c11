"""Which input channels of a layer hold the same value whatever the layers before it give."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bitline.compress.prune.dependencies import one_a_group
from bitline.mapping.lower import Lowerable
from bitline.network.trace import MAPPED, modules, run_hooked

LOUD = 1e4
"""magnitude of the noise, beyond what any activation function or batch norm would hide"""
IMAGES, DRAWS = 2, 2
ROUNDING = 1e-6
"""relative difference of values that are the same"""


def constants(model: nn.Module, example: Tensor) -> dict[str, Tensor]:
    """Find constant input channels.

    The input and every kernel's result are replaced by loud noise of either sign, and every draw is followed by its
    negative, so that no ReLU hides it; a kernel of zeros gives its bias, and one that reads a single channel what it
    makes of that. What reads the same value at all positions of all draws does so because of the weights, not of the
    data: a batch norm whose factor is zero, or kernels of zeros.

    Args:
        model: of plain modules, in evaluation mode; it is not changed.
        example: one batch.

    Returns:
        layer name -> its input channels' values, NaN where they vary, float64, (input channels,).
    """
    layers: dict[str, Lowerable] = {n: m for n, m in modules(model) if isinstance(m, MAPPED)}
    low: dict[str, Tensor] = {}
    high: dict[str, Tensor] = {}

    def reads(name: str, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        x = args[0] if args else kwargs["input"]
        values = x.flatten(0, -2) if isinstance(layers[name], nn.Linear) else x.transpose(0, 1).flatten(1).t()
        least, most = values.amin(0), values.amax(0)
        low[name] = torch.minimum(low[name], least) if name in low else least
        high[name] = torch.maximum(high[name], most) if name in high else most

    def hook(name: str) -> Callable[..., None]:
        def read(_: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
            reads(name, args, kwargs)

        return read

    for draw in range(DRAWS):
        for sign in (1.0, -1.0):
            rng = torch.Generator().manual_seed(draw)
            handles = [m.register_forward_pre_hook(hook(n), with_kwargs=True) for n, m in layers.items()]
            handles += [m.register_forward_hook(_noise(m, rng, sign)) for m in layers.values() if not one_a_group(m)]
            x = example[:IMAGES]
            run_hooked(model, _loud(x, rng, sign) if x.is_floating_point() else x, handles)
    same = {name: high[name] - low[name] <= ROUNDING * low[name].abs() for name in low}
    return {name: torch.where(same[name], low[name], torch.nan).double() for name in layers if name in low}


def _loud(like: Tensor, rng: torch.Generator, sign: float) -> Tensor:
    """Noise of a tensor's shape, none of it near zero."""
    drawn = torch.rand(like.shape, generator=rng).to(like.device, like.dtype) - 0.5
    return (drawn.sign() * 0.5 + drawn) * (LOUD * sign)


def _noise(layer: Lowerable, rng: torch.Generator, sign: float) -> Callable[..., Tensor]:
    """Make a hook that replaces what the kernels of a layer give."""
    live = layer.weight.detach().flatten(1).any(1)

    def replaced(_: nn.Module, __: object, y: Tensor) -> Tensor:
        axis = y.dim() - 1 if isinstance(layer, nn.Linear) else 1
        return torch.where(live.view(-1, *[1] * (y.dim() - 1 - axis)), _loud(y, rng, sign), y)

    return replaced
