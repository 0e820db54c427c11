"""Co-optimize neural networks and the crossbars that run them.

Names are looked up when they are first used, so that importing bitline costs next to nothing.
"""

import typing as _typing

if _typing.TYPE_CHECKING:
    from bitline import cost, data
    from bitline.chip import Chip, presets, replace
    from bitline.chip import load as load_chip
    from bitline.errors import BitlineError
    from bitline.evaluation.grid import Sweep
    from bitline.evaluation.metrics import Metric
    from bitline.evaluation.public import evaluate, sweep
    from bitline.evaluation.record import Evaluation
    from bitline.evaluation.sensitivity import sensitivity
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
    from bitline.recipes.public import optimize

    __version__: str

__all__ = [
    "IDEAL",
    "BitlineError",
    "Chip",
    "ConversionReport",
    "Crossbars",
    "Evaluation",
    "Metric",
    "Sweep",
    "__version__",
    "calibrate",
    "cost",
    "crossbar_layers",
    "crossbar_mvm",
    "data",
    "evaluate",
    "load_chip",
    "on",
    "optimize",
    "placement",
    "presets",
    "program",
    "replace",
    "sensitivity",
    "set_chip",
    "sweep",
    "to_crossbar",
]

_HOME = {
    "BitlineError": "bitline.errors",
    "Chip": "bitline.chip",
    "Crossbars": "bitline.mvm.crossbars",
    "Evaluation": "bitline.evaluation.record",
    "Metric": "bitline.evaluation.metrics",
    "Sweep": "bitline.evaluation.grid",
    "crossbar_mvm": "bitline.mvm.torch_fast",
    "evaluate": "bitline.evaluation.public",
    "optimize": "bitline.recipes.public",
    "presets": "bitline.chip",
    "replace": "bitline.chip",
    "sensitivity": "bitline.evaluation.sensitivity",
    "sweep": "bitline.evaluation.public",
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in __all__:
        raise AttributeError(f"module 'bitline' has no attribute {name!r}")
    if name == "__version__":
        from importlib.metadata import version

        return version("bitline")
    if name == "load_chip":
        return import_module("bitline.chip").load
    if name in ("cost", "data"):
        return import_module(f"bitline.{name}")
    return getattr(import_module(_HOME.get(name, "bitline.nn")), name)


def __dir__() -> list[str]:
    return sorted(__all__)
