"""Co-optimize neural networks and the crossbars that run them.

Names are looked up when they are first used, so that importing bitline costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bitline.chip import Chip, presets, replace
    from bitline.chip import load as load_chip
    from bitline.errors import BitlineError
    from bitline.mvm.crossbars import Crossbars
    from bitline.mvm.torch_fast import crossbar_mvm
    from bitline.nn import (
        IDEAL,
        ConversionReport,
        calibrate,
        crossbar_layers,
        on,
        placement,
        program,
        set_chip,
        to_crossbar,
    )

    __version__: str

__all__ = [
    "IDEAL",
    "BitlineError",
    "Chip",
    "ConversionReport",
    "Crossbars",
    "__version__",
    "calibrate",
    "crossbar_layers",
    "crossbar_mvm",
    "load_chip",
    "on",
    "placement",
    "presets",
    "program",
    "replace",
    "set_chip",
    "to_crossbar",
]

_HOME = {
    "BitlineError": "bitline.errors",
    "Chip": "bitline.chip",
    "presets": "bitline.chip",
    "replace": "bitline.chip",
    "Crossbars": "bitline.mvm.crossbars",
    "crossbar_mvm": "bitline.mvm.torch_fast",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'bitline' has no attribute {name!r}")
    if name == "__version__":
        from importlib.metadata import version

        return version("bitline")
    if name == "load_chip":
        return import_module("bitline.chip").load
    return getattr(import_module(_HOME.get(name, "bitline.nn")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
