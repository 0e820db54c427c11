"""The images that a network is calibrated on, in an order that only they decide."""

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

Batches = Iterable[Tensor | Sequence[Tensor]]
HELD_BYTES = 2**30
"""of images held in memory; more are walked again, a part at a time"""
_RUN_IMAGES, _RUN_VALUES = 64, 2**22
"""of a run, at most; but never less than one image"""


class Images:
    """All images of some batches, by their content.

    Float arithmetic gives an image other last bits beside other images, so that only the same runs of images make the
    same ranges. Batches may come in any order and cut; images are sorted by a digest of their values and cut anew.

    Args:
        batches: tensors, or (inputs, labels) as data loaders give, images along the first axis; walked once if they fit
            in `HELD_BYTES`, else once for each walk of `runs` and part.

    Attributes:
        count: of the images.
    """

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self.count, size = 0, 0
        held: list[Tensor] = []
        for x in _tensors(batches):
            self.count += len(x)
            size += x.nbytes
            held.append(x.clone())  # loaders may fill one tensor again and again
            if size > HELD_BYTES:
                held.clear()
        self._parts = max(1, math.ceil(size / HELD_BYTES))
        self._held = _sorted(held) if self._parts == 1 else None

    def runs(self, device: torch.device) -> Iterator[Tensor]:
        """Yield the images on a torch device, those of one shape together."""
        for part in range(self._parts):
            images = _sorted(_tensors(self._batches), part, self._parts) if self._held is None else self._held
            start = 0
            while start < len(images):
                first = images[start]
                stop = start + max(1, min(_RUN_IMAGES, _RUN_VALUES // max(1, first.numel())))
                run = [image for image in images[start:stop] if _kind(image) == _kind(first)]
                start += len(run)
                yield torch.stack(run).to(device)

    def together(self, most: int, device: torch.device) -> Tensor | None:
        """The first images in one tensor, at most so many; None where there are several shapes."""
        images = _sorted(_tensors(self._batches), 0, self._parts) if self._held is None else self._held
        one = len({_kind(image) for image in images}) == 1
        return torch.stack(images[:most]).to(device) if one else None


def _sorted(batches: Iterable[Tensor], part: int = 0, parts: int = 1) -> list[Tensor]:
    """Images of one of several parts, by kind and digest; a part keeps no more than its images."""
    found: list[tuple[str, tuple[int, ...], int, Tensor]] = []
    for x in batches:
        for image in x:
            digest = _digest(image)
            if digest % parts == part:
                found.append((*_kind(image), digest, image if parts == 1 else image.clone()))
    return [image for *_, image in sorted(found, key=lambda entry: entry[:-1])]


def _kind(image: Tensor) -> tuple[str, tuple[int, ...]]:
    return str(image.dtype), tuple(image.shape)


def _digest(image: Tensor) -> int:
    content = image.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def _tensors(batches: Batches) -> Iterator[Tensor]:
    for batch in batches:
        yield batch if isinstance(batch, Tensor) else batch[0]
