"""What is installed with bitline only when it is asked for: pip install "bitline[NAME]"."""

import sys
from importlib.util import find_spec
from typing import cast

from bitline.errors import BitlineError

PACKAGES = {
    "data": ("datasets",),
    "export": ("onnx", "onnxruntime", "onnxscript"),
    "models": ("timm", "torchvision"),
    "onnx": ("onnx", "onnx2torch"),
    "train": ("lightning", "optuna", "scipy", "tensorboard", "torch_pruning"),
}
"""by extra, the packages that bitline itself imports"""


class ExtraError(BitlineError):
    """What was asked for needs packages that are not installed."""


def need(what: str, extra: str, *packages: str) -> None:
    """Refuse what needs packages that are not there, before any of it begins; nothing is imported.

    Args:
        what: was asked for, as the subject of a sentence.
        extra: that brings the packages, of `PACKAGES`.
        packages: some of it; default: all.

    Raises:
        ExtraError: one is not installed; the message has the command that installs it.
    """
    missing = [name for name in packages or PACKAGES[extra] if not _there(name)]
    if missing:
        raise ExtraError(f'{what} needs {", ".join(missing)}: pip install "bitline[{extra}]"')


def _there(package: str) -> bool:
    if package in sys.modules:
        return cast("object", sys.modules[package]) is not None  # None: its import is forbidden
    return find_spec(package) is not None
