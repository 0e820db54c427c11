"""A network put on a chip and calibrated, ready to be asked."""

import logging
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from operator import getitem
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bitline.chip.description import Chip
from bitline.cost.model import Cost, price
from bitline.data import DataSet
from bitline.errors import ConversionError
from bitline.evaluation import record
from bitline.evaluation.densities import measure
from bitline.evaluation.score import Tick, score
from bitline.evaluation.settings import Settings
from bitline.evaluation.simulation import Simulations
from bitline.evaluation.task import CalibrationImages, Task, of_data
from bitline.integer.stored import store
from bitline.integer.trace import trace
from bitline.network.copy import copied
from bitline.network.inputs import Inputs, mapped
from bitline.network.trace import poolings
from bitline.nn import IDEAL, calibrate, crossbar_layers, on, placement, set_chip, to_crossbar
from bitline.nn.bias_correction import correct_biases
from bitline.nn.convert import Conversion, ConversionReport
from bitline.nn.range_training import load_ranges, ranged_layers
from bitline.programming.remap import check_installed

log = logging.getLogger(__name__)


@dataclass
class OnChip:
    """A network put on a chip and calibrated.

    Args:
        model: converted.
        report: which layers are on crossbars, and what stays digital.
        plain: the network as it was.
        data: that it classifies, or what else it is asked.
        settings: of the evaluation.
    """

    model: nn.Module
    report: ConversionReport
    plain: nn.Module
    data: DataSet | Task
    settings: Settings
    task: Task = field(init=False)
    simulation: Simulations = field(init=False)
    simulations: list[record.Simulation] = field(init=False, default_factory=list[record.Simulation])
    """of other processes"""

    def __post_init__(self) -> None:
        self.task = task_of(self.data, self.settings)
        self.simulation = Simulations(self.model, self.settings.simulation, partial(getitem, self.task.calibration, 0))

    def accuracy(self, chip: Chip, seed: int, tick: Tick | None = None) -> float:
        """How well one programmed chip answers, by the metric of the task; -1 is the seed of ideal cells."""
        # Biases first: what corrects them, and what a surrogate is measured on, is what the chip answers.
        with on(self.model, chip, seed), self._biases_corrected(seed), self.simulation(chip, seed):
            return score(self.model, self.task, tick)

    def __getstate__(self) -> dict[str, Any]:  # another process needs neither the plain network nor all images
        return {**vars(self), "plain": self.model, "data": self.task, "simulations": []}

    @contextmanager
    def _biases_corrected(self, seed: int) -> Generator[None]:
        """Keep the biases set for a programmed chip, where the settings say so; ideal cells need none."""
        if not self.settings.bias_correction or seed == IDEAL:
            yield
            return
        before = correct_biases(self.model, self._calibration())
        try:
            yield
        finally:
            before.restore()

    def price(self) -> Cost:
        """Price the network where it is placed, with bit densities measured on test images."""
        inputs = on_device(self.task.first(self.settings.diagnose_images), self.model)
        where, densities = placement(self.model), measure(self.model, inputs)
        one = mapped(inputs, lambda x: x[:1])
        return price(where, densities=densities, poolings=poolings(self.plain, one, densities))

    def placed_on(self, chip: Chip, ranges: Path | None = None) -> None:
        """Move to a chip with other ADCs, crossbars or cells, and calibrate where its ranges are not known.

        Where there is a file of ranges, they come from it.

        Ranges fitted in turn hang on what the layers before answered, by the ranges of the chip that it was on.
        """
        check_installed(chip.mitigation)
        layers = crossbar_layers(self.model).values()
        before = [int(layer.ranges.calibrated_for) for layer in layers]
        set_chip(self.model, chip)
        self.simulation.forget()
        again = self.settings.in_turn and before != [int(layer.ranges.calibrated_for) for layer in layers]
        unknown = not all(layer.ranges.known(layer.chip) for layer in layers)
        if unknown and ranges is not None and chip.adc.keeps_ranges:
            load_ranges(self.model, ranges)
        elif (again and chip.adc.keeps_ranges) or unknown:
            self.calibrate()

    def _calibration(self) -> list[tuple[Inputs]]:
        """Calibration inputs as batches without targets."""
        return [(self.task.calibration[number],) for number in range(len(self.task.calibration))]

    def calibrate(self) -> None:
        """Set the ranges on the calibration inputs of the task."""
        if isinstance(self.task.calibration, CalibrationImages):
            self.task.calibration.remark()
        settings = self.settings
        calibrate(self.model, self._calibration(), in_turn=settings.in_turn, progress=settings.progress)


def put_on_chip(
    model: nn.Module,
    data: DataSet | Task,
    chip: Chip,
    settings: Settings,
    *,
    ranges: Path | None = None,
    mapping: Mapping[str, str] | None = None,
) -> OnChip:
    """Convert a network, and calibrate it on training images or give it the ranges of a file.

    Where biases are integers too, values that several operations read are stored as integers, see
    `bitline.integer.stored`:
    the answers are those of `bitline.integer.network` then.

    Args:
        model: trained; it is not changed.
        data: that it classifies, or what else it is asked.
        chip: to put it on.
        settings: of the evaluation.
        ranges: a file of `bitline.nn.range_training.save_ranges`.
        mapping: how layers of several groups are laid out, see `bitline.nn.to_crossbar`.

    Raises:
        ConversionError: no layer that a chip could hold, the network does not take these images, an unknown key or
            strategy in `mapping`, or the ranges are not for this network or chip.
        MappingError: the chip has too few crossbars, or a layer does not fit as `mapping` says.
        DataError: an absent or damaged file of ranges.
    """
    return calibrated(converted(model, data, chip, settings, mapping, ranges), ranges)


def converted(
    model: nn.Module,
    data: DataSet | Task,
    chip: Chip,
    settings: Settings,
    mapping: Mapping[str, str] | None,
    ranges: Path | None,
) -> OnChip:
    """Convert a network, whose ranges are not set yet; what was digital when those of a file were trained stays so."""
    check_installed(chip.mitigation)
    task = task_of(data, settings)
    plain = copied(model).eval()
    example = on_device(task.first(2), plain)
    on_crossbars, report = mapped_as_trained(plain, chip, example, mapping, ranges)
    if chip.weights.bias_bits is not None:
        trace(on_crossbars, _one(on_device(task.first(2), plain)))  # refuses what has no integer form
    return OnChip(on_crossbars, report, plain, data if isinstance(data, DataSet) else task, settings)


def mapped_as_trained(
    plain: nn.Module, chip: Chip, example: Inputs, mapping: Mapping[str, str] | None, ranges: Path | None
) -> Conversion:
    """Convert a network; what was digital when the ranges of a file were trained stays so, which is said.

    Args:
        plain: in evaluation mode.
        chip: to put it on.
        example: one batch.
        mapping: how layers of several groups are laid out.
        ranges: a file of trained ranges, if there is one.

    Raises:
        ConversionError: see `bitline.nn.to_crossbar`.
        DataError: an absent or damaged file.
    """
    made = to_crossbar(plain, chip, example=example, mapping=mapping)
    if ranges is None or not made.report.rewritten or crossbar_layers(made.model).keys() <= ranged_layers(ranges):
        return made
    log.warning(
        "%s: code that hides layers, and was digital while the ranges of %s were trained; it stays digital, unlike in "
        "figures of the network with other ranges",
        ", ".join(name or "(model)" for name in made.report.rewritten),
        ranges,
    )
    return to_crossbar(plain, chip, example=example, mapping=mapping, rewrite=False)


def calibrated(on_chip: OnChip, ranges: Path | None) -> OnChip:
    """Set the ranges of a network that was converted, and return it."""
    model = on_chip.model
    if ranges is not None:
        load_ranges(model, ranges)
    else:
        on_chip.calibrate()
    if placement(model).chip.weights.bias_bits is not None:
        store(model, _one(on_device(on_chip.task.calibration[0], model)))
    return on_chip


def _one(inputs: Inputs) -> Tensor:
    """Refuse several inputs where integers need one."""
    if not isinstance(inputs, Tensor):
        raise ConversionError("weights.bias_bits is set; networks of several inputs have no integer biases yet")
    return inputs


def check_priced(
    model: nn.Module, data: DataSet | Task, chip: Chip, settings: Settings, mapping: Mapping[str, str] | None = None
) -> None:
    """Refuse a chip that the network does not fit on, or that has no price, before anything slow is done.

    Args:
        model: trained; it is not changed.
        data: that it classifies, or what else it is asked.
        chip: to put it on.
        settings: of the evaluation.
        mapping: how layers of several groups are laid out.

    Raises:
        ConversionError: no layer that a chip could hold, or an unknown key or strategy in `mapping`.
        MappingError: the chip has too few crossbars.
        ChipError: no such cost table, or one that does not hold for the chip.
        DataError: more images asked for than there are.
    """
    price(placement(converted(model, data, chip, settings, mapping, None).model))


def surrogate_images(data: DataSet, settings: Settings) -> Tensor:
    """Training images that a surrogate is measured on: the first calibration batch."""
    settings.check(data)
    return CalibrationImages(data, settings)[0]


def calibration_batches(data: DataSet, settings: Settings) -> list[Tensor]:
    """First training images, normalized, in batches."""
    settings.check(data)
    images = CalibrationImages(data, settings)
    images.remark()
    return [images[number] for number in range(len(images))]


def task_of(data: DataSet | Task, settings: Settings) -> Task:
    """Return what a network is asked."""
    return of_data(data, settings) if isinstance(data, DataSet) else data


def on_device(inputs: Inputs, model: nn.Module) -> Inputs:
    """Return inputs on the torch device of a network."""
    device = next(model.parameters()).device
    return mapped(inputs, lambda x: x.to(device))
