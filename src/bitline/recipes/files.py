"""What a recipe leaves in its run directory beside what `bitline train` does, and when it may be written again."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from torch import nn

from bitline import manifest
from bitline.chip.description import Chip, check
from bitline.differences import differences
from bitline.errors import DataError
from bitline.files import (
    AFTER,
    BEFORE,
    CHIP,
    CODE,
    CONFIG,
    CROSSBARS,
    FLOAT,
    FRONT,
    JOURNAL,
    KERNELS,
    METRICS,
    ON_CHIP,
    PACKED,
    PRUNING,
    RANGES,
    RECIPE,
    RECORD,
    RUN_MANIFEST,
    START,
    TRIALS,
    UNTRAINED,
    WEIGHTS,
    new_file,
    read_json,
    remove_parts,
    write_json,
    write_network,
)
from bitline.models.record import ModelRecord
from bitline.models.weights import check_weights
from bitline.recipes import recipe_file
from bitline.recipes.records.base import Recipe
from bitline.train.hardware import describe
from bitline.train.rundir import IfExists, empty

RESULT = (WEIGHTS, RECORD, CONFIG, METRICS, CHIP, RANGES, AFTER)
"""everything about the network that a recipe ends with"""

Say = Callable[[str], None]


def prepare(out: Path, config: Recipe, if_exists: IfExists) -> bool:
    """Say whether a recipe may begin; True if one is to be resumed; what is overwritten stays as yet.

    Raises:
        DataError: a directory that is not a recipe's, one that is not to be touched, or another configuration.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file; choose another --out")
    if if_exists != "resume" or not finished(out):
        remove_parts(out, (*manifest.PARTS, RUN_MANIFEST, JOURNAL))
    if config.run.resolve().is_relative_to(out.resolve()):
        raise DataError(f"{out} holds the network that the recipe begins with, {config.run}; choose another --out")
    if empty(out):
        return False
    if not (out / RECIPE).is_file():
        raise DataError(f"{out} exists and is not a recipe's run directory (no {RECIPE}); choose another --out")
    if if_exists == "refuse":
        state = "a finished recipe" if finished(out) else "an unfinished recipe"
        raise DataError(f"{out} holds {state}; add --resume to go on with it, or --overwrite to start again")
    if if_exists == "overwrite":
        return False
    saved, asked = recipe_file.read(out).model_dump(), config.model_dump()
    if saved["recipe"] != asked["recipe"]:
        saved, asked = ({"recipe": each["recipe"]} for each in (saved, asked))
    other = differences(asked, saved, free=("out", "data", "data_dir", "device", "threads", "checkpoint_every"))
    if other:
        listed = ", ".join(map(str, other))
        raise DataError(f"cannot resume {out} with another configuration: {listed}; or start again with --overwrite")
    return True


def finished(out: Path) -> bool:
    """Tell whether a recipe is finished."""
    return manifest.finished(out, AFTER)


def clear(out: Path) -> None:
    """Take away what an earlier recipe left, if there was one; after everything that can be refused has been."""
    stages = (START, FLOAT, ON_CHIP, KERNELS, PACKED, CROSSBARS)
    for folder in (CODE, *stages, *(path.name for path in out.glob("trial[0-9]*"))):
        shutil.rmtree(out / folder, ignore_errors=True)
    (out / RUN_MANIFEST).unlink(missing_ok=True)
    for name in (BEFORE, UNTRAINED, *RESULT, TRIALS, JOURNAL, FRONT, PRUNING, RECIPE):
        (out / name).unlink(missing_ok=True)


def copy(source: Path, target: Path, names: tuple[str, ...]) -> None:
    """Copy those of some files that there are, each whole or not at all, and the code that a record names."""
    for name in names:
        if (source / name).is_file():
            if name == RECORD:
                ModelRecord.read(source / name).copy_code(target)
            with new_file(target / name) as part:
                shutil.copyfile(source / name, part)


def write_run(
    folder: Path, network: nn.Module, record: ModelRecord, config: dict[str, Any], metrics: dict[str, Any]
) -> None:
    """Write a network that was not trained as a run directory; the manifest comes last."""
    folder.mkdir(parents=True, exist_ok=True)
    check_weights(network, f"{folder}: the network that was made")
    write_json(folder / CONFIG, {**config, **manifest.MARK})
    write_network(folder / WEIGHTS, network)
    record.write(folder)
    write_json(folder / METRICS, {**metrics, "hardware": describe()})
    manifest.write(folder)


@dataclass(frozen=True)
class Deployment:
    """What the network of a recipe runs on, and how.

    Args:
        chip: with its cells and ADCs.
        mapping: strategies, layer name or kind -> strategy.
        ranges: trained ADC ranges; None where calibration sets them.
        bias_correction: whether biases are set anew for each programmed chip.
    """

    chip: Chip
    mapping: dict[str, str]
    ranges: Path | None
    bias_correction: bool = False

    @classmethod
    def of(cls, folder: Path | None) -> Self | None:
        """Read it from a run directory; None where no recipe wrote it.

        Raises:
            DataError: a damaged file.
            ChipError: no such chip can exist.
        """
        if folder is None or not (folder / CHIP).is_file():
            return None
        chip = check(read_json(folder / CHIP), str(folder / CHIP))
        ranges = folder / RANGES if (folder / RANGES).is_file() else None
        if not (folder / RECIPE).is_file():
            return cls(chip, {}, ranges)
        config = recipe_file.read(folder)
        return cls(chip, config.mapping, ranges, config.corrects_biases)
