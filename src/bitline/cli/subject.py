"""The network and the data that a command is about: a run directory, or a model with its weights."""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bitline import data as datasets
from bitline.cli.given import Given
from bitline.cli.given import arguments as told_arguments
from bitline.cli.target import refuse_beside, refuse_beside_run
from bitline.data import DataSet
from bitline.errors import DataError
from bitline.evaluation.sanity import check_normalization, check_recorded
from bitline.files import RECORD
from bitline.models import files, names
from bitline.models.program import load_program
from bitline.models.record import ModelRecord
from bitline.models.spec import arguments, check_spec, is_file_spec, is_program, make
from bitline.models.weights import load_weights
from bitline.train.hardware import torch_device

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Subject:
    """A network, what is known of it, and its data.

    Args:
        model: in evaluation mode.
        record: what rebuilds the network and feeds it.
        data: normalized as the network takes it.
        name: to call the network.
        metrics: of its run; empty where there is none.
    """

    model: nn.Module
    record: ModelRecord
    data: DataSet
    name: str
    metrics: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def image(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.data.channels, self.data.image_size, self.data.image_size


def subject(run: Path | None, given: Given) -> Subject:
    """Load what the options of a command name.

    Returns:
        The trained network and its data. Data of a run are normalized as the run's were, those of a model as is said,
        or by their own statistics.

    Raises:
        DataError: both or neither of a run and a model, options of a model beside a run, a model without weights or
            data, a normalization or accuracy that shows that the network is fed otherwise than it was, or nothing that
            fits.
    """
    if (run is None) == (given.model is None):
        raise DataError("give either a run directory or --model (with --weights and --data), not both or neither")
    device = torch_device(given.device)
    found = _of_model(given) if run is None else _of_run(run, given)
    found.model.to(device)
    return found


def of_run(run: Path, given: Given) -> Given:
    """Refuse options that a run directory answers itself, and return what it is given.

    Raises:
        DataError: names the options.
    """
    options = ("model_args", "weights", "width", "mean", "std", "no_normalize")
    refuse_beside_run(run, {f"--{key.replace('_', '-')}": getattr(given, key) or None for key in options})
    return given


def _of_run(run: Path, given: Given) -> Subject:
    of_run(run, given)
    loaded = files.load_run(run, trust_code=given.trust_code)
    record = loaded.record
    dataset = record.load(data=given.data, data_dir=given.data_dir, image_size=given.image_size, source=given.source)
    _check_takes(loaded.model, dataset, str(run))
    told = {"data": given.data, "image_size": given.image_size, "data_dir": given.data_dir, **given.source}
    options = {f"--{key.replace('_', '-')}": value for key, value in told.items()}
    other = ", ".join(f"{key} {value}" for key, value in options.items() if value is not None)
    check_recorded(loaded.model, dataset, record, loaded.metrics, run, other=other)
    return Subject(loaded.model, record, dataset, title(record), loaded.metrics)


def _of_model(given: Given) -> Subject:
    spec = given.model
    assert spec is not None
    if given.data is None or (given.weights is None and not is_program(spec)):
        missing = [] if given.weights is not None or is_program(spec) else ["--weights FILE.safetensors"]
        missing += [] if given.data is not None else ["--data"]
        raise DataError(f"--model {spec} needs {' and '.join(missing)}")
    check_spec(spec)
    dataset = datasets.load(given.data, data_dir=given.data_dir, image_size=given.image_size, **given.source)
    said = given.normalization(dataset.channels)
    if said is not None:
        dataset = dataset.normalized_by(*said)
    kwargs = arguments(
        spec,
        told_arguments(given.model_args),
        num_classes=dataset.num_classes,
        in_channels=dataset.channels,
        image_size=dataset.image_size,
        width=given.width,
    )
    record = ModelRecord.of(spec, kwargs, dataset, source=given.source)
    network = make(record.spec, **kwargs)
    if given.weights is not None:
        load_weights(network, given.weights)
    _check_takes(network.eval(), dataset, spec)
    check_normalization(network, dataset, said=said is not None)
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (dataset.mean, dataset.std))
    how = "as asked for" if said is not None else "of the training images; --mean and --std or --no-normalize say else"
    log.info("images are normalized by mean %s and std %s, %s", mean, std, how)
    return Subject(network, record, dataset, title(record))


def _check_takes(network: nn.Module, dataset: DataSet, name: str) -> None:
    """Refuse data of another kind than the network takes: by its answer to two images."""
    images = next(dataset.batches("test", batch_size=2, limit=min(2, len(dataset.test_labels))))[0]
    what = f"{name} does not take images {tuple(images.shape[1:])} of {dataset.title}"
    try:
        with torch.no_grad():
            answer = network(images)
    except Exception as error:  # a user's own network may raise anything
        raise DataError(f"{what}: {type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}") from error
    expected = (len(images), dataset.num_classes)
    if not isinstance(answer, Tensor) or tuple(answer.shape) != expected:
        shape = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
        raise DataError(
            f"{what}: it answers {shape} to {len(images)} of them; expected {expected}, a score for each of the "
            f"{dataset.num_classes} classes"
        )


def title(record: ModelRecord) -> str:
    """What to call the network of a record beside a result."""
    width = record.kwargs.get("width", 1.0)
    return f"{record.label} width {width}" if record.model in names() and width != 1 else record.label


@dataclass(frozen=True)
class Bare:
    """A network without the data that it classifies.

    Args:
        model: in evaluation mode.
        image: channels, height and width of an image.
        name: to call it.
        trained: whether its weights were trained.
        assumed: what was said by nobody, in words; empty where nothing was assumed.
    """

    model: nn.Module
    image: tuple[int, int, int]
    name: str
    trained: bool
    assumed: str = ""


def bare(name: str | None, given: Given, *, in_channels: int | None = None, classes: int | None = None) -> Bare:
    """Build the network of a command that needs no images: trained where there are weights, else with random ones.

    Args:
        name: a run directory or a model; None: that of `given`.
        given: with weights, and with data where the shape of an image is theirs.
        in_channels: of an image; None: those of the data, the program or 3.
        classes: outputs of a network that is told; None: those of the data, or 10.

    Raises:
        DataError: both or neither of a name and a model, options that do not apply to it, or nothing that fits.
    """
    if (name is None) == (given.model is None):
        raise DataError("give a model or a run directory, or --model, not both or neither")
    spec = name or given.model or ""
    sizes: dict[str, object] = {"--in-channels": in_channels, "--classes": classes}
    if is_run(spec):
        images: dict[str, object] = {
            "--image-size": given.image_size,
            "--data": given.data,
            "--data-dir": given.data_dir,
        }
        refuse_beside_run(Path(spec), sizes | images)
        of_run(Path(spec), given)
        run = files.load_run(spec, trust_code=given.trust_code)
        record = run.record
        return Bare(run.model, (record.channels, record.image_size, record.image_size), title(record), trained=True)
    check_spec(spec)
    if given.data is not None:
        refuse_beside(f"--data {given.data}", sizes)
        if given.weights is not None or is_program(spec):
            found = subject(None, replace(given, model=spec))
            return Bare(found.model, found.image, found.name, trained=True)
        data = datasets.load(given.data, data_dir=given.data_dir, image_size=given.image_size, **given.source)
        in_channels, classes, size = data.channels, data.num_classes, data.image_size
    else:
        told = {f"--{key.replace('_', '-')}": value for key, value in given.source.items()}
        refuse_beside("a command without --data", {"--data-dir": given.data_dir, **told})
        size = given.image_size
    fed = {"--mean": given.mean, "--std": given.std, "--no-normalize": given.no_normalize or None}
    refuse_beside("a command that feeds no images", fed)
    if classes is not None and given.data is None and (is_program(spec) or is_file_spec(spec)):
        raise DataError(f"{spec} takes no --classes; it has its own (--model-args)")
    program = load_program(spec) if is_program(spec) else None
    shape = () if program is None else program.shape
    channels, height = shape[:2] if len(shape) == 3 else (None, None)
    side = (height or 32) if size is None else size
    image = ((channels or 3) if in_channels is None else in_channels, side, side)
    kwargs = arguments(
        spec,
        told_arguments(given.model_args),
        num_classes=10 if classes is None else classes,
        in_channels=image[0],
        image_size=side,
        width=given.width,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = make(spec, **kwargs) if program is None else program
    if given.weights is not None:
        load_weights(network, given.weights)
    width = "" if given.width in (None, 1) else f" width {given.width:g}"
    trained = program is not None or given.weights is not None
    guesses = {
        f"{side} px (--image-size)": given.data is None and size is None and height is None,
        f"{image[0]} channels (--in-channels)": in_channels is None and channels is None,
        "10 classes (--classes)": classes is None and "num_classes" not in told_arguments(given.model_args),
    }
    if program is not None:
        guesses.popitem()  # its outputs are its own
    assumed = ", ".join(guess for guess, made in guesses.items() if made)
    return Bare(network.eval(), image, f"{spec}{width}", trained, f"assumed: {assumed}" if assumed else "")


def is_run(name: str) -> bool:
    """Tell whether a run directory is meant, be it damaged or absent, rather than a name or a file."""
    model = is_file_spec(name) and ".py" in name
    return (Path(name) / RECORD).is_file() or (
        name not in names() and not model and not is_program(name) and (Path(name).is_dir() or os.sep in name)
    )
