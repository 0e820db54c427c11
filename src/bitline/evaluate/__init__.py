"""One network on many chips.

Names are looked up when they are first used: a report reads the record of an evaluation without what made it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bitline.evaluate.causes import stages
    from bitline.evaluate.files import load
    from bitline.evaluate.record import Evaluation, Variant
    from bitline.evaluate.run import OnChip, Settings, evaluate, put_on_chip
    from bitline.evaluate.score import accuracy
    from bitline.evaluate.spread import Spread
    from bitline.evaluate.variants import cheapest, sweep

__all__ = [
    "Evaluation",
    "OnChip",
    "Settings",
    "Spread",
    "Variant",
    "accuracy",
    "cheapest",
    "evaluate",
    "load",
    "put_on_chip",
    "stages",
    "sweep",
]

_HOME = {
    "Evaluation": "record",
    "Spread": "spread",
    "Variant": "record",
    "accuracy": "score",
    "cheapest": "variants",
    "load": "files",
    "stages": "causes",
    "sweep": "variants",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'bitline.evaluate' has no attribute {name!r}")
    return getattr(import_module(f"bitline.evaluate.{_HOME.get(name, 'run')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
