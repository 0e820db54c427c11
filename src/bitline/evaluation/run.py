"""One network on many programmed chips: accuracy with spread, loss by cause, cost, layer by layer."""

import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from pydantic import ValidationError
from torch import nn

from bitline.chip.description import Chip
from bitline.cost.model import price
from bitline.cost.result import LayerCost
from bitline.data import DataSet
from bitline.errors import DataError
from bitline.evaluation import record
from bitline.evaluation.causes import Stage, stages
from bitline.evaluation.diagnose import Diagnosis, diagnose
from bitline.evaluation.environment import Environment
from bitline.evaluation.journal import Journal, Keep
from bitline.evaluation.on_chip import OnChip, calibrated, converted, on_device
from bitline.evaluation.record import CAUSES, FORMAT, Accuracy, Evaluation, Layer, Loss, Times
from bitline.evaluation.score import Tick, score
from bitline.evaluation.settings import Settings
from bitline.evaluation.simulation import together
from bitline.evaluation.spread import Spread
from bitline.evaluation.task import Task
from bitline.evaluation.workers import Job, asking
from bitline.nn import IDEAL, placement
from bitline.train.hardware import git_commit

_TOLD_ELSEWHERE = ("layers", "digital_operations")
"""what of a price stands beside it in the record"""


def assess(
    model: nn.Module,
    data: DataSet | Task,
    chip: Chip,
    settings: Settings | None = None,
    *,
    name: str = "",
    ranges: Path | None = None,
    mapping: Mapping[str, str] | None = None,
    keep: Keep = "no",
) -> Evaluation:
    """Evaluate a trained network on programmed chips.

    Losses by cause come from paired seeds: the same chips, with one more departure from ideal switched on at a time.

    Args:
        model: trained; it is not changed.
        data: calibration takes from its training images, accuracy from its test images; or another task.
        chip: to put the network on.
        settings: how thoroughly.
        name: of the model, for the record.
        ranges: a file of `bitline.nn.range_training.save_ranges`; input and ADC ranges come from it, not from
            calibration.
        mapping: how layers of several groups are laid out, see `bitline.nn.to_crossbar`.
        keep: whether figures of finished chips are kept until all are, and taken up again, see
            `bitline.evaluation.journal`.

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
    on_chip = converted(model, data, chip, settings, mapping, ranges)
    price(placement(on_chip.model))  # refuses what has no price before anything is measured
    plain = score(on_chip.plain, on_chip.task)  # refuses a metric that does not take the answers
    plain_s = time.perf_counter() - began
    calibrated(on_chip, ranges)
    calibration_s = time.perf_counter() - began - plain_s
    steps = stages(chip)
    task = on_chip.task
    inputs = on_device(task.first(settings.diagnose_images), on_chip.model)
    diagnoses = diagnose(on_chip.model, inputs, steps, settings.seed)
    on_chip.placed_on(chip)
    cost = on_chip.price()
    rest_s = time.perf_counter() - began - calibration_s - plain_s
    journal = Journal.of(on_chip, keep)
    with _ticking(settings, task, _runs(steps, settings)) as tick:
        accuracies, causes = _accuracies(on_chip, plain, steps, tick, journal)
    journal.finish()
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
            data=task.data,
            metric=task.metric.record,
            calibration=task.calibrated_on if ranges is None else None,
            seeds=tuple(settings.seeds),
            bias_correction=settings.bias_correction,
            accuracy=accuracies,
            causes=causes,
            cause_seeds=tuple(settings.seeds[: settings.cause_chips]),
            simulation=together(on_chip.simulations, on_chip.simulation.record()),
            cost=record.Cost.model_validate({k: v for k, v in cost.to_json().items() if k not in _TOLD_ELSEWHERE}),
            layers=tuple(_layer(layer, diagnoses[layer.name]) for layer in cost.layers),
            digital=tuple(record.DigitalOperation(**vars(d)) for d in on_chip.report.digital),
            folded=on_chip.report.folded,
            statistics=accuracies.statistics_of(task.metric.better),
            environment=Environment.here(),
            timing=timing,
        )
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(map(str, problem["loc"]))
        raise DataError(f"{name} on {chip.name}: {key} = {problem['input']!r}: {problem['msg'].lower()}") from error


def _accuracies(
    on_chip: OnChip, plain: float, steps: Sequence[Stage], tick: Tick, journal: Journal
) -> tuple[Accuracy, tuple[Loss, ...]]:
    """How well the float network, ideal integers and every chip answer; and the loss by cause."""
    settings, better = on_chip.settings, on_chip.task.metric.better
    seeded = [s for s in steps if s.seeded]
    jobs = [(s, Job(s.chip, IDEAL)) for s in steps if not s.seeded]
    for number, seed in enumerate(settings.seeds):
        split = seeded if number < settings.cause_chips else seeded[-1:]
        jobs += [(stage, Job(stage.chip, seed)) for stage in split]
    by_cause: dict[record.Cause, list[float]] = {}
    with asking(on_chip, settings.workers) as ask:
        for (stage, _), value in zip(jobs, journal.through(ask, [job for _, job in jobs]), strict=True):
            by_cause.setdefault(stage.cause, []).append(value)
            tick(on_chip.task.data.count)
    chips = by_cause.get(steps[-1].cause, [])
    chips = chips if seeded else len(settings.seeds) * chips  # without any departure one chip is like another
    causes: list[Loss] = []
    before = [plain]
    for stage in steps:
        after = by_cause.get(stage.cause, [])[: max(1, settings.cause_chips)]
        if not after:
            continue
        lost = [
            b - a if better == "higher" else a - b
            for a, b in zip(after, before * len(after) if len(before) == 1 else before, strict=False)
        ]
        points, reached = Spread.of(lost), Spread.of(after)
        causes.append(Loss(cause=stage.cause, points=points.mean, std=points.std, accuracy_after=reached.mean))
        before = after
    return Accuracy.of(plain, by_cause["quantization"][0], chips, better), tuple(causes)


def _runs(steps: Sequence[Stage], settings: Settings) -> int:
    """Passes over the test images that an evaluation takes."""
    seeded = sum(s.seeded for s in steps)
    split = min(settings.cause_chips, settings.chips)
    return len(steps) - seeded + (settings.chips + split * (seeded - 1) if seeded else 0)


@contextmanager
def _ticking(settings: Settings, task: Task, runs: int) -> Generator[Tick]:
    if not (settings.progress and sys.stderr.isatty()):
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("images through {task.fields[runs]} chips"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, transient=True, console=Console(stderr=True)) as progress:
        bar = progress.add_task("", total=runs * task.data.count, runs=runs)
        yield lambda count: progress.advance(bar, count)


def _layer(cost: LayerCost, diagnosis: Diagnosis) -> Layer:
    errors = dict.fromkeys(CAUSES, 0.0) | diagnosis.error_parts
    return Layer.model_validate({**cost.to_json(), **vars(diagnosis), "error_parts": errors})
