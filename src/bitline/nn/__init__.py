"""Networks on crossbars."""

from bitline.nn.calibrate import calibrate
from bitline.nn.convert import (
    ConversionReport,
    DigitalOperation,
    crossbar_layers,
    placement,
    program,
    set_chip,
    to_crossbar,
)
from bitline.nn.layers import IDEAL, CrossbarConv1d, CrossbarConv2d, CrossbarLayer, CrossbarLinear
from bitline.nn.shapes import matmuls

__all__ = [
    "IDEAL",
    "ConversionReport",
    "CrossbarConv1d",
    "CrossbarConv2d",
    "CrossbarLayer",
    "CrossbarLinear",
    "DigitalOperation",
    "calibrate",
    "crossbar_layers",
    "matmuls",
    "placement",
    "program",
    "set_chip",
    "to_crossbar",
]
