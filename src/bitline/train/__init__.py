"""Train a network on images: one configuration in, one run directory out."""

from bitline.train.config import Precision, Schedule, TrainConfig, checked

__all__ = ["Precision", "Schedule", "TrainConfig", "checked"]
