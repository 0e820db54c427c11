"""When a run directory may be written again."""

import shutil
from pathlib import Path
from typing import Literal

from bitline import manifest
from bitline.differences import differences
from bitline.errors import DataError
from bitline.files import (
    AFTER,
    CHECKPOINT,
    CHIP,
    CODE,
    CONFIG,
    LEFT,
    LOCK,
    LOGS,
    METRICS,
    RANGES,
    RECIPE,
    RECORD,
    RUN_MANIFEST,
    WEIGHTS,
    read_json,
    remove_parts,
)
from bitline.train.config import TrainConfig, checked

IfExists = Literal["refuse", "resume", "overwrite"]


def prepare(out: Path, config: TrainConfig, if_exists: IfExists) -> TrainConfig | None:
    """Say whether a run may begin, or return the saved configuration to go on with; what is overwritten stays as yet.

    Args:
        out: the run directory, which may be absent.
        config: what is asked for now.
        if_exists: as `bitline.train.run.train` takes it.

    Returns:
        The configuration of the run to resume, with every value resolved, or None for a new run.

    Raises:
        DataError: a directory that is not a run, a run that is not to be touched, or another configuration.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file; choose another --out")
    if if_exists != "resume" or not finished(out):
        remove_parts(out, (CONFIG, METRICS, RECORD, WEIGHTS, CHIP, RANGES, LEFT, RUN_MANIFEST))
        remove_parts(out / CHECKPOINT.parent, (CHECKPOINT.name,))
    if empty(out):
        return None
    if (out / RECIPE).is_file():
        raise DataError(f"{out} is the run directory of a recipe; choose another --out")
    if not (out / CONFIG).is_file():
        raise DataError(f"{out} exists and is not a run directory (no {CONFIG}); choose another --out")
    if "imported" in read_json(out / CONFIG):
        raise DataError(
            f"{out} holds an imported network, which `train --init {out}` starts from; choose another --out"
        )
    if if_exists == "refuse":
        state = "a finished run" if finished(out) else "an unfinished run"
        raise DataError(f"{out} holds {state}; add --resume to go on with it, or --overwrite to start again")
    return None if if_exists == "overwrite" else _saved(out, config)


def empty(out: Path) -> bool:
    """Tell whether a directory is absent or holds nothing."""
    return not out.exists() or all(path.name == LOCK for path in out.iterdir())


def finished(out: Path) -> bool:
    """Tell whether a run is finished."""
    return manifest.finished(out, METRICS)


def check_finished(out: Path) -> None:
    """Refuse a finished run that is not whole.

    Raises:
        DataError: what is missing or changed is named, and what can be done about it.
    """
    last = RUN_MANIFEST if (out / RUN_MANIFEST).is_file() else METRICS
    again = f"or remove {out / last}, and --resume writes the results again from the last checkpoint"
    try:
        manifest.check(out)
    except DataError as error:
        raise DataError(f"{error}; {again}" if (out / CHECKPOINT).is_file() else str(error)) from error
    missing = [name for name in (WEIGHTS, RECORD) if not (out / name).is_file()]
    if missing:
        raise DataError(f"{out} is finished, but {', '.join(missing)} is missing: put it back; {again}")


def clear(out: Path) -> None:
    """Take away what an earlier run left, if there was one; after everything that can be refused has been."""
    for name in (RUN_MANIFEST, METRICS, WEIGHTS, RECORD, CHIP, RANGES, LEFT, AFTER):
        (out / name).unlink(missing_ok=True)
    for name in (CHECKPOINT.parent, LOGS, CODE):
        shutil.rmtree(out / name, ignore_errors=True)
    (out / CONFIG).unlink(missing_ok=True)


def _saved(out: Path, config: TrainConfig) -> TrainConfig:
    """Return the configuration of a run, unless another one is asked for."""
    content = read_json(out / CONFIG)
    for key in ("commit", "version", "code", "code_sha256", *manifest.MARK):
        content.pop(key, None)
    try:
        saved = checked(**content)
    except DataError as error:
        raise DataError(f"{out / CONFIG}: {error}") from error
    asked = config.model_dump()
    free = {"out", "data_dir", "device", "threads", "test_every", "checkpoint_every"}  # not what is trained
    rules = {key for key, value in asked.items() if value is None} - {"epoch_images"}  # whose value was chosen then
    other = differences(asked, saved.model_dump(), free=free | rules)
    if other:
        listed = ", ".join(map(str, other))
        raise DataError(f"cannot resume {out} with another configuration: {listed}; or start again with --overwrite")
    chosen = {"out", "data_dir"} | {key for key in free if asked[key] is not None}
    return saved.model_copy(update={key: asked[key] for key in chosen})
