"""One network on many chips.

Names are looked up when they are first used: a report reads the record of an evaluation without what made it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bitline.evaluation.causes import stages
    from bitline.evaluation.files import load
    from bitline.evaluation.on_chip import OnChip, put_on_chip
    from bitline.evaluation.record import Evaluation, Variant
    from bitline.evaluation.run import assess
    from bitline.evaluation.score import accuracy
    from bitline.evaluation.settings import Settings
    from bitline.evaluation.spread import Spread
    from bitline.evaluation.variants import cheapest, sweep

__all__ = [
    "Evaluation",
    "OnChip",
    "Settings",
    "Spread",
    "Variant",
    "accuracy",
    "assess",
    "cheapest",
    "load",
    "put_on_chip",
    "stages",
    "sweep",
]

_HOME = {
    "Evaluation": "record",
    "OnChip": "on_chip",
    "Settings": "settings",
    "Spread": "spread",
    "Variant": "record",
    "accuracy": "score",
    "cheapest": "variants",
    "load": "files",
    "put_on_chip": "on_chip",
    "stages": "causes",
    "sweep": "variants",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'bitline.evaluation' has no attribute {name!r}")
    return getattr(import_module(f"bitline.evaluation.{_HOME.get(name, 'run')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
