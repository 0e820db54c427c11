"""A network that was trained elsewhere, as a run directory."""

import hashlib
import logging
import shutil
from pathlib import Path
from typing import Any

import torch

from bitline import manifest
from bitline.cli.given import Given
from bitline.cli.subject import Subject, subject
from bitline.errors import BitlineError, DataError
from bitline.evaluation import accuracy
from bitline.files import CODE, CONFIG, RECORD, RUN_MANIFEST, read_json
from bitline.lock import locked
from bitline.models.files import load_run
from bitline.models.record import ModelRecord
from bitline.recipes.files import write_run
from bitline.train.config import run_name
from bitline.train.hardware import git_commit
from bitline.train.rundir import empty

log = logging.getLogger(__name__)


def import_run(given: Given, out: Path | None = None, *, overwrite: bool = False) -> Path:
    """Make a run directory of a model, its weights and its data.

    Args:
        given: the model and the data.
        out: the run directory; None: ``runs/MODEL-DATA``, which may hold this very network already.
        overwrite: write it again where a run is there.

    Returns:
        The run directory.

    Raises:
        DataError: the network or the data cannot be used, or the directory holds something else.
        ExportError: it cannot be written.
    """
    found = subject(None, given)
    folder = out or Path("runs") / run_name(given.model or "", given.data or "")
    if out is None and not overwrite and _is_there(folder, found):
        return folder
    if not empty(folder):
        if (folder / CONFIG).is_file() and "imported" not in read_json(folder / CONFIG):
            raise DataError(f"{folder} holds a run that was not imported; choose another --out")
        if not (folder / CONFIG).is_file():
            raise DataError(f"{folder} exists and is not a run directory (no {CONFIG}); choose another --out")
        if not overwrite:
            raise DataError(f"{folder} holds another imported network; add --overwrite, or choose another --out")
    with locked(folder):
        _write(folder, found, given)
    return folder


def _is_there(folder: Path, found: Subject) -> bool:
    """Tell whether a directory holds this network, whole."""
    if not (folder / RUN_MANIFEST).is_file():
        return False
    manifest.check(folder)
    record = ModelRecord.read(folder / RECORD)
    if record.model_dump() != found.record.model_dump():
        return False
    there = load_run(folder, trust_code=True).model.state_dict()  # the code is that of --model, by its hash
    now = found.model.state_dict()
    return there.keys() == now.keys() and all(torch.equal(there[key], now[key].cpu()) for key in now)


def _write(folder: Path, found: Subject, given: Given) -> None:
    (folder / RUN_MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder / CODE, ignore_errors=True)
    weights = given.weights
    origin: dict[str, Any] = {"model": given.model, "weights": None if weights is None else str(weights)}
    if weights is not None:
        with weights.open("rb") as file:
            origin["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    count = len(found.data.test_labels)
    metrics = {
        "data": found.data.title,
        "test_accuracy": accuracy(found.model, found.data, batch_size=250) / 100,
        "test_images": count,
        "parameters": sum(p.numel() for p in found.model.parameters()),
    }
    found.model.cpu()
    write_run(folder, found.model, found.record, {"imported": origin, "commit": git_commit()}, metrics)
    try:
        _check_copy(folder, found)
    except BitlineError:
        (folder / RUN_MANIFEST).unlink(missing_ok=True)
        raise


def _check_copy(folder: Path, found: Subject) -> None:
    """Refuse a run that does not answer as the network that it was made of.

    Raises:
        DataError: it does not.
    """
    images = next(found.data.batches("test", batch_size=2, limit=min(2, len(found.data.test_labels))))[0]
    try:
        copy = load_run(folder, trust_code=True).model
        with torch.no_grad():
            same = torch.equal(copy(images), found.model(images))
    except Exception as error:  # a user's own network may raise anything
        reason = (str(error).splitlines() or [""])[0][:200]
        raise DataError(f"the copy in {folder} does not run: {type(error).__name__}: {reason}") from error
    if not same:
        name = found.record.label
        raise DataError(f"the copy in {folder} does not answer as {name} does, bit for bit: does it answer by chance?")


def run_of(run: Path | None, given: Given) -> tuple[Path, Given]:
    """Return the run directory that a command goes on from, and what else it is given.

    A model is imported first. Naming it on the command line is to trust its file, which is the one that is copied.

    Args:
        run: as it is given.
        given: with the model, where there is no run.

    Raises:
        DataError: both or neither of a run and a model, no such directory, or what `import_run` refuses.
    """
    if (run is None) == (given.model is None):
        raise DataError("give either a run directory or --model (with --weights and --data), not both or neither")
    if run is not None:
        if not run.is_dir():
            raise DataError(f"no such run directory: {run}")
        return run, given
    run = import_run(given)
    log.info("%s with its weights is imported: %s", given.model, run)
    return run, Given(data_dir=given.data_dir, device=given.device, trust_code=True)
