"""Images for training and evaluation: CIFAR-10, the embedded digits, folders of images, parquet, the Hugging Face hub.

Names are looked up when they are first used: the command line shows `LAYOUTS` without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bitline.data.dataset import DataSet
    from bitline.data.layouts import LAYOUTS
    from bitline.data.sources import load

__all__ = ["LAYOUTS", "DataSet", "load"]

_HOME = {"DataSet": "dataset", "LAYOUTS": "layouts", "load": "sources"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'bitline.data' has no attribute {name!r}")
    return getattr(import_module(f"bitline.data.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
