"""The run directory that training leaves: a network with all that it needs.

Weights are read from safetensors only; nothing is unpickled.
"""

import functools
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from bitline import manifest
from bitline.errors import DataError
from bitline.files import CONFIG, METRICS, RECIPE, RECORD, RUN_MANIFEST, WEIGHTS, read_json, write_json
from bitline.models.record import ModelRecord
from bitline.models.rewrite import apply
from bitline.models.source import changes, sha256
from bitline.models.spec import file_of, make
from bitline.models.weights import load_weights

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A trained network and what is known of it.

    Args:
        model: with its trained weights, in evaluation mode.
        record: what rebuilds the network and feeds it.
        config: the training configuration, the content of ``config.json``.
        metrics: accuracy and time, the content of ``metrics.json``.
    """

    model: nn.Module
    record: ModelRecord
    config: dict[str, Any]
    metrics: dict[str, Any]


def accept(folder: Path) -> dict[str, str]:
    """Take a run directory as it is now, and the code of its network: write down anew what they are.

    Returns:
        What was not as it was written, by file; empty where there was nothing to accept.

    Raises:
        DataError: no run directory, or one of a run that is not finished.
    """
    found = manifest.accept(folder)
    record = ModelRecord.read(folder / RECORD)
    if code := _changes(folder, record):
        _write(folder, record)
        found |= code
    return found


def _write(folder: Path, record: ModelRecord) -> None:
    """Write down what the code of a network is now."""
    file = file_of(record.spec)
    assert file is not None
    if not record.code:
        update: dict[str, Any] = {"code_sha256": sha256(file.path)}
    else:
        there = {name for name in record.code if (folder / name).is_file()} | changes(record.code, folder).keys()
        update = {"code": {name: sha256(folder / name) for name in sorted(there) if (folder / name).is_file()}}
    write_json(folder / RECORD, record.model_copy(update=update).model_dump(mode="json"))
    manifest.accept(folder)


def _changes(folder: Path, record: ModelRecord) -> dict[str, str]:
    """Say what is not as it was in the code of a network, by file."""
    if record.code:
        return changes(record.code, folder)
    file = file_of(record.spec)
    if file is None or sha256(file.path) == record.code_sha256:
        return {}
    return {str(file.path): "was not written down" if record.code_sha256 is None else "was changed"}


def _check_code(folder: Path, record: ModelRecord) -> None:
    """Refuse code that is not what a network was trained from; say so where that is not known."""
    found = _changes(folder, record)
    if "was not written down" in found.values():
        _inform(f"{folder} is of an earlier version, which did not write down what is in {next(iter(found))}: whether "
                "it is the same file is not checked")  # fmt: skip
    elif found:
        listed = ", ".join(f"{name} {what}" for name, what in found.items())
        raise DataError(
            f"the code of {folder} is not as it was written: {listed}; put back what was there, or take it as it is "
            f"with: bitline accept {folder}"
        )


def load_run(path: Path | str, *, trust_code: bool = False) -> Run:
    """Load the trained network of a run directory.

    Args:
        path: a directory that ``bitline train`` wrote.
        trust_code: run the Python file that the directory names, if its network came from ``FILE.py:NAME``.

    Returns:
        The network in evaluation mode, with its record, configuration and metrics.

    Raises:
        DataError: no such directory, an unfinished run, files that are not as they were written, a damaged file, or a
            network from a file without trust_code or from one that was changed.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise DataError(f"no such run directory: {folder}")
    missing = [name for name in (RECORD, WEIGHTS, CONFIG, METRICS) if not (folder / name).is_file()]
    if missing and not (folder / RUN_MANIFEST).is_file():
        raise DataError(
            f"{folder} is not a finished run (no {', '.join(missing)}); finish it with "
            f"{'bitline optimize' if (folder / RECIPE).is_file() else 'bitline train'} --resume"
        )
    manifest.check(folder)
    record = ModelRecord.read(folder / RECORD)
    if record.runs_code and not trust_code:
        raise DataError(
            f"{folder} has a network from {record.model}; loading it runs that file: add --trust-code "
            "(trust_code=True in Python) if you trust what it says"
        )
    _check_code(folder, record)
    record = record.portable()
    model = apply(make(record.spec, **record.kwargs), record.rewrites)
    load_weights(model, folder / WEIGHTS)
    return Run(model.eval(), record, read_json(folder / CONFIG), read_json(folder / METRICS))


@functools.cache
def _inform(line: str) -> None:
    """Say a line once."""
    log.info(line)
