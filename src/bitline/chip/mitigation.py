"""What is done when a network is written into a chip whose faults are known."""

from typing import Annotated

from pydantic import Field

from bitline.chip.records import Fraction, Record, Switch


class Mitigation(Record):
    """How weights avoid bad cells, and which cells are written with care; nothing unless said."""

    remap: Switch = False
    """kernels of a layer change columns, so that stuck cells cost least"""
    flip: Switch = False
    """a column may hold its weights with the other sign: bits complemented, or the sides of a pair exchanged"""
    nearest: Switch = False
    """weights with stuck cells take the nearest value that their working cells can make"""
    verify: Fraction = 0.0
    """share of a layer's cells that are written again until they are close to their level: those whose errors weigh
    most"""
    tolerance: Annotated[float, Field(strict=True, gt=0)] = 0.1
    """how close that is, levels"""

    @property
    def arranges(self) -> bool:
        """Whether faults decide where and how weights are written."""
        return self.remap or self.flip
