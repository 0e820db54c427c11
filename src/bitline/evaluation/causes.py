"""Which chips to compare so that each departure from the exact product shows alone."""

from dataclasses import dataclass

from bitline.chip.cell import Ideal, NoReadNoise
from bitline.chip.description import Chip
from bitline.chip.variants import ideal, with_cells
from bitline.evaluation.record import Cause


@dataclass(frozen=True)
class Stage:
    """One more departure than the stage before it.

    Args:
        cause: what is new.
        chip: the chip with all departures so far.
        seeded: whether the answer depends on the chip seed.
    """

    cause: Cause
    chip: Chip
    seeded: bool


def stages(chip: Chip) -> list[Stage]:
    """List the departures of a chip in the order they are added, leaving out those that it does not have.

    Quantization to integers comes first, then the ADC (with the leak of a finite on/off ratio, where it is kept), then
    programming error, stuck-at faults and read noise. The last stage is the chip itself.
    """
    cell = chip.cell
    programming = not isinstance(cell.programming, Ideal)
    faults = cell.faults.stuck_off > 0 or cell.faults.stuck_on > 0
    read_noise = not isinstance(cell.read_noise, NoReadNoise)
    steps = [Stage("quantization", ideal(chip), False), Stage("adc", with_cells(chip), False)]
    if programming:
        steps.append(Stage("programming", with_cells(chip, programming=True), True))
    if faults:
        steps.append(Stage("faults", with_cells(chip, programming=programming, faults=True), True))
    if read_noise:
        steps.append(Stage("read_noise", chip, True))
    return steps
