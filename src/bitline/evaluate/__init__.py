"""One network on many chips."""

from bitline.evaluate.accuracy import accuracy
from bitline.evaluate.causes import stages
from bitline.evaluate.run import OnChip, Settings, evaluate, put_on_chip
from bitline.evaluate.sweep import cheapest, sweep

__all__ = ["OnChip", "Settings", "accuracy", "cheapest", "evaluate", "put_on_chip", "stages", "sweep"]
