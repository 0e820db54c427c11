"""Claim: cells written in turn, and again only where that pays, hold weights best for the writes they take.

Weights of 8 bits, --side x --side, normal with a standard deviation of 30, in pairs of 2-bit cells with log-normal
programming error (centred): 0.1, 0.1 with the stuck-at faults of crimp-32nm, and 0.5. Written at once; at once with
every cell written again until it is close to its level; and in turn, each cell read back before the next is written.
Per way, over --draws seeds of weights, faults and writes: root mean square of a weight's error (mean and std), the
largest error of all, and writes a weight; those of verified cells are what their chance of success gives on the mean.
Hardware, runtime and seeds: written into the result.

    python experiments/writing.py
"""

import argparse
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bitline import chip as chips
from bitline.chip.cell import Cell, Faults
from bitline.chip.description import Chip
from bitline.evaluation import Spread
from bitline.files import write_json
from bitline.mapping.encode import decode, encode, worth
from bitline.mapping.lower import Matmul
from bitline.mapping.place import dense
from bitline.physics.faults import stuck_levels
from bitline.physics.program import effective_levels, exact_levels, outcomes
from bitline.physics.readback import write_in_turn
from bitline.physics.verify import verify
from bitline.train.hardware import describe, git_commit

RESULT = Path(__file__).parent / "results" / "writing.json"
STD = 30.0
CONDITIONS = {"sigma 0.1": (0.1, False), "faults, sigma 0.1": (0.1, True), "sigma 0.5": (0.5, False)}
VERIFIED = {"verified to 0.5 levels": 0.5, "verified to 0.25 levels": 0.25, "verified to 0.1 levels": 0.1}
REWRITES = {"in turn": 0, "in turn, 1 rewrite": 1, "in turn, 2 rewrites": 2, "in turn, 3 rewrites": 3}


def rng(*seed: int) -> torch.Generator:
    """Return a generator of its own."""
    return torch.Generator().manual_seed(sum(part * 1000**place for place, part in enumerate(seed)))


def ways(
    asked: Tensor, stuck: Tensor | None, chip: Chip, cell: Cell, seed: int
) -> dict[str, tuple[Tensor, float, float]]:
    """Write levels in every way.

    Returns:
        What cells then add, level units, how many writes it took, and how many of them were not a cell's first.
    """
    at_once = effective_levels(asked, stuck, cell, generator=rng(2, seed))
    needed = asked.bool() if stuck is None else asked.bool() & (stuck < 0)
    first = float(needed.sum())
    found: dict[str, tuple[Tensor, float, float]] = {"at once": (at_once, first, 0.0)}
    reached, exact = outcomes(cell), exact_levels(cell)
    for name, tolerance in VERIFIED.items():
        hits = ((reached - exact[:, None]).abs() <= tolerance).float().mean(1)
        again = float((1 / hits - 1)[asked[needed].int()].sum())
        found[name] = verify(at_once, asked, needed, cell, tolerance, generator=rng(3, seed)), first + again, again
    for name, rewrites in REWRITES.items():
        written = write_in_turn(asked, stuck, worth(chip), cell, generator=rng(2, seed), rewrites=rewrites)
        found[name] = written.real, float(written.writes), float(written.rewrites)
    return found


def main() -> None:
    """Measure all ways under all conditions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=512, help="rows and columns of weights")
    parser.add_argument("--draws", type=int, default=5, help="two or more")
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    chip = chips.load("crimp-32nm", ["weights.encoding=pair", "cell.programming.centred=true"])
    placement = dense(Matmul("weights", "linear", options.side, options.side), chip)
    points, start = list[dict[str, Any]](), time.perf_counter()
    for condition, (sigma, faulty) in CONDITIONS.items():
        programming = chip.cell.programming.model_copy(update={"sigma": sigma})
        changes = {"programming": programming} | ({} if faulty else {"faults": Faults()})
        cell = chip.cell.model_copy(update=changes)
        draws = defaultdict[str, list[tuple[float, ...]]](list)
        for seed in range(options.draws):
            weights = torch.randn(1, options.side, options.side, generator=rng(0, seed)) * STD
            weights = weights.round().clamp(-127, 127)
            asked = encode(weights, placement)
            stuck = stuck_levels(asked.shape, cell, generator=rng(1, seed))
            for name, (real, *writes) in ways(asked, stuck, chip, cell, seed).items():
                errors = decode(real, placement) - weights
                rms, largest = float(errors.square().mean().sqrt()), float(errors.abs().max())
                draws[name].append((rms, largest, *(count / weights.numel() for count in writes)))
        for name, drawn in draws.items():
            rms, largest, writes, again = zip(*drawn, strict=True)
            spread = Spread.of(rms)
            point = {
                "condition": condition,
                "way": name,
                "rms": spread.mean,
                "rms_std": spread.std,
                "largest": max(largest),
                "writes": statistics.fmean(writes),
                "again": statistics.fmean(again),
            }
            points.append(point)
            print(f"{condition}; {name}: rms {point['rms']:.2f}, {point['writes']:.2f} writes a weight", flush=True)
    setting = {"side": options.side, "std": STD, "seeds": list(range(options.draws))}
    seconds = round(time.perf_counter() - start, 1)
    origin = {"seconds": seconds, "hardware": describe(), "commit": git_commit()}
    write_json(options.result, {"setting": setting, "points": points, **origin, "chip": chip.model_dump(mode="json")})


if __name__ == "__main__":
    main()
