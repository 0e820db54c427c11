"""What a command puts a network on: the chip that is named, or the one that a recipe made the network for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bitline import manifest
from bitline.chip import Chip, load, replace
from bitline.errors import DataError
from bitline.files import RECORD

DEFAULT = "rram-22nm"


@dataclass(frozen=True)
class Target:
    """A chip, and what else a recipe's run says.

    Args:
        chip: with what `--set` says.
        mapping: strategies as on the command line.
        ranges: trained ADC ranges, where the chip wants them.
        bias_correction: whether biases are set anew for each programmed chip.
    """

    chip: Chip
    mapping: Sequence[str]
    ranges: Path | None
    bias_correction: bool


def target(
    run: Path | None, chip: str | None, overrides: Sequence[str] | None, mapping: Sequence[str] | None
) -> Target:
    """Take what the options of a command say, and the rest from the run that a recipe wrote.

    Args:
        run: a run directory; one that no recipe wrote says nothing.
        chip: a preset or a file; None: that of the run, or the default.
        overrides: KEY=VALUE of chip keys.
        mapping: LAYER or KIND=STRATEGY; None or none: that of the run.

    Raises:
        DataError: a damaged file of the run.
        ChipError: no such chip can exist.
    """
    keys = tuple(overrides or ())
    deployment = None
    if run is not None and run.is_dir():
        from bitline.recipes.files import Deployment  # with all that trains; what only prices does without

        if (run / RECORD).is_file():
            manifest.check(run)
        deployment = Deployment.of(run)
    if deployment is None:
        return Target(load(chip or DEFAULT, keys), mapping or [], None, bias_correction=False)
    target = replace(deployment.chip, *keys) if chip is None else load(chip, keys)
    layout = mapping or [f"{key}={value}" for key, value in deployment.mapping.items()]
    ranges = deployment.ranges if chip is None and target.adc.policy == "trained" else None
    return Target(target, layout, ranges, deployment.bias_correction)


def refuse_beside_run(run: Path, options: Mapping[str, object]) -> None:
    """Raise DataError where options were given that a run directory has an answer to itself; None was not given."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise DataError(f"{run} is a run directory, which has its own {', '.join(given)}: leave it out")


def refuse_beside(what: str, options: Mapping[str, object]) -> None:
    """Raise DataError where options were given that do nothing beside `what`; None was not given."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise DataError(f"{', '.join(given)} does nothing here, beside {what}: leave it out")
