"""Recipe ``crimp``."""

from typing import Annotated, Any, Literal, Self, cast

from pydantic import Field, model_validator

from bitline.chip.mitigation import MOST_REWRITES
from bitline.errors import DataError
from bitline.recipes.records.base import Count, Share, Weight, Whole
from bitline.recipes.records.on_chip import OnChip


class Crimp(OnChip):
    """Fewer kernels and crossbars, integers only, adapted to the cells, in zerorize-recover training."""

    recipe: Literal["crimp"] = "crimp"
    epochs: Whole = 20
    """of both phases of pruning together; default without a phase: 0"""
    settle_epochs: Whole = 0
    """after pruning and before those on the chip: plain training that keeps zeros"""
    sparsity: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """share of the weights to remove; those that are zero already count as removed"""
    kernel_share: Share = 0.5
    """how much of that the kernels take: they leave (1 - sparsity)^share of the weights"""
    rank: Literal["loss", "factor"] = "loss"
    """which kernels and crossbars go: those without which the loss would gain least, to first order, for every weight
    saved or every crossbar; or those of least factor, as published"""
    l1: Weight = 1e-4
    """weight of the L1 norm of the factors in the loss"""
    zero_start: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """share of a phase's epochs before the first zero epoch"""
    zero_interval: Count = 2
    """epochs from one zero epoch to the next"""
    kernel_groups: bool = True
    """prune kernels, in the first phase; with neither phase a network is adapted to the chip as it is"""
    crossbar_blocks: bool = True
    """prune crossbars, in the second phase"""
    zerorize: bool = True
    """zero and recover; else a phase trains plainly and prunes once, in its last epoch"""
    integer: bool = True
    """scales that are powers of two and biases of integers, so that no floating point is left"""
    rounding: Literal["nearest", "up"] = "nearest"
    """of the scales of weights to powers of two: nearest uses more of the levels, so that errors of cells weigh less;
    up clips no weight, which is better where they err little; with --integer"""
    error_compensation: bool = True
    """of cells: programming error divided by its mean, the digital sum corrected for the mean error, weights with stuck
    cells at the nearest value that is left to them, and biases set anew for each chip"""
    readback: bool = True
    """program the cells of a weight in turn and read each back, so that the next make up for its error; with
    --error-compensation"""
    rewrites: Annotated[int, Field(ge=0, le=MOST_REWRITES)] | None = None
    """how often a cell may be programmed again where that pays, with --readback; default: 2, or what the chip says, if
    more"""
    simulation: Literal["linear", "direct"] = "linear"
    """of the chip in training: linear has every error of cells but no rounding in the ADC, which is small for one that
    is lossless; direct has both"""

    @model_validator(mode="before")
    @classmethod
    def _no_epochs_without_a_phase(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        given = cast("dict[str, Any]", values)
        phases = (given.get("kernel_groups", True), given.get("crossbar_blocks", True))
        return given if any(phases) else {"epochs": 0, **given}

    @model_validator(mode="after")
    def _nothing_for_nothing(self) -> Self:
        if self.rounding != "nearest" and not self.integer:
            raise DataError(
                f"rounding is {self.rounding!r}, which needs integer; scales are no powers of two without it"
            )
        if self.rewrites is not None and not (self.readback and self.error_compensation):
            raise DataError(
                f"rewrites is {self.rewrites}, which needs readback and error_compensation: whether to program a cell "
                "again is decided by reading it back; a chip that is read back says itself how often "
                "(mitigation.rewrites)"
            )
        if self.epochs < self.phases:
            raise DataError(f"epochs is {self.epochs}; crimp has {self.phases} phases of an epoch or more each")
        if self.epochs and not self.phases:
            raise DataError(
                f"epochs is {self.epochs}, but kernel_groups and crossbar_blocks are both off: crimp has no "
                "phase to spend them in, only settle_epochs and chip_epochs"
            )
        return self

    @property
    def phases(self) -> int:
        """Phases that prune; without any, a network is adapted to the chip as it is."""
        return self.kernel_groups + self.crossbar_blocks

    @property
    def corrects_biases(self) -> bool:
        """Whether biases are set anew for each programmed chip."""
        return self.error_compensation
