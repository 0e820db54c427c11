"""Networks on crossbars."""

from bitline.cost.choose_mapping import cheapest_mapping
from bitline.network.trace import matmuls
from bitline.nn import operator as operator  # what torch.compile and torch.export find as torch.ops.bitline.answer
from bitline.nn.bias_correction import BiasCorrection, correct_biases
from bitline.nn.calibrate import calibrate
from bitline.nn.cells import IDEAL
from bitline.nn.convert import ConversionReport, DigitalOperation, to_crossbar
from bitline.nn.layer import CrossbarLayer
from bitline.nn.layer_types import CrossbarConv1d, CrossbarConv2d, CrossbarLinear
from bitline.nn.on import crossbar_layers, on, placement, program, set_chip
from bitline.nn.range_training import keep_ranges, load_ranges, save_ranges, train_ranges

__all__ = [
    "IDEAL",
    "BiasCorrection",
    "ConversionReport",
    "CrossbarConv1d",
    "CrossbarConv2d",
    "CrossbarLayer",
    "CrossbarLinear",
    "DigitalOperation",
    "calibrate",
    "cheapest_mapping",
    "correct_biases",
    "crossbar_layers",
    "keep_ranges",
    "load_ranges",
    "matmuls",
    "on",
    "placement",
    "program",
    "save_ranges",
    "set_chip",
    "to_crossbar",
    "train_ranges",
]
