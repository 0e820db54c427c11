"""What answers for a chip in an evaluation: its conversions, or a surrogate that is measured once for each chip."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from bitline.chip.description import Chip
from bitline.chip.records import fingerprint
from bitline.evaluation.record import Simulated, Simulation
from bitline.surrogate import Surrogate, answering, measure

_BATCHES = 1
"""what a chip makes of 64 images says as much of its noise as what it makes of 256"""


class Simulations:
    """What answers for a network on chips.

    Args:
        model: converted.
        kind: what answers.
        batches: gives images; statistics of each programmed chip are measured on the first of these batches.
    """

    def __init__(self, model: nn.Module, kind: Simulated, batches: Callable[[], Sequence[Tensor]]) -> None:
        self.model, self.batches = model, batches
        self.kind: Simulated = kind
        self._surrogates: dict[str, Surrogate] = {}

    @contextmanager
    def __call__(self, chip: Chip, seed: int) -> Generator[None]:
        """Let it answer for a while.

        Args:
            chip: that the network is on.
            seed: of the programmed chip; -1 for ideal cells.
        """
        if self.kind == "exact":
            yield
            return
        key = fingerprint(chip, seed)
        if key not in self._surrogates:
            self._surrogates[key] = measure(self.model, self.batches()[:_BATCHES], seed=seed)
        with answering(self.model, self._surrogates[key]):
            yield

    def forget(self) -> None:
        """Measure anew: ranges are others."""
        self._surrogates.clear()

    def record(self) -> Simulation:
        """What answered so far."""
        measured = self._surrogates.values()
        noisy: dict[str, float] = {}
        for name, snr in (pair for each in measured for pair in each.noisy.items()):
            noisy[name] = min(snr, noisy.get(name, snr))
        return Simulation(
            kind=self.kind,
            images=max((each.images for each in measured), default=0),
            noisy=noisy,
            overflows=max((each.overflows for each in measured), default=0.0),
            exact_layers=tuple(dict.fromkeys(name for each in measured for name in each.exact)),
            holds=all(each.holds for each in measured),
        )
