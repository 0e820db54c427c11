"""Trained networks from run directories, with what a recipe left beside them."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from bitline.chip.description import Chip, check
from bitline.data import DataSet
from bitline.differences import differences
from bitline.errors import DataError
from bitline.files import CHIP, RANGES, WEIGHTS, read_json
from bitline.models.files import load_run

_FORMATS = ("cell.bits", "cell.leak", "crossbar.", "dac.", "adc.bits", "adc.levels", "weights.", "inputs.")
_OF_RANGES = ("policy", "granularity", "calibration", "percentile", "range")
_WORDS = ("name", "about", "doi", "deviations")


@dataclass(frozen=True)
class Network:
    """A trained network and its data.

    Args:
        model: in evaluation mode.
        data: that it classifies.
        name: of the network.
        digest: of its weights and trained ranges.
        chip: that it was trained for; None where the run has no chip.json.
        ranges: trained ADC ranges; None where there are none.
    """

    model: nn.Module
    data: DataSet
    name: str
    digest: str
    chip: Chip | None = None
    ranges: Path | None = None


def network(run: Path, data: DataSet, name: str, *, trust_code: bool = False) -> Network:
    """Load the network of a run directory.

    Args:
        run: directory of ``bitline train`` or of a recipe.
        data: to measure on.
        name: to call the network.
        trust_code: run the Python file that the directory names.

    Raises:
        DataError: no finished run, or a damaged file.
    """
    loaded = load_run(run, trust_code=trust_code)
    ranges = run / RANGES if (run / RANGES).is_file() else None
    chip = check(read_json(run / CHIP), str(run / CHIP)) if (run / CHIP).is_file() else None
    return Network(loaded.model, loaded.record.fed(data), name, _digest(run), chip, ranges)


def _digest(run: Path) -> str:
    """Fingerprint of the weights, and of the trained ranges where there are some."""
    digest = hashlib.sha256()
    for name in (WEIGHTS, RANGES):
        if (run / name).is_file():
            digest.update((run / name).read_bytes())
    return digest.hexdigest()[:16]


def chip_for(network: Network, chip: Chip) -> tuple[Chip, list[str]]:
    """Return the chip of the study as this network uses it, and how the chip it was trained for differs.

    A network with trained ranges takes them along; all else is the chip of the study.

    Raises:
        DataError: the ranges were trained for other number formats, ADC bits or crossbars.
    """
    trained = network.chip
    adc = chip.adc
    if network.ranges is not None and trained is None:
        adc = adc.model_copy(update={"policy": "trained", "range": None})
    elif network.ranges is not None and trained is not None:
        adc = adc.model_copy(update={key: getattr(trained.adc, key) for key in _OF_RANGES})
    if trained is None:
        return chip.model_copy(update={"adc": adc}), []
    free = (*_WORDS, *(f"adc.{name}" for name in _OF_RANGES))
    other = differences(chip.model_dump(mode="json"), trained.model_dump(mode="json"), free=free)
    apart = [difference for difference in other if difference.key.startswith(_FORMATS)]
    if network.ranges is not None and apart:
        listed = "; ".join(f"{key} {was} (the study's chip: {asked})" for key, asked, was in apart)
        raise DataError(f"{network.name}: its ADC ranges were trained for another chip: {listed}")
    return chip.model_copy(update={"adc": adc}), [f"{key} {was} instead of {asked}" for key, asked, was in other]
