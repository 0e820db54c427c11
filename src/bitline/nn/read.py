"""One read of a layer: everything that a forward pass asks for, asked for once, and the number that its noise has."""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor

from bitline import seeds
from bitline.chip.description import Chip
from bitline.errors import ConversionError
from bitline.mvm import native
from bitline.mvm.adc import AdcScale
from bitline.mvm.crossbars import Crossbars
from bitline.nn.cells import CellWeights
from bitline.physics.noise import ReadNoise

Mode = Literal["chip", "linear", "float", "surrogate"]
"""what answers: crossbars; crossbars whose conversions neither round nor clip; the plain layer; one that adds noise"""


class Pass:
    """Passes of a whole network, one after the other: they number the calls of a layer that runs several times in one.

    Attributes:
        digital: multiplications of one image off the layers of the network, by what makes them; None: not known.
        running: whether one is.
        number: of the pass.
    """

    def __init__(self) -> None:
        self.digital: dict[str, int] | None = None
        self.running = False
        self.number = 0

    def begin(self, *_: object) -> None:
        """A hook for before the network runs."""
        if not torch.compiler.is_compiling():
            self.running, self.number = True, self.number + 1

    def end(self, *_: object) -> None:
        """A hook for after it has run, or failed."""
        if not torch.compiler.is_compiling():
            self.running = False


class ReadNumber(NamedTuple):
    """What tells the noise of a read from that of all others of the layer on its chip.

    Args:
        call: within one pass of the network, where a layer runs several times.
        first_image: number of the first image of the batch since the chip was programmed.
        training: of those of training, or of those of evaluation.
    """

    call: int = 0
    first_image: int = 0
    training: bool = False

    def seed(self, chip_seed: int, layer: str) -> int:
        """Return the seed of the noise of all reads of a call."""
        return seeds.derive(chip_seed, layer, "read noise of training" if self.training else "read noise", self.call)


class Reads:
    """Images that a layer has read since its chip was programmed: they number its read noise.

    Training and evaluation count apart, so that looking at a network moves nothing in its training. A forward pass that
    autograd repeats within a backward pass (`torch.utils.checkpoint`) reads what the first one read: it is known by a
    random number that both draw, as PyTorch gives the second the random state of the first for the sake of dropout.
    Noise depends on the count alone, never on that number.
    """

    KEPT = 1024
    """forward passes that may be repeated"""

    def __init__(self) -> None:
        self.counts: dict[tuple[bool, int], int] = {}
        """by (training, call)"""
        self._last = (0, 0)
        self._known: dict[int, ReadNumber | None] = {}
        """by the random number; None: of two passes, and nobody can tell which one is repeated"""
        self._repeated: set[int] = set()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reads) and self.counts == other.counts

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def next(self, images: int, network: Pass, *, training: bool, layer: str) -> ReadNumber:
        """Number the reads of a batch, and count its images.

        Args:
            images: of the batch.
            network: the pass that the layer is in.
            training: whether the layer trains.
            layer: its name, for the error.

        Raises:
            ConversionError: a forward pass repeated with other random numbers, or with those of two.
        """
        tag = _tag(training)
        if torch._C._current_graph_task_id() >= 0:  # pyright: ignore[reportPrivateUsage]
            if tag not in self._known:
                raise ConversionError(
                    f"layer {layer}: a forward pass is repeated in a backward pass with other random numbers than it "
                    "had, so that its read noise cannot be the same: leave preserve_rng_state of "
                    "torch.utils.checkpoint at True and, for a layer in evaluation mode, set use_reentrant=False"
                )
            if (known := self._known[tag]) is None:
                raise ConversionError(
                    f"layer {layer}: two forward passes before a backward pass had the same random numbers, so that "
                    "which read noise a repeated one had is not known: seed PyTorch once, not before each of them"
                )
            self._repeated.add(tag)
            return known
        number, call = self._last
        if not network.running or number != network.number:
            call = 0
        self._last = (network.number, call + 1)
        first = self.counts.get((training, call), 0)
        self.counts[training, call] = first + images
        read = ReadNumber(call, first, training)
        if tag is not None:
            again = tag in self._known and tag not in self._repeated and self._known[tag] != read
            self._known.pop(tag, None)
            self._repeated.discard(tag)
            self._known[tag] = None if again else read
            if len(self._known) > self.KEPT:
                self._repeated.discard(oldest := next(iter(self._known)))
                self._known.pop(oldest)
        return read

    def tensor(self) -> Tensor:
        """The counts, int64, (evaluation and training, calls)."""
        calls = 1 + max((call for _, call in self.counts), default=0)
        return torch.tensor([[self.counts.get((training, call), 0) for call in range(calls)] for training in _BOTH])

    @classmethod
    def of(cls, counts: Tensor) -> Self:
        """Go on from counts that `tensor` gave.

        Raises:
            ConversionError: others.
        """
        if counts.dtype != torch.int64 or counts.dim() != 2 or counts.shape[0] != 2 or bool((counts < 0).any()):
            raise ConversionError(
                f"reads are {counts.dtype} of shape {tuple(counts.shape)}; expected int64 (2, calls), none below 0"
            )
        new = cls()
        for training, row in zip(_BOTH, counts.tolist(), strict=True):
            new.counts |= {(training, call): count for call, count in enumerate(row) if count}
        return new


_BOTH = (False, True)


def _tag(training: bool) -> int | None:
    """Draw what a repeated forward pass draws again; nothing for a plain evaluation, which is never repeated."""
    hooked = torch._C._autograd._top_saved_tensors_default_hooks(True) is not None  # pyright: ignore
    return int(torch.randint(2**62, ())) if training or hooked else None


@dataclass(frozen=True)
class Read:
    """What answers an input, and how.

    Args:
        chip: the layer's chip, or a variant of it.
        weights: that the cells hold.
        crossbars: the cells as they are programmed.
        scale: ranges of their ADCs.
        plan: what computes the product natively; None where tensors do.
        noise: of these reads; None where there is none.
    """

    chip: Chip
    weights: CellWeights
    crossbars: Crossbars
    scale: AdcScale
    plan: native.Plan | None
    noise: ReadNoise | None

    def noise_from(self, image: int) -> ReadNoise | None:
        """The noise of the reads of an image of the batch and those that follow it."""
        return None if self.noise is None else replace(self.noise, first_image=self.noise.first_image + image)

    def factor(self, input_scale: float) -> Tensor:
        """Real value of a product of 1, float64, (groups, cols); 0 for an output whose weights are all zero."""
        return self.weights.factor(input_scale, self.chip.weights)
