"""Claim: cells written in turn, and again only where that pays, hold weights best for the writes they take.

Weights of 8 bits, --side x --side, normal with a standard deviation of 30, in pairs of 2-bit cells with log-normal
programming error (centred): 0.1, 0.1 with the stuck-at faults of crimp-32nm, and 0.5. Written at once; at once with
every cell written again until it is close to its level; and in turn, each cell read back before the next is written.
Per way: root mean square and largest error of a weight, weight units, and writes a weight; those of verified cells are
the mean that their chance of success gives. Nothing here is trained or measured by accuracy.

    python experiments/writing.py
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bitline import chip as chips
from bitline.chip.description import Cell, Chip, Faults
from bitline.mapping.encode import worth
from bitline.physics.faults import stuck_levels
from bitline.physics.program import effective_levels, exact_levels, outcomes
from bitline.physics.readback import write_in_turn
from bitline.physics.verify import verify
from bitline.train.checkpoint import write_json
from bitline.train.hardware import describe, git_commit

RESULT = Path(__file__).parent / "results" / "writing.json"
STD = 30.0
CONDITIONS = {"sigma 0.1": (0.1, False), "faults, sigma 0.1": (0.1, True), "sigma 0.5": (0.5, False)}
VERIFIED = {"verified to 0.5 levels": 0.5, "verified to 0.25 levels": 0.25, "verified to 0.1 levels": 0.1}
REWRITES = {"in turn": 0, "in turn, 1 rewrite": 1, "in turn, 2 rewrites": 2, "in turn, 3 rewrites": 3}


def rng(seed: int) -> torch.Generator:
    """Return a generator of its own."""
    return torch.Generator().manual_seed(seed)


def levels(weights: Tensor, slices: int) -> Tensor:
    """Levels of the cells of a pair, (1, sides, slices, rows, columns), uint8."""
    sides = (weights.clamp(min=0), (-weights).clamp(min=0))
    return torch.stack([torch.stack([side >> 2 * s & 3 for s in range(slices)]) for side in sides])[None].byte()


def ways(asked: Tensor, stuck: Tensor | None, chip: Chip, cell: Cell) -> dict[str, tuple[Tensor, float]]:
    """Write levels in every way; what cells then add, level units, and how many writes it took."""
    at_once = effective_levels(asked, stuck, cell, generator=rng(2))
    needed = asked.bool() if stuck is None else asked.bool() & (stuck < 0)
    first = float(needed.sum())
    found: dict[str, tuple[Tensor, float]] = {"at once": (at_once, first)}
    reached, exact = outcomes(cell), exact_levels(cell)
    for name, tolerance in VERIFIED.items():
        hits = ((reached - exact[:, None]).abs() <= tolerance).float().mean(1)
        again = float((1 / hits - 1)[asked[needed].int()].sum())
        found[name] = verify(at_once, asked, needed, cell, tolerance, generator=rng(4)), first + again
    for name, rewrites in REWRITES.items():
        written = write_in_turn(asked, stuck, worth(chip), cell, generator=rng(2), rewrites=rewrites)
        found[name] = written.real, float(written.first + written.again)
    return found


def main() -> None:
    """Measure all ways under all conditions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=512, help="rows and columns of weights")
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    chip = chips.load("crimp-32nm", ["weights.encoding=pair", "cell.programming.centred=true"])
    weights = (torch.randn(options.side, options.side, generator=rng(0)) * STD).round().clamp(-127, 127).int()
    asked, points = levels(weights, chip.slices), list[dict[str, Any]]()
    for condition, (sigma, faulty) in CONDITIONS.items():
        programming = chip.cell.programming.model_copy(update={"sigma": sigma})
        changes = {"programming": programming} | ({} if faulty else {"faults": Faults()})
        cell = chip.cell.model_copy(update=changes)
        stuck = stuck_levels(asked.shape, cell, generator=rng(1))
        for name, (real, writes) in ways(asked, stuck, chip, cell).items():
            errors = torch.einsum("gksrc,ks->rc", real.double(), worth(chip).double()) - weights
            point = {"rms": float(errors.square().mean().sqrt()), "largest": float(errors.abs().max())}
            points.append({"condition": condition, "way": name, **point, "writes": writes / weights.numel()})
            print(
                f"{condition}; {name}: rms {point['rms']:.2f}, {points[-1]['writes']:.2f} writes a weight", flush=True
            )
    setting = {"side": options.side, "std": STD, "chip": chip.model_dump(mode="json")}
    write_json(options.result, {"setting": setting, "points": points, "hardware": describe(), "commit": git_commit()})


if __name__ == "__main__":
    main()
