"""The network and the data that a command is about: a run directory, or a model with its weights."""

from pathlib import Path

import torch
from torch import Tensor, nn

from bitline import data as datasets
from bitline.cli.target import refuse_beside_run
from bitline.data import DataSet
from bitline.errors import DataError
from bitline.models import files
from bitline.models.weights import load_weights


def subject(
    run: Path | None,
    model: str | None,
    weights: Path | None,
    width: float | None,
    data: str | None,
    data_dir: Path | None,
    image_size: int | None,
    *,
    trust_code: bool,
) -> tuple[nn.Module, DataSet, str]:
    """Load what the options of a command name.

    Returns:
        The trained network, its data, and what to call the network. Data of a run are normalized as the run's were,
        those of a model by their own statistics.

    Raises:
        DataError: both or neither of a run and a model, options of a model beside a run, a model without weights or
            data, or nothing that fits.
    """
    if (run is None) == (model is None):
        raise DataError("give either a run directory or --model (with --weights and --data), not both or neither")
    if run is not None:
        refuse_beside_run(run, {"--weights": weights, "--width": width})
        loaded = files.load_run(run, trust_code=trust_code)
        record = loaded.record
        dataset = datasets.load(data or record.data, data_dir=data_dir, image_size=image_size or record.image_size)
        dataset = record.fed(dataset)
        _check_takes(loaded.model, dataset, str(run))
        return loaded.model, dataset, _title(record.model, float(record.kwargs.get("width", 1.0)))
    assert model is not None
    if weights is None or data is None:
        raise DataError(f"--model {model} needs --weights FILE.safetensors and --data")
    files.check_spec(model)
    if width is not None and files.is_file_spec(model):
        raise DataError(f"{model} takes no --width; it is for named models")
    width = 1.0 if width is None else width
    dataset = datasets.load(data, data_dir=data_dir, image_size=image_size)
    network = files.make(
        model, num_classes=dataset.num_classes, in_channels=dataset.channels, image_size=dataset.image_size, width=width
    )
    load_weights(network, weights)
    _check_takes(network.eval(), dataset, model)
    return network, dataset, _title(model, width)


def _check_takes(network: nn.Module, dataset: DataSet, name: str) -> None:
    """Refuse data of another kind than the network takes: by its answer to one image."""
    images = next(dataset.batches("test", batch_size=1, limit=1))[0]
    what = f"{name} does not take images {tuple(images.shape[1:])} of {dataset.title}"
    try:
        with torch.no_grad():
            answer = network(images)
    except Exception as error:  # a user's own network may raise anything
        raise DataError(f"{what}: {type(error).__name__}: {str(error).splitlines()[0][:200]}") from error
    expected = (1, dataset.num_classes)
    if not isinstance(answer, Tensor) or tuple(answer.shape) != expected:
        shape = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
        raise DataError(f"{what}: it answers {shape}; expected {expected}, a score for each class")


def _title(model: str, width: float) -> str:
    return model if width == 1 else f"{model} width {width:g}"
