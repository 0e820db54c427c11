"""What a study of partial sums varies, and the chips that this makes."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast, get_args

from bitline.chip.description import Chip, check
from bitline.errors import DataError
from bitline.evaluation import Settings
from bitline.evaluation.record import Simulated
from bitline.mvm.adc import Granularity

RANGES: tuple[str, ...] = ("full", *get_args(Granularity))
"""range policies of the grid: the largest possible sum, or calibrated ranges shared by a layer, a slice and so on"""
_MOST_BITS = 12


@dataclass(frozen=True)
class Plan:
    """What to vary, and how thoroughly to measure.

    Args:
        chips: programmed chips.
        seed: of the first chip; the others follow.
        images: test images, from the first; all where absent.
        batch_size: images at once; no influence on any result.
        calibration_images: training images that set the ranges.
        layer_images: test images for the layers alone.
        tile_rows: wordlines driven at once, at one LSB, in the experiment on row tiles; none leaves it out.
        rows: crossbar heights of the grid, all rows driven at once.
        bits: ADC bits of the grid.
        ranges: range policies of the grid, of `RANGES`.
        simulation: ``"surrogate"``: points of the grid are estimated by `bitline.surrogate` first. Those that an
            estimate puts far below the best of their ADC, if it holds, are left at that; others are simulated exactly.
        progress: show bars.
    """

    chips: int = 3
    seed: int = 0
    images: int | None = None
    batch_size: int = 64
    calibration_images: int = 256
    layer_images: int = 8
    tile_rows: tuple[int, ...] = (32, 64, 128, 256, 512)
    rows: tuple[int, ...] = (32, 64, 128, 256)
    bits: tuple[int, ...] = (3, 4, 5, 6, 7, 8)
    ranges: tuple[str, ...] = RANGES
    simulation: Simulated = "exact"
    progress: bool = False

    def __post_init__(self) -> None:
        for name, most in (("tile_rows", 2**16), ("rows", 2**16), ("bits", _MOST_BITS)):
            values = cast("tuple[int, ...]", getattr(self, name))
            for value in values:
                if not 1 <= value <= most:
                    raise DataError(f"{name} has {value}; allowed: 1 to {most}")
        for each in self.ranges:
            if each not in RANGES:
                raise DataError(f"ranges has {each!r}; allowed: {', '.join(RANGES)}")
        for name in ("tile_rows", "rows", "bits", "ranges"):
            object.__setattr__(self, name, _once(getattr(self, name)))
        if self.simulation not in get_args(Simulated):
            raise DataError(f"simulation is {self.simulation!r}; allowed: {', '.join(get_args(Simulated))}")
        if self.layer_images < 1:
            raise DataError(f"layer_images is {self.layer_images}; allowed: 1 or more")
        self.settings  # noqa: B018  (refuses what makes no sense)

    @property
    def settings(self) -> Settings:
        """How `bitline.evaluation` measures under this plan."""
        return Settings(
            chips=self.chips,
            seed=self.seed,
            images=self.images,
            batch_size=self.batch_size,
            calibration_images=self.calibration_images,
            diagnose_images=self.layer_images,
            progress=False,
        )

    @property
    def decides(self) -> dict[str, Any]:
        """Everything here that a result depends on, as plain data."""
        free = ("batch_size", "progress", *(["simulation"] if self.simulation == "exact" else []))
        return {
            key: list(cast("tuple[Any, ...]", value)) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
            if key not in free
        }


def _once(values: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(values))


def at_height(chip: Chip, rows: int) -> Chip:
    """Return the chip with crossbars of another height, all rows driven at once."""
    return _with(chip, {"rows": rows, "active_rows": rows}, {})


def variant(chip: Chip, rows: int, bits: int, ranges: str) -> Chip:
    """Return the chip with another crossbar height, ADC width and range policy.

    Args:
        chip: to vary.
        rows: of its crossbars, all driven at once.
        bits: of its ADCs.
        ranges: one of `RANGES`.

    Raises:
        ChipError: no such chip can exist.
    """
    policy = {"policy": "full"} if ranges == "full" else {"policy": "calibrated", "granularity": ranges}
    return _with(chip, {"rows": rows, "active_rows": rows}, {"bits": bits, **policy})


def _with(chip: Chip, crossbar: dict[str, Any], adc: dict[str, Any]) -> Chip:
    data = chip.model_dump(mode="json", exclude_none=True)
    data["crossbar"] |= crossbar
    if adc:
        # A range in amperes and a number of codes belong to the ADC that is replaced.
        data["adc"] = {key: value for key, value in data["adc"].items() if key not in {"range", "levels"}} | adc
    return check(data, f"chip {chip.name}")
