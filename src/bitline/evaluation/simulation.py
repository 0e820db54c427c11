"""What answers for a chip in an evaluation: its conversions, or a surrogate that is measured once for each chip."""

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from functools import cached_property

from torch import nn

from bitline.chip.description import Chip
from bitline.evaluation.record import Simulated, Simulation
from bitline.network.inputs import Inputs
from bitline.surrogate import Surrogate, answering, measure


class Simulations:
    """What answers for a network on chips.

    Args:
        model: converted.
        kind: what answers.
        images: gives those that statistics of each chip are measured on.
    """

    def __init__(self, model: nn.Module, kind: Simulated, images: Callable[[], Inputs]) -> None:
        self.model = model
        self.kind: Simulated = kind
        self._load = images
        self.forget()

    @cached_property
    def _images(self) -> Inputs:
        return self._load()

    @contextmanager
    def __call__(self, chip: Chip, seed: int) -> Generator[None]:
        """Let it answer for a while; a surrogate is measured before.

        Args:
            chip: that the network is on.
            seed: of the programmed chip; -1 for ideal cells.
        """
        if self.kind == "exact":
            yield
            return
        surrogate = measure(self.model, [self._images], seed=seed)
        self._note(surrogate)
        with answering(self.model, surrogate):
            yield

    @contextmanager
    def by(self, kind: Simulated) -> Generator[None]:
        """Let another kind answer for a while, with a record of its own that can be read until the next one begins."""
        before, self.kind = self.kind, kind
        self.forget()
        try:
            yield
        finally:
            self.kind = before

    def forget(self) -> None:
        """Begin a record anew: the network is on another chip."""
        self._record = Simulation(kind=self.kind)

    def record(self) -> Simulation:
        """What answered since the record began."""
        return self._record

    def _note(self, each: Surrogate) -> None:
        """Keep what is worst of all chips; statistics themselves are large."""
        own = Simulation(
            kind=self.kind,
            images=each.images,
            noisy=each.noisy,
            overflows=each.overflows,
            changed=each.changed,
            unlike=each.unlike,
            exact_layers=each.exact,
            holds=each.holds,
        )
        self._record = together([own], self._record)


def together(simulations: Iterable[Simulation], own: Simulation) -> Simulation:
    """Return what is worst of several, for chips or processes.

    Args:
        simulations: some.
        own: one more, whose kind it is.
    """
    every = [own, *simulations]
    noisy: dict[str, float] = {}
    for name, snr in (pair for each in every for pair in each.noisy.items()):
        noisy[name] = min(snr, noisy.get(name, snr))
    return Simulation(
        kind=own.kind,
        images=max(each.images for each in every),
        noisy=noisy,
        overflows=max(each.overflows for each in every),
        changed=max(each.changed for each in every),
        unlike=max((each.unlike for each in every), key=abs),
        exact_layers=tuple(dict.fromkeys(name for each in every for name in each.exact_layers)),
        holds=all(each.holds for each in every),
    )
