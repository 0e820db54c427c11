"""What results keep of a leak: g_min of every cell, if neither a pair nor a correction takes it out."""

from bitline.chip.description import Chip
from bitline.chip.formats import Offset, Pair, TwosComplement


def remaining_leak(chip: Chip) -> float:
    """What the leak of ideal cells adds to every result for each unit of sum(x), weight units.

    A differential pair has it on both sides, a reference column takes it with Z, and so does the correction of mean
    errors. Else every cell of a weight adds ``leak_levels`` times what its slice weighs.
    """
    encoding = chip.weights.encoding
    if isinstance(encoding, Pair) or (
        isinstance(encoding, Offset) and (encoding.sum == "column" or encoding.correction != "none")
    ):
        return 0.0
    signed = isinstance(encoding, TwosComplement)
    worth = sum(2 ** (chip.cell.bits * s) for s in range(chip.slices - signed))
    return chip.cell.leak_levels * (worth - signed * 2 ** (chip.weights.bits - 1))


def leak_remark(chip: Chip) -> str:
    """Say that a leak is taken for signal, and what would subtract it; or nothing."""
    left = remaining_leak(chip)
    if not left:
        return ""
    most = 2 ** (chip.weights.bits - 1) - 1
    return (
        f'cell.leak = "kept", and nothing subtracts it: every result has {left:.4g} sum(x) too much, with weights up '
        f'to {most}; weights.encoding = {{kind = "offset", correction = "expected"}} or a pair takes it out'
    )
