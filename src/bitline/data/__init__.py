"""Images for training and evaluation: CIFAR-10, the embedded digits, a folder, a file or a hub name."""

from bitline.data.dataset import DataSet
from bitline.data.sources import load

__all__ = ["DataSet", "load"]
