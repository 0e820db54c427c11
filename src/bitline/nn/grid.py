"""Values as a buffer keeps them between layers: integers of few bits times a power of two."""

import math

import torch
from torch import Tensor, nn

from bitline.chip.formats import Inputs
from bitline.errors import ConversionError
from bitline.mapping.histogram import RangeHistogram
from bitline.mapping.quantize import InputFormat
from bitline.mvm.gradient import Quantized, StraightThrough
from bitline.nn.read import Mode

NAME = "stored"
"""of the grid among the children of the module whose results it puts on it"""


class Grid(nn.Module):
    """Rounds values, ties to even, to integers of `inputs.bits` times a power of two, and clips them.

    The gradient is straight-through, and zero where values clip.

    Attributes:
        inputs: width, and how a scale is chosen from data.
        mode: ``"float"`` lets values pass; as a layer's.
        exponent: of the power of two that an integer of 1 stands for.
        low: lowest integer.
        high: highest integer; equal to the lowest while the grid is unknown.
    """

    exponent: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, inputs: Inputs) -> None:
        super().__init__()
        self.inputs: Inputs = inputs
        self.mode: Mode = "chip"
        for name in ("exponent", "low", "high"):
            self.register_buffer(name, torch.zeros((), dtype=torch.int64))

    @property
    def known(self) -> bool:
        """Whether there is a grid."""
        return bool(self.high > self.low)

    def extra_repr(self) -> str:
        """Say the grid."""
        if not self.known:
            return "unknown"
        return f"integers from {int(self.low)} to {int(self.high)}, times 2^{int(self.exponent)}"

    def take(self, scale: float, *, signed: bool) -> None:
        """Have integers of a scale, a power of two.

        Raises:
            ConversionError: another scale.
        """
        mantissa, exponent = math.frexp(scale)
        if mantissa != 0.5:
            raise ConversionError(
                f"values are kept at powers of two; the scale is {scale:g}. Set inputs.scale to 'power_of_two'"
            )
        low, high = InputFormat(self.inputs.bits, signed).limits
        for name, value in (("exponent", exponent - 1), ("low", low), ("high", high)):
            setattr(self, name, torch.full_like(self.high, value))  # an exported program may hold the one before

    def fit(self, values: RangeHistogram) -> None:
        """Choose the grid from the values that calibration counted."""
        i = self.inputs
        self.take(values.scale(i.bits, i.calibration, i.percentile, i.scale, i.rounding), signed=values.negative)

    def forget(self, inputs: Inputs) -> None:
        """Become unknown, of another width."""
        self.inputs = inputs
        self.high = self.low.clone()

    def forward(self, x: Tensor) -> Tensor:
        """Put values on the grid, any shape.

        Raises:
            ConversionError: it is not known.
        """
        if self.mode == "float":
            return x
        if not self.known:
            raise ConversionError("the grid of stored values is unknown; call calibrate(model, batches)")
        stored = Quantized(x.detach(), 2.0 ** int(self.exponent), int(self.low), int(self.high))
        return StraightThrough.apply(x, stored.value, stored, None)  # pyright: ignore[reportReturnType]


def grids(model: nn.Module) -> dict[str, Grid]:
    """Grids of a network, by the name of the module whose results they keep."""
    here = ((name, module) for name, module in model.named_modules() if isinstance(module, Grid))
    return {name.removesuffix(NAME).removesuffix("."): grid for name, grid in here}


def grid_of(module: nn.Module | None) -> Grid | None:
    """The grid that a module's results are on, if any."""
    child = None if module is None else getattr(module, NAME, None)
    return child if isinstance(child, Grid) else None


def put_on(module: nn.Module, grid: Grid) -> None:
    """Put whatever a module gives on a grid, which becomes its child."""
    module.add_module(NAME, grid)
    module.register_forward_hook(_store)


def _store(module: nn.Module, _: object, output: Tensor) -> Tensor:
    grid = grid_of(module)
    return output if grid is None else grid(output)
