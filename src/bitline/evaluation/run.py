"""One network on many programmed chips: accuracy with spread, loss by cause, cost, layer by layer."""

import logging
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path

from pydantic import ValidationError
from torch import Tensor, nn

from bitline import seeds
from bitline.chip.description import Chip
from bitline.cost.model import Cost, price
from bitline.cost.result import LayerCost
from bitline.data import DataSet
from bitline.errors import DataError
from bitline.evaluation import record
from bitline.evaluation.causes import Stage, stages
from bitline.evaluation.densities import measure
from bitline.evaluation.diagnose import Diagnosis, diagnose
from bitline.evaluation.environment import Environment
from bitline.evaluation.record import CAUSES, FORMAT, Accuracy, Evaluation, Layer, Loss, Simulated, Times
from bitline.evaluation.score import Tick, accuracy
from bitline.evaluation.simulation import Simulations
from bitline.evaluation.spread import Spread
from bitline.integer.stored import store
from bitline.network.copy import copied
from bitline.network.trace import poolings
from bitline.nn import IDEAL, calibrate, crossbar_layers, on, placement, set_chip, to_crossbar
from bitline.nn.bias_correction import correct_biases
from bitline.nn.convert import ConversionReport
from bitline.nn.range_training import load_ranges
from bitline.train.hardware import git_commit

log = logging.getLogger(__name__)
CALIBRATION_BATCH = 64
"""images at once; a constant, since which partial sums are counted depends on it"""


CALIBRATION_IMAGES = 256
"""by default; all where there are fewer"""


@dataclass(frozen=True)
class Settings:
    """How thoroughly to evaluate.

    Args:
        chips: programmed chips.
        seed: of the first chip; the others follow.
        images: test images, from the first; all where absent.
        batch_size: images at once; no influence on any result but that of the `batch_minmax` policy.
        calibration_images: training images that set the input and ADC ranges; by default all where there are fewer.
        in_turn: fit the ADC ranges of one layer after the other, see `bitline.nn.calibrate`.
        bias_correction: set the biases of each programmed chip on these images, see `bitline.nn.bias_correction`.
        diagnose_images: test images for the layer-by-layer statistics.
        cause_chips: chips on which the loss is split by cause; at most `chips`.
        simulation: ``"surrogate"``: accuracies are those of one plain product with noise, see `bitline.surrogate`,
            whose statistics are measured on the first calibration images.
        progress: show bars.
    """

    chips: int = 20
    seed: int = 0
    images: int | None = None
    batch_size: int = 64
    calibration_images: int = CALIBRATION_IMAGES
    in_turn: bool = False
    bias_correction: bool = False
    diagnose_images: int = 16
    cause_chips: int = 5
    simulation: Simulated = "exact"
    progress: bool = False

    def __post_init__(self) -> None:
        for name, least in (
            ("chips", 0),
            ("batch_size", 1),
            ("calibration_images", 1),
            ("diagnose_images", 1),
            ("cause_chips", 1),
        ):
            if getattr(self, name) < least:
                raise DataError(f"{name} is {getattr(self, name)}; allowed: {least} or more")
        seeds.check(self.seed, count=self.chips)

    def check(self, data: DataSet) -> None:
        """Refuse more images than there are.

        Raises:
            DataError: there are not; or none are asked for.
        """
        for name, split, there in (
            ("images", "test", len(data.test_images)),
            ("calibration_images", "training", len(data.train_images)),
        ):
            count = getattr(self, name)
            if (name, count) == ("calibration_images", CALIBRATION_IMAGES):
                continue
            if count is not None and not 1 <= count <= there:
                raise DataError(f"{name} is {count}; allowed: 1 to {there}, the {split} images of {data.title}")

    @property
    def seeds(self) -> list[int]:
        """Seeds of the programmed chips."""
        return list(range(self.seed, self.seed + self.chips))


@dataclass
class OnChip:
    """A network put on a chip and calibrated.

    Args:
        model: converted.
        report: which layers are on crossbars, and what stays digital.
        plain: the network as it was.
        data: that it classifies.
        settings: of the evaluation.
    """

    model: nn.Module
    report: ConversionReport
    plain: nn.Module
    data: DataSet
    settings: Settings
    simulation: Simulations = field(init=False)

    def __post_init__(self) -> None:
        batches = partial(calibration_batches, self.data, self.settings)
        self.simulation = Simulations(self.model, self.settings.simulation, batches)

    def accuracy(self, chip: Chip, seed: int, tick: Tick | None = None) -> float:
        """Percentage of test images that one programmed chip gets right; -1 is the seed of ideal cells."""
        # Biases first: what corrects them, and what a surrogate is measured on, is what the chip answers.
        with on(self.model, chip, seed), self._biases_corrected(seed), self.simulation(chip, seed):
            return accuracy(
                self.model, self.data, images=self.settings.images, batch_size=self.settings.batch_size, tick=tick
            )

    @contextmanager
    def _biases_corrected(self, seed: int) -> Generator[None]:
        """Keep the biases set for a programmed chip, where the settings say so; ideal cells need none."""
        if not self.settings.bias_correction or seed == IDEAL:
            yield
            return
        before = correct_biases(self.model, calibration_batches(self.data, self.settings))
        try:
            yield
        finally:
            before.restore()

    def price(self) -> Cost:
        """Price the network where it is placed, with bit densities measured on test images."""
        images = next(self.data.batches("test", batch_size=self.settings.diagnose_images))[0]
        where, densities = placement(self.model), measure(self.model, images)
        return price(where, densities=densities, poolings=poolings(self.plain, images[:1], densities))

    def placed_on(self, chip: Chip) -> None:
        """Move to a chip with other ADCs, crossbars or cells, and calibrate where it asks for ranges not known."""
        set_chip(self.model, chip)
        self.simulation.forget()  # ranges may be others
        if not all(layer.ranges.known(layer.chip) for layer in crossbar_layers(self.model).values()):
            _calibrate(self.model, self.data, self.settings)


def put_on_chip(
    model: nn.Module,
    data: DataSet,
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
        data: that it classifies.
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
    return _calibrated(_converted(model, data, chip, settings, mapping), ranges)


def _converted(
    model: nn.Module, data: DataSet, chip: Chip, settings: Settings, mapping: Mapping[str, str] | None
) -> OnChip:
    """Convert a network, whose ranges are not known yet."""
    settings.check(data)
    plain = copied(model).eval()
    example = next(data.batches("test", batch_size=2, limit=2))[0]
    model, report = to_crossbar(plain, chip, example=example, mapping=mapping)
    return OnChip(model, report, plain, data, settings)


def _calibrated(on_chip: OnChip, ranges: Path | None) -> OnChip:
    """Set the ranges of a network that was converted, and return it."""
    model, data, settings = on_chip.model, on_chip.data, on_chip.settings
    if ranges is not None:
        load_ranges(model, ranges)
    else:
        _calibrate(model, data, settings)
    if placement(model).chip.weights.bias_bits is not None:
        store(model, calibration_batches(data, settings)[0])
    return on_chip


def check_priced(
    model: nn.Module, data: DataSet, chip: Chip, settings: Settings, mapping: Mapping[str, str] | None = None
) -> None:
    """Refuse a chip that the network does not fit on, or that has no price, before anything slow is done.

    Args:
        model: trained; it is not changed.
        data: that it classifies.
        chip: to put it on.
        settings: of the evaluation.
        mapping: how layers of several groups are laid out.

    Raises:
        ConversionError: no layer that a chip could hold, or an unknown key or strategy in `mapping`.
        MappingError: the chip has too few crossbars.
        ChipError: no such cost table, or one that does not hold for the chip.
        DataError: more images asked for than there are.
    """
    price(placement(_converted(model, data, chip, settings, mapping).model))


def _calibrate(model: nn.Module, data: DataSet, settings: Settings) -> None:
    calibrate(model, calibration_batches(data, settings), in_turn=settings.in_turn, progress=settings.progress)


def calibration_batches(data: DataSet, settings: Settings) -> list[Tensor]:
    """First training images, normalized, in batches."""
    settings.check(data)
    count = min(settings.calibration_images, len(data.train_images))
    if count < settings.calibration_images:
        log.info("all %d training images set the ranges, not %d", count, settings.calibration_images)
    return [x for x, _ in data.batches("train", batch_size=CALIBRATION_BATCH, limit=count)]


def evaluate(
    model: nn.Module,
    data: DataSet,
    chip: Chip,
    settings: Settings | None = None,
    *,
    name: str = "",
    ranges: Path | None = None,
    mapping: Mapping[str, str] | None = None,
) -> Evaluation:
    """Evaluate a trained network on programmed chips.

    Losses by cause come from paired seeds: the same chips, with one more departure from ideal switched on at a time.

    Args:
        model: trained; it is not changed.
        data: calibration takes from its training images, accuracy from its test images.
        chip: to put the network on.
        settings: how thoroughly.
        name: of the model, for the record.
        ranges: a file of `bitline.nn.range_training.save_ranges`; input and ADC ranges come from it, not from
            calibration.
        mapping: how layers of several groups are laid out, see `bitline.nn.to_crossbar`.

    Returns:
        The evaluation; accuracies in percent, energies in joule per image.

    Raises:
        ConversionError: the network cannot be put on a chip, not as `mapping` says, or the ranges are not for it.
        ChipError: no such cost table, or one that does not hold for the chip; before anything is measured.
        DataError: more images asked for than there are, an absent or damaged file of ranges, or a network whose
            answers are not finite.
    """
    settings = settings or Settings()
    began = time.perf_counter()
    on_chip = _converted(model, data, chip, settings, mapping)
    price(placement(on_chip.model))  # refuses what has no price before anything is measured
    _calibrated(on_chip, ranges)
    calibration_s = time.perf_counter() - began
    steps = stages(chip)
    images = next(data.batches("test", batch_size=settings.diagnose_images))[0]
    diagnoses = diagnose(on_chip.model, images, steps, settings.seed)
    on_chip.placed_on(chip)
    cost = on_chip.price()
    rest_s = time.perf_counter() - began - calibration_s
    with _ticking(settings, data, _runs(steps, settings)) as tick:
        accuracies, causes = _accuracies(on_chip, steps, tick)
    accuracy_s = time.perf_counter() - began - calibration_s - rest_s
    name = name or type(model).__name__
    try:
        timing = Times(calibration_s=calibration_s, accuracy_s=accuracy_s, evaluation_s=time.perf_counter() - began)
        return Evaluation(
            format=FORMAT,
            bitline=version("bitline"),
            commit=git_commit() or None,
            chip=chip,
            model=name,
            ranges=None if ranges is None else ranges.name,
            data=record.Data(name=data.title, split="test", count=settings.images or len(data.test_images)),
            seeds=tuple(settings.seeds),
            bias_correction=settings.bias_correction,
            accuracy=accuracies,
            causes=causes,
            cause_seeds=tuple(settings.seeds[: settings.cause_chips]),
            simulation=on_chip.simulation.record(),
            cost=record.Cost.model_validate({k: v for k, v in cost.to_json().items() if k != "layers"}),
            layers=tuple(_layer(layer, diagnoses[layer.name]) for layer in cost.layers),
            digital=tuple(record.DigitalOperation(name=d.name, op=d.op, why=d.why) for d in on_chip.report.digital),
            folded=on_chip.report.folded,
            statistics=accuracies.statistics,
            environment=Environment.here(),
            timing=timing,
        )
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(map(str, problem["loc"]))
        raise DataError(f"{name} on {chip.name}: {key} = {problem['input']!r}: {problem['msg'].lower()}") from error


def _accuracies(on_chip: OnChip, steps: Sequence[Stage], tick: Tick) -> tuple[Accuracy, tuple[Loss, ...]]:
    """Accuracy of the float network, of ideal integers and of every chip; and the loss by cause."""
    settings = on_chip.settings
    plain = accuracy(on_chip.plain, on_chip.data, images=settings.images, batch_size=settings.batch_size, tick=tick)
    fixed = {s.cause: on_chip.accuracy(s.chip, IDEAL, tick) for s in steps if not s.seeded}
    seeded = [s for s in steps if s.seeded]
    by_cause = {cause: [value] for cause, value in fixed.items()}
    chips: list[float] = []
    for number, seed in enumerate(settings.seeds):
        for stage in seeded:
            if stage is seeded[-1] or number < settings.cause_chips:
                value = on_chip.accuracy(stage.chip, seed, tick)
                by_cause.setdefault(stage.cause, []).append(value)
        chips.append(by_cause[steps[-1].cause][-1])
    causes: list[Loss] = []
    before = [plain]
    for stage in steps:
        after = by_cause.get(stage.cause, [])[: max(1, settings.cause_chips)]
        if not after:
            continue
        lost = [b - a for a, b in zip(after, before * len(after) if len(before) == 1 else before, strict=False)]
        points, reached = Spread.of(lost), Spread.of(after)
        causes.append(Loss(cause=stage.cause, points=points.mean, std=points.std, accuracy_after=reached.mean))
        before = after
    return Accuracy.of(plain, fixed["quantization"], chips), tuple(causes)


def _runs(steps: Sequence[Stage], settings: Settings) -> int:
    """Passes over the test images that an evaluation takes."""
    seeded = sum(s.seeded for s in steps)
    split = min(settings.cause_chips, settings.chips)
    return 1 + len(steps) - seeded + (settings.chips + split * (seeded - 1) if seeded else 0)


@contextmanager
def _ticking(settings: Settings, data: DataSet, runs: int) -> Generator[Tick]:
    if not settings.progress:
        yield lambda _: None
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("images through {task.fields[runs]} chips"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task("", total=runs * (settings.images or len(data.test_images)), runs=runs)
        yield lambda count: progress.advance(task, count)


def _layer(cost: LayerCost, diagnosis: Diagnosis) -> Layer:
    errors = dict.fromkeys(CAUSES, 0.0) | diagnosis.error_parts
    return Layer.model_validate({**cost.to_json(), **vars(diagnosis), "error_parts": errors})
