"""A network on programmed chips in one call: any inputs, any targets, any metric."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace as with_changes
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bitline.chip.description import Chip
from bitline.chip.files import load as load_chip
from bitline.data import DataSet
from bitline.errors import DataError
from bitline.evaluation import run, sweeping
from bitline.evaluation.finished import Place
from bitline.evaluation.grid import Sweep
from bitline.evaluation.metrics import Metric, metric_of
from bitline.evaluation.record import Evaluation, Simulated, Variant
from bitline.evaluation.settings import CALIBRATION_IMAGES, Settings
from bitline.evaluation.task import Task, of_batches, of_data


def evaluate(
    model: nn.Module,
    chip: Chip | str,
    batches: Iterable[Any] | DataSet,
    *,
    calibration: Iterable[Any] | None = None,
    metric: str | Metric | Callable[[Any, Any], Any] = "accuracy",
    chips: int = 20,
    seed: int = 0,
    workers: int = 1,
    mapping: Mapping[str, str] | None = None,
    simulation: Simulated = "exact",
    calibration_samples: int = CALIBRATION_IMAGES,
    in_turn: bool = False,
    bias_correction: bool = False,
    cause_chips: int = 5,
    name: str = "",
    data_name: str = "own data",
    progress: bool = False,
) -> Evaluation:
    """Evaluate a trained network on programmed chips: how well it answers, what it loses to what, what it costs.

    Args:
        model: trained; it is not changed.
        chip: to put it on; a chip, the name of a preset, or a file.
        batches: a `DataLoader`, a `Dataset`, or any list of (inputs, targets). Inputs are a tensor, or a tuple or dict
            of tensors, for which the network is called as ``model(*inputs)`` or ``model(**inputs)``. Of batches of
            more than two parts the last is the targets. They are walked once and held in memory, up to 1 GiB; where
            there are more, they are walked again for every chip. A `bitline.data.DataSet`: its test images.
        calibration: what sets the input and ADC ranges: inputs, or (inputs, targets). The first
            ``calibration_samples`` are taken as they come: of data in order of class, shuffle first. Default: the
            first of ``batches``, which is said in the evaluation; the training images of a `DataSet`.
        metric: how well it answers: ``"accuracy"``, ``"top5"``, ``"mse"``, ``"rmse"``, ``"mae"``, ``"miou"``,
            ``"cross_entropy"``, ``"perplexity"``, or a `Metric` of your own.
        chips: programmed chips.
        seed: of the first chip; the others follow.
        workers: processes that ask chips at once, each with as many threads as this one
            (``torch.set_num_threads``). The figures are the same bit for bit.
        mapping: how layers of several groups are laid out, see `bitline.to_crossbar`.
        simulation: ``"surrogate"``: one plain product with noise stands for all conversions.
        calibration_samples: most samples to calibrate on.
        in_turn: fit the ADC ranges of one layer after the other, see `bitline.calibrate`.
        bias_correction: set the biases of each programmed chip on the calibration inputs.
        cause_chips: chips on which the loss is split by cause.
        name: of the network, for reports; default: its class.
        data_name: of the data, for reports.
        progress: show bars.

    Returns:
        The evaluation: print it, or `to_html`, `to_json`.

    Raises:
        DataError: batches or a metric that cannot be used; before anything is calibrated.
        ConversionError: the network cannot be put on a chip, or does not take the inputs.
        ChipError: no such chip, or one that has no price.
        MappingError: the chip has too few crossbars.
    """
    settings = Settings(
        chips=chips,
        seed=seed,
        calibration_images=calibration_samples,
        in_turn=in_turn,
        bias_correction=bias_correction,
        cause_chips=cause_chips,
        simulation=simulation,
        workers=workers,
        progress=progress,
    )
    described = load_chip(chip) if isinstance(chip, str) else chip
    task = _task(batches, calibration, metric_of(metric), settings, data_name)
    return run.assess(model, task, described, settings, name=name, mapping=mapping)


def sweep(
    model: nn.Module,
    chip: Chip | str,
    vary: Mapping[str, Sequence[object]],
    batches: Iterable[Any] | DataSet,
    *,
    calibration: Iterable[Any] | None = None,
    metric: str | Metric | Callable[[Any, Any], Any] = "accuracy",
    chips: int = 5,
    seed: int = 0,
    workers: int = 1,
    mapping: Mapping[str, str] | None = None,
    simulation: Simulated = "exact",
    calibration_samples: int = CALIBRATION_IMAGES,
    images: int | None = None,
    in_turn: bool = False,
    ranges: Path | None = None,
    name: str = "",
    data_name: str = "own data",
    out: Path | str | None = None,
    resume: bool = False,
    keep: bool = False,
    done: Callable[[Variant], None] | None = None,
    progress: bool = False,
) -> Sweep:
    """Evaluate a trained network on every combination of some chip keys, all with the same chip seeds.

        bitline.sweep(model, "rram-22nm", {"adc.bits": [4, 5, 6], "cell.programming.sigma": [0, 0.1]}, loader)

    Args:
        model: trained; it is not changed.
        chip: whose keys vary; a chip, the name of a preset, or a file.
        vary: values of each key, as ``--set`` takes them.
        batches: see `evaluate`.
        calibration: see `evaluate`.
        metric: see `evaluate`.
        chips: programmed chips at each point.
        seed: of the first chip; the others follow.
        workers: processes that ask chips at once.
        mapping: how layers of several groups are laid out.
        simulation: see `evaluate`.
        calibration_samples: most samples to calibrate on.
        images: of a `DataSet`: only the first so many test images.
        in_turn: fit the ADC ranges of one layer after the other.
        ranges: a file of trained ADC ranges; every point that keeps ranges is on a chip that they are for.
        name: of the network, for reports.
        data_name: of the data, for reports.
        out: a folder where every finished point is kept at once, in ``sweep.json``.
        resume: go on with the sweep in ``out``, which must have measured the same, or with what `keep` has left.
        keep: without ``out``: keep finished points in the cache folder until all are.
        done: told of each point as it is finished.
        progress: show bars.

    Returns:
        The sweep: print it, or `to_html`, `to_json`; ``best`` are the points that no other beats.

    Raises:
        DataError: nothing to vary, a folder that is not empty, or another sweep than the one to be resumed.
        ChipError: a point is no chip that can exist; before anything is measured.
        ConversionError: see `evaluate`.
        MappingError: see `evaluate`.
    """
    settings = Settings(
        chips=chips,
        seed=seed,
        images=images,
        calibration_images=calibration_samples,
        in_turn=in_turn,
        simulation=simulation,
        workers=workers,
        progress=progress,
    )
    if images is not None and not isinstance(batches, DataSet):
        raise DataError(f"images is {images}, which cuts a bitline.data.DataSet; give fewer batches instead")
    described = load_chip(chip) if isinstance(chip, str) else chip
    task = _task(batches, calibration, metric_of(metric), settings, data_name)
    return sweeping.measure(
        model,
        task,
        described,
        settings,
        vary,
        Place(None if out is None else Path(out), resume=resume, cached=keep),
        name=name or type(model).__name__,
        mapping=mapping,
        ranges=ranges,
        done=done,
    )


def _task(
    batches: Iterable[Any] | DataSet,
    calibration: Iterable[Any] | None,
    metric: Metric,
    settings: Settings,
    data_name: str,
) -> Task:
    if not isinstance(batches, DataSet):
        most = settings.calibration_images
        return of_batches(batches, calibration, metric, name=data_name, calibration_images=most)
    task = with_changes(of_data(batches, settings), metric=metric)
    if calibration is None:
        return task
    given = of_batches(
        [(task.first(1), torch.zeros(1))], calibration, metric, name="", calibration_images=settings.calibration_images
    )
    return with_changes(task, calibration=given.calibration, calibrated_on=given.calibrated_on)
