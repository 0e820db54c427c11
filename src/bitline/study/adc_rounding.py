"""Does an ADC that rounds to whole levels remove the errors of cells? A Monte-Carlo over the height of a crossbar.

Round(n + e) = n + Round(e): an error below half a level vanishes. CRIMP (Huai et al., ACM TECS 2023) takes the *mean*
error of a column, H * mean input * mean level * (e^(sigma^2 / 2) - 1), asks that it stay below half a level, and
concludes H <= 133 at sigma = 0.1 and H <= 33 at 0.2. A column's error has a spread too, which is larger than its mean;
this study draws columns and states what is left after rounding. Assumed, as there: half of the inputs are 1, all levels
occur alike. The table is of programming errors alone, as there; the heights are compared with the chip's faults too.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from bitline import seeds
from bitline.chip.cell import Faults, LogNormal
from bitline.chip.description import Chip
from bitline.errors import ChipError
from bitline.physics.faults import stuck_levels
from bitline.physics.program import effective_levels

CASES = ((0.1, 128), (0.1, 32), (0.1, 16), (0.2, 32), (0.05, 128), (0.02, 128))
"""sigma and height of the table"""
HEIGHTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
ROWS = 1024
"""rows of the layer whose heights are compared"""


@dataclass(frozen=True)
class Rounding:
    """What is left of the errors of a column after its conversion.

    Args:
        height: wordlines driven at once.
        nonzero: share of conversions whose rounded error is not 0.
        mean: of the rounded error, levels.
        mean_abs: of its magnitude, levels.
        power: mean square of the error of a sum of `ROWS` rows, added up from rounded row tiles, levels squared.
        unrounded: the same without rounding.
    """

    height: int
    nonzero: float
    mean: float
    mean_abs: float
    power: float
    unrounded: float


def rounding(chip: Chip, height: int, *, columns: int = 4000, seed: int = 0) -> Rounding:
    """Draw columns of a crossbar and convert their errors.

    Args:
        chip: whose cells are programmed; levels and faults are its own.
        height: wordlines driven at once.
        columns: drawn.
        seed: of the draws.
    """
    cell = chip.cell
    generator = seeds.generator(seed, "adc rounding", height)
    top = cell.max_level + 1
    levels = torch.randint(0, top, (columns, height), generator=generator, dtype=torch.uint8)
    stuck = stuck_levels(levels.shape, cell, generator=generator)
    errors = effective_levels(levels, stuck, cell, generator=generator).double() - levels
    driven = torch.rand(columns, height, generator=generator) < 0.5
    e = (errors * driven).sum(1)
    left, tiles = e.round(), max(1, ROWS // height)
    return Rounding(
        height,
        float((left != 0).double().mean()),
        float(left.mean()),
        float(left.abs().mean()),
        _power(left, tiles),
        _power(e, tiles),
    )


def _power(e: Tensor, tiles: int) -> float:
    """Mean square of a sum of so many independent errors."""
    return float(tiles * e.var() + (tiles * e.mean()) ** 2)


def height_rule(chip: Chip) -> int:
    """Return the greatest height at which the mean error of a column stays below half a level.

    Raises:
        ChipError: cells whose error has no mean.
    """
    cell = chip.cell
    drift = _mean_error(chip)
    if drift == 0:
        raise ChipError(f"chip {chip.name}: the mean error of a cell is 0; the height rule limits nothing")
    return int(0.5 / (0.5 * cell.max_level / 2 * drift))


def _mean_error(chip: Chip) -> float:
    """Mean of e^theta - 1."""
    model = chip.cell.programming
    if not isinstance(model, LogNormal):
        raise ChipError(
            f"chip {chip.name}: cell.programming.kind = {model.kind!r}; the height rule is stated for 'lognormal'"
        )
    return 0.0 if model.centred else float(torch.tensor(model.sigma**2 / 2, dtype=torch.float64).expm1())


def best_height(chip: Chip, *, columns: int = 4000, seed: int = 0) -> int:
    """Return the height, of `HEIGHTS` up to the crossbar's rows, at which rounding leaves the least error power."""
    return min(_by_height(chip, columns, seed), key=lambda each: each.power).height


def _by_height(chip: Chip, columns: int, seed: int) -> list[Rounding]:
    """Draw about as many cells at every height."""
    heights = [height for height in HEIGHTS if height <= chip.crossbar.rows]
    most = heights[-1]
    return [rounding(chip, height, columns=columns * most // height, seed=seed) for height in heights]


def with_sigma(chip: Chip, sigma: float, *, centred: bool = False) -> Chip:
    """Return the same chip whose cells err by a log-normal factor alone, none of them stuck."""
    model = LogNormal(kind="lognormal", sigma=sigma, centred=centred)
    return chip.model_copy(update={"cell": chip.cell.model_copy(update={"programming": model, "faults": Faults()})})


def adc_rounding(chip: Chip, *, columns: int = 4000, seed: int = 0) -> dict[str, Any]:
    """Make the table, what the height rule says to it, and the heights of a chip.

    Args:
        chip: whose cells have levels and, for the heights, a log-normal error.
        columns: drawn for each row of the table, and at the greatest height; more of them at lower ones.
        seed: of the draws.

    Returns:
        Plain data: ``table``, ``heights``, ``rule``, ``best_height``, ``statement``.

    Raises:
        ChipError: cells of another programming model.
    """
    seeds.check(seed)
    _mean_error(chip)
    model = chip.cell.programming
    assert isinstance(model, LogNormal)
    table: list[dict[str, Any]] = []
    for sigma, height in CASES:
        at = with_sigma(chip, sigma)
        table.append(
            {"sigma": sigma, "rule": height_rule(at)} | asdict(rounding(at, height, columns=columns, seed=seed))
        )
    heights = [asdict(each) for each in _by_height(chip, columns, seed)]
    best = min(heights, key=lambda each: each["power"])
    rule = None if model.centred or not model.sigma else height_rule(chip)
    return {
        "study": "adc-rounding",
        "chip": chip.name,
        "sigma": model.sigma,
        "centred": model.centred,
        "columns": columns,
        "seed": seed,
        "rows": ROWS,
        "table": table,
        "heights": heights,
        "rule": rule,
        "best_height": best["height"],
        "statement": _statement(chip, rule, best, columns=columns, seed=seed),
    }


def _statement(chip: Chip, rule: int | None, best: dict[str, Any], *, columns: int, seed: int) -> str:
    share = best["power"] / best["unrounded"] if best["unrounded"] else 1.0
    stuck = chip.cell.faults.stuck_off + chip.cell.faults.stuck_on
    faults = f", with {100 * stuck:.1f} % of the cells stuck" if stuck else ""
    words = (
        f"Of the heights compared{faults}, {best['height']} wordlines leave the least error power; rounding makes it "
        f"{share:.2f} times what it would be without."
    )
    if rule is None:
        return f"The mean error of a cell is zero, so the height rule limits nothing. {words}"
    height = max(1, min(rule, chip.crossbar.rows))
    model = chip.cell.programming
    assert isinstance(model, LogNormal)
    at = rounding(with_sigma(chip, model.sigma), height, columns=columns, seed=seed)
    return (
        f"By the height rule a column of {rule} wordlines errs by less than half a level. With {height} wordlines, "
        f"{100 * at.nonzero:.0f} % of conversions err all the same, by {at.mean_abs:.2f} levels on the mean of all; "
        f"rounding makes the error power {at.power / at.unrounded:.2f} times what it would be without. {words}"
    )
