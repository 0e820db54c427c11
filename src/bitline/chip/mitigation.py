"""What is done when a network is written into a chip whose faults are known."""

from typing import Annotated

from pydantic import Field

from bitline.chip.plausible import Plausible
from bitline.chip.records import Fraction, Record, Switch

MOST_REWRITES = 9
"""of a cell, assumed; tables grow with them, and a third one takes away little"""
MOST_READBACK_STATES = 2**24
"""of a weight: what may be left to write, times which of its cells may work, times writes; all are tabulated"""


class Mitigation(Record):
    """How weights avoid bad cells, and which cells are written with care; nothing unless said."""

    remap: Switch = False
    """kernels of a layer change columns, so that stuck cells cost least"""
    flip: Switch = False
    """a column may hold its weights with the other sign: bits complemented, or the sides of a pair exchanged"""
    nearest: Switch = False
    """weights with stuck cells take the nearest value that their working cells can make"""
    readback: Switch = False
    """the cells of a weight are written in turn, the most significant first, and each is read back: the next ones make
    up for what it errs by, stuck cells included"""
    rewrites: Annotated[int, Field(strict=True, ge=0, le=MOST_REWRITES)] = 0
    """how often a cell that is read back may be written again, where the weight's expected square error says that it
    pays"""
    verify: Fraction = 0.0
    """share of a layer's cells that are written again until they are close to their level: those whose errors weigh
    most"""
    tolerance: Annotated[float, Plausible(1e-4, 255, "a cell has 256 levels at most", usual=(1e-3, 1))] = 0.1
    """how close that is, levels"""

    @property
    def arranges(self) -> bool:
        """Whether faults decide where and how weights are written."""
        return self.remap or self.flip

    def check(self, *, cells: int, span: int, expected: bool, reference_columns: int) -> None:
        """Refuse what does not go together.

        Args:
            cells: of a weight.
            span: what they add at most, all sides taken together, weight units.
            expected: the digital side corrects by what models and rates say cells add on the mean.
            reference_columns: of a column tile, which subtract the zero point in analog.

        Raises:
            ValueError: with what to set instead.
        """
        for name in ("nearest", "readback"):
            if getattr(self, name) and expected:
                raise ValueError(
                    f'mitigation.{name} = true with correction = "expected": what cells add on the mean is no longer '
                    'what models and rates say; use correction = "measured"'
                )
        if self.flip and reference_columns:
            raise ValueError(
                'mitigation.flip = true with a reference column: flipped columns need encoding.sum = "digital"'
            )
        if self.readback and self.verify:
            raise ValueError(
                f"mitigation.verify = {self.verify:g} with readback = true: what a cell errs by is made up for, or it "
                "is written again until it is right; set one of them (with readback, mitigation.rewrites = 2 writes "
                "cells again where that pays)"
            )
        if self.rewrites and not self.readback:
            raise ValueError(
                f"mitigation.rewrites = {self.rewrites} with readback = false: whether to write a cell again is "
                "decided by reading it back; set mitigation.readback = true"
            )
        states = span * 2**cells * (self.rewrites + 1)
        if self.readback and states > MOST_READBACK_STATES:
            raise ValueError(
                f"mitigation.readback = true, rewrites = {self.rewrites} with {cells} cells a weight that add up to "
                f"{span}: what to write next is tabulated, for at most {MOST_READBACK_STATES} values times patterns of "
                f"cells times writes, not {states}; use {'fewer rewrites, ' if self.rewrites else ''}fewer "
                "weights.bits or cells of more bits"
            )
