"""Layers in a row fitted to one dense layer in turns, each while the others stand still."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from torch import Tensor

from bitline.compress.reconstruct.least_squares import Folds, Moments

ROUNDS = 8
RIDGES = (1e-4, 1e-2, 1.0)
"""penalties tried on what a round changes, relative to the mean power of the inputs"""


class Factored(Protocol):
    """Layers that make one matrix together."""

    @property
    def whole(self) -> Tensor:
        """The matrix, float64, (1, rows, cols)."""
        ...


Layers = TypeVar("Layers", bound=Factored)


def alternate(
    folds: Folds, start: Layers, factors: Tensor, turn: Callable[[Moments, Layers, float], Layers], *, offset: bool
) -> Layers:
    """Bring layers closer to wanted outputs, by as many rounds as help on held-out data.

    Args:
        folds: moments of all inputs and all wanted outputs as one group.
        start: layers at hand.
        factors: that each output counts with, (outputs,).
        turn: one round, given moments, layers and a penalty; it never raises the error on these moments.
        offset: whether an offset is free, so that only what varies counts.

    Returns:
        Layers whose error on all data is at most that of `start`.
    """
    weigh = factors.square()
    part, held_out, everything = (m.centred() if offset else m for m in (*folds, folds.all))

    def score(layers: Layers) -> float:
        return float((held_out.error(layers.whole) * weigh).sum())

    best = (score(start), 0.0, 0)
    for ridge in RIDGES:
        now = start
        for rounds in range(1, ROUNDS + 1):
            now = turn(part, now, ridge)
            best = min(best, (score(now), ridge, rounds))
    now = start
    for _ in range(best[2]):
        now = turn(everything, now, best[1])
    return now
