"""What a chip is: frozen records in SI units, refused when no such chip can exist.

``Chip`` is the only thing that the mapping, the arithmetic and the cost model know about hardware.
"""

import math
from typing import Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import Field, ValidationInfo, field_validator, model_validator

from bitline import units
from bitline.chip.adc import Adc
from bitline.chip.cell import Cell
from bitline.chip.crossbar import Crossbar, Dac
from bitline.chip.formats import Inputs, Offset, Pair, TwosComplement, Weights
from bitline.chip.mitigation import Mitigation
from bitline.chip.records import Metre, Record, Volt
from bitline.chip.system import DEFAULT_CLOCK, System, Timing, default_clock
from bitline.chip.words import words
from bitline.errors import ChipError


class Chip(Record):
    """Everything bitline knows of one chip."""

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
    """one line of text"""
    about: Annotated[str, Field(max_length=2000)] = ""
    doi: Annotated[str, Field(max_length=200)] | None = None
    deviations: Annotated[tuple[Annotated[str, Field(max_length=2000)], ...], Field(max_length=100)] = ()
    """where this description knowingly differs from its source"""
    node: Metre
    """technology node"""
    vdd: Volt
    cell: Cell
    crossbar: Crossbar
    dac: Dac = Dac()
    adc: Adc
    weights: Weights = Weights()
    inputs: Inputs = Inputs()
    timing: Annotated[Timing, Field(validate_default=True)] = Timing()
    system: System = System()
    cost_table: Annotated[str, Field(min_length=1, max_length=4096)] = "isaac-32nm"
    """a table that ships with bitline, or a TOML file"""
    cell_cost: Literal["conductance", "table"] = "conductance"
    """energy of a cell read: V^2 g t and the bitline's charge, or the cost table's own number"""
    mitigation: Mitigation = Mitigation()

    newer: ClassVar[frozenset[str]] = frozenset({"mitigation"})

    def __str__(self) -> str:
        return words(self)

    @property
    def slices(self) -> int:
        """Cells one side of a weight is spread over, least significant first (the sign cell last)."""
        return self.weights.slices or self._fewest_slices

    @property
    def sides(self) -> int:
        """2 for a differential pair, else 1."""
        return 2 if isinstance(self.weights.encoding, Pair) else 1

    @property
    def cells_per_weight(self) -> int:
        """Neighbouring columns that one weight takes."""
        return self.slices * self.sides

    @property
    def converted_sides(self) -> int:
        """Conversions of one slice of one weight column: 2 for a pair subtracted digitally."""
        encoding = self.weights.encoding
        return 2 if isinstance(encoding, Pair) and encoding.subtract == "digital" else 1

    @property
    def reference_columns(self) -> int:
        """Weight columns of each crossbar that hold Z instead of weights."""
        encoding = self.weights.encoding
        return int(isinstance(encoding, Offset) and encoding.sum == "column")

    @property
    def weight_columns(self) -> int:
        """Weight columns that one crossbar offers."""
        return self.crossbar.cols // self.cells_per_weight - self.reference_columns

    @property
    def sum_limits(self) -> tuple[int, int]:
        """Lowest and highest analog sum of ideal cells without leak over one row tile, level units."""
        most = self.crossbar.active_rows * (2**self.dac.bits - 1) * self.cell.max_level
        return (-most if self.sides == 2 and self.converted_sides == 1 else 0), most

    @property
    def lossless_bits(self) -> int:
        """Fewest ADC bits that tell all those sums apart; codes have a sign where sums do."""
        low, high = self.sum_limits
        return high.bit_length() + (low < 0)

    @property
    def _fewest_slices(self) -> int:
        magnitude = math.ceil((self.weights.bits - 1) / self.cell.bits)
        match self.weights.encoding:
            case Offset():
                return math.ceil(self.weights.bits / self.cell.bits)
            case Pair():
                return magnitude
            case TwosComplement():
                return magnitude + 1

    @field_validator("timing", mode="before")
    @classmethod
    def _old_nodes_are_slower(cls, given: Any, info: ValidationInfo) -> Any:
        clock = default_clock(info.data["node"]) if "node" in info.data else DEFAULT_CLOCK
        if clock == DEFAULT_CLOCK:
            return given
        if isinstance(given, dict):
            return {"clock": clock, **cast("dict[str, Any]", given)}
        unsaid = isinstance(given, Timing) and "clock" not in given.model_fields_set
        return given.model_copy(update={"clock": clock}) if unsaid else given

    @model_validator(mode="after")
    def _weights_fit(self) -> Self:
        if self.slices < self._fewest_slices:
            raise ValueError(
                f"weights.slices = {self.slices} cells of {self.cell.bits} bits do not cover weights of "
                f"{self.weights.bits} bits in {self.weights.encoding.kind} encoding; at least {self._fewest_slices}"
            )
        if self.weight_columns < 1:
            raise ValueError(
                f"crossbar.cols = {self.crossbar.cols} holds no weight of {self.cells_per_weight} cells"
                + (" beside its reference column" if self.reference_columns else "")
            )
        if self.weights.zero_point >= 2**self.weights.bits:
            raise ValueError(
                f"weights.encoding.zero_point = {self.weights.zero_point} must be less than "
                f"2**weights.bits = {2**self.weights.bits}"
            )
        for name in ("weights", "inputs"):
            scale = getattr(self, name).scale
            if self.weights.bias_bits is not None and scale != "power_of_two":
                raise ValueError(
                    f'weights.bias_bits = {self.weights.bias_bits} needs {name}.scale = "power_of_two"; it is "{scale}"'
                )
        encoding = self.weights.encoding
        self.mitigation.check(
            cells=self.cells_per_weight,
            span=self.sides * (2 ** (self.cell.bits * self.slices) - 1),
            reference_columns=self.reference_columns,
            expected=isinstance(encoding, Offset) and encoding.correction == "expected",
        )
        if self.dac.bits > self.inputs.bits:
            raise ValueError(f"dac.bits = {self.dac.bits} exceeds inputs.bits = {self.inputs.bits}")
        if self.adc.columns_per_adc > self.crossbar.cols:
            raise ValueError(
                f"adc.columns_per_adc = {self.adc.columns_per_adc} exceeds crossbar.cols = {self.crossbar.cols}"
            )
        signed = self.sides == 2 and self.converted_sides == 1
        if signed and self.adc.range is not None and self.adc.range.low != -self.adc.range.high:
            raise ValueError(
                f"adc.range.low = {units.pretty(self.adc.range.low, 'A')} must be minus adc.range.high = "
                f"{units.pretty(self.adc.range.high, 'A')}: pairs subtracted before conversion have signed sums"
            )
        return self


def check(data: dict[str, Any], where: str = "chip") -> Chip:
    """Build a chip from plain data.

    Args:
        data: nested keys as in a chip file.
        where: named in errors, for example the file.

    Raises:
        ChipError: one line for each problem, with the value, the rule, and the nearest key for a misspelt one.
    """
    from bitline.chip.messages import explain

    try:
        return Chip.model_validate(data)
    except ValueError as error:
        raise ChipError(explain(error, data, Chip, where)) from None
