"""Seeds that depend on what is drawn, never on order, batch size, threads or torch device."""

import hashlib

import torch


def derive(*parts: int | str) -> int:
    """Return a 63-bit seed that the parts determine: ``derive(chip_seed, "conv2", "programming")``."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """Return a CPU generator seeded by the parts; results are moved to where they are needed."""
    return torch.Generator().manual_seed(derive(*parts))
