"""Networks on crossbars."""

from bitline.network.trace import matmuls
from bitline.nn.bias_correction import Recentred, recentre
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
from bitline.nn.mapping import cheapest_mapping
from bitline.nn.range_training import keep_ranges, load_ranges, save_ranges, train_ranges

__all__ = [
    "IDEAL",
    "ConversionReport",
    "CrossbarConv1d",
    "CrossbarConv2d",
    "CrossbarLayer",
    "CrossbarLinear",
    "DigitalOperation",
    "Recentred",
    "calibrate",
    "cheapest_mapping",
    "crossbar_layers",
    "keep_ranges",
    "load_ranges",
    "matmuls",
    "placement",
    "program",
    "recentre",
    "save_ranges",
    "set_chip",
    "to_crossbar",
    "train_ranges",
]
