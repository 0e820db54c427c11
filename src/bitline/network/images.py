"""The images that a network is calibrated on, in an order that only they decide."""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch

from bitline.errors import ConversionError
from bitline.network.inputs import Inputs, inputs_of, joined, leaves, mapped, samples

Batches = Iterable[Any]
HELD_BYTES = 2**30
"""of images held in memory; more are walked again, a part at a time"""
_RUN_IMAGES, _RUN_VALUES = 64, 2**22
"""of a run, at most; but never less than one image"""


class Images:
    """All images of some batches, by their content.

    Float arithmetic gives an image other last bits beside other images, so that only the same runs of images make the
    same ranges. Batches may come in any order and cut; images are sorted by a digest of their values and cut anew.
    Images that are drawn anew at every walk, as augmented ones are, must fit in memory: then they are walked once.

    Args:
        batches: inputs, or (inputs, labels) as data loaders give, see `bitline.network.inputs.inputs_of`; walked once
            if they fit in `HELD_BYTES`, else once for each walk of `runs` and part.

    Attributes:
        count: of the images.
    """

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self.count, self._all, size = 0, 0, 0
        held: list[_Found] = []
        for x in _tensors(batches):
            size += sum(part.nbytes for part in leaves(x))
            x = mapped(x, torch.clone)  # loaders may fill one tensor again and again
            found = [_Found(*_kind(image), _digest(image), image) for image in samples(x)]
            self.count += len(found)
            self._all += sum(image.digest for image in found)
            held += found
            if size > HELD_BYTES:
                held.clear()
        self._parts = max(1, math.ceil(size / HELD_BYTES))
        self._held = _sorted(held) if self._parts == 1 else None

    def runs(self, device: torch.device) -> Iterator[Inputs]:
        """Yield the images on a torch device, those of one shape together."""
        for part in range(self._parts):
            images = self._part(part)
            start = 0
            while start < len(images):
                first = images[start]
                stop = start + max(
                    1, min(_RUN_IMAGES, _RUN_VALUES // max(1, sum(part.numel() for part in leaves(first))))
                )
                run = [image for image in images[start:stop] if _kind(image) == _kind(first)]
                start += len(run)
                yield mapped(joined(run, torch.stack), lambda x: x.to(device))

    def together(self, most: int, device: torch.device) -> Inputs | None:
        """The first images in one tensor, at most so many; None where there are several shapes."""
        images = self._part(0)
        one = len({_kind(image) for image in images}) == 1
        return mapped(joined(images[:most], torch.stack), lambda x: x.to(device)) if one else None

    def _part(self, part: int) -> list[Inputs]:
        """Images of one of the parts, in order.

        Raises:
            ConversionError: the batches give other images than at the first walk.
        """
        if self._held is not None:
            return self._held
        found: list[_Found] = []
        everything = 0
        for x in _tensors(self._batches):
            for image in samples(x):
                digest = _digest(image)
                everything += digest
                if digest % self._parts == part:
                    found.append(_Found(*_kind(image), digest, mapped(image, torch.clone)))
        if everything != self._all:
            raise ConversionError(
                f"the batches give other images at every walk, as augmented ones are, and are more than the "
                f"{HELD_BYTES} bytes that are held: give fewer, or images that stay"
            )
        return _sorted(found)


class _Found(NamedTuple):
    dtype: str
    shape: tuple[Any, ...]
    digest: int
    image: Inputs


def _sorted(found: list[_Found]) -> list[Inputs]:
    """Images by kind and digest."""
    return [entry.image for entry in sorted(found, key=lambda entry: entry[:-1])]


def _kind(image: Inputs) -> tuple[str, tuple[Any, ...]]:
    """Return what images must share to pass together: types and shapes, and names where there are several."""
    parts = leaves(image)
    names = ":".join(sorted(image)) if isinstance(image, Mapping) else ""
    shapes = tuple(parts[0].shape) if len(parts) == 1 else tuple(tuple(part.shape) for part in parts)
    return names + ",".join(str(part.dtype) for part in parts), shapes


def _digest(image: Inputs) -> int:
    digest = hashlib.blake2b(digest_size=8)
    for part in leaves(image):
        digest.update(part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return int.from_bytes(digest.digest(), "little")


def _tensors(batches: Batches) -> Iterator[Inputs]:
    return map(inputs_of, batches)
