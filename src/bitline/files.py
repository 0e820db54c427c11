"""Files that are whole or absent, JSON objects, tensors, and the names of what a run directory holds."""

import errno
import glob
import json
import logging
import math
import os
import secrets
import shutil
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from bitline.errors import DataError, ExportError, nearest, shown

if TYPE_CHECKING:
    from torch import Tensor, nn

log = logging.getLogger(__name__)

WEIGHTS, RECORD, CONFIG, METRICS = "model.safetensors", "model.json", "config.json", "metrics.json"
"""what training leaves: weights, what rebuilds and feeds the network, how it was trained, its accuracy and time"""
CODE = "code"
"""folder of the files that a network of a user's own is built from"""
RUN_MANIFEST, LOCK = "run.json", ".lock"
"""what a run directory consists of, and which process writes in it"""
CHECKPOINT, PREVIOUS, LOGS = Path("checkpoints") / "last.ckpt", "previous.ckpt", "logs"
"""what a training goes on from, the one before it in the same folder, and its curves"""
RECIPE, CHIP, RANGES = "recipe.json", "chip.json", "ranges.safetensors"
"""what a recipe adds: its settings, the chip that the network is made for, its trained input and ADC ranges"""
BEFORE, UNTRAINED, AFTER = "evaluation_before.json", "evaluation_untrained.json", "evaluation.json"
"""evaluations: of the network that a recipe begins with, of its new structure without training, of the result"""
START, FLOAT, ON_CHIP, KERNELS, PACKED, CROSSBARS = "start", "float", "chip", "kernels", "packed", "crossbars"
"""stages of a recipe, each a run directory in that of the recipe"""
PRUNING, LEFT = "pruning.json", "left.json"
"""what was pruned in all, and what one stage could not prune"""
TRIALS, JOURNAL, FRONT = "trials.json", "trials.journal", "front.json"
"""what a search tried, what it goes on from, and the points of its front"""
MANIFEST = "manifest.json"
"""what an export folder holds"""


class Tensors(NamedTuple):
    """A safetensors file.

    Args:
        tensors: by name.
        metadata: of the file's header.
    """

    tensors: "dict[str, Tensor]"
    metadata: dict[str, str]


@contextmanager
def new_file(path: Path) -> Generator[Path]:
    """Give a path to write to; once that file is complete it is flushed to disk and takes its place at `path`.

    A killed process leaves the file that was there before, or none. Everybody may read it (mode 0644). A link stays a
    link, and a device is written to.

    Args:
        path: where the file goes; its folder is created.

    Raises:
        ExportError: it cannot be written.
    """
    place, whole = _place(path)
    folder = _part(place)
    part = folder / place.name if whole else place
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if whole:
            folder.mkdir()
        yield part
        if whole:
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.chmod(0o644)  # libraries write for their user alone
            os.replace(part, place)
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error}") from error
    finally:
        if whole:
            _drop(folder)


def probe(path: Path) -> None:
    """Refuse a place that `new_file` could not write to, before what is to be written there is measured.

    Raises:
        ExportError: it cannot be written: a folder, read-only, a name that is too long ...
    """
    place, whole = _place(path)
    made: list[Path] = []
    try:
        remove_parts(place.parent, [place.name])
        made = [folder for folder in place.parents if not folder.exists()]
        place.parent.mkdir(parents=True, exist_ok=True)
        if whole:
            folder = _part(place)
            folder.mkdir()
            folder.rmdir()
        elif not os.access(place, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error.strerror}") from error
    finally:
        with suppress(OSError):
            for folder in made:
                folder.rmdir()


def near(path: Path, names: Iterable[str] = ()) -> str:
    """Return ``"; did you mean 'x'?"`` for what lies beside an absent path and is called nearly so.

    Args:
        path: that is absent.
        names: that may be meant too, where the path is a name alone.
    """
    try:
        there = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        there = []
    return nearest(path.name, [*there, *(names if path.parent == Path() else ())])


def _place(path: Path) -> tuple[Path, bool]:
    """Where a path leads, and whether a file is replaced there as a whole."""
    try:
        place = path.resolve()
        if place.is_dir():
            raise ExportError(f"cannot write {path}: it is a folder")
        return place, place.is_file() or not place.exists()
    except (OSError, ValueError) as error:  # a name too long, or none
        reason = error.strerror if isinstance(error, OSError) else error
        raise ExportError(f"cannot write {shown(str(path), 200)}: {reason}") from error


def _runs(process: str) -> bool:
    """Tell whether a process of this machine, by its number, is there."""
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _part(place: Path) -> Path:
    """A name beside a file for a folder of what is not complete yet: libraries put files of their own beside theirs."""
    return place.with_name(f".{place.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")


def remove_parts(folder: Path, names: Iterable[str]) -> None:
    """Remove what killed processes were writing in a folder, of files with these names."""
    for name in names:
        for part in folder.glob(f".{glob.escape(name)}.*.tmp"):
            if not _runs(part.name.split(".")[-3]):  # another process may be writing the same
                _drop(part)


def _drop(part: Path) -> None:
    """Remove what was being written: a folder, or a file as earlier versions wrote."""
    if part.is_dir() and not part.is_symlink():
        shutil.rmtree(part, ignore_errors=True)
    else:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all.

    Raises:
        ExportError: it cannot be written.
    """
    with new_file(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object, whole or not at all.

    Raises:
        ExportError: it cannot be written.
    """
    write_text(path, json_text(content) + "\n")


def json_text(content: object) -> str:
    """Return the text of a JSON file; a number that is not finite becomes null, and is logged with its key."""
    try:
        return json.dumps(content, indent=1, allow_nan=False)
    except ValueError:
        found: list[str] = []
        text = json.dumps(_finite(content, "", found), indent=1, allow_nan=False)
        log.warning("not finite, and therefore null in the JSON: %s", ", ".join(found[:20]))
        return text


def _finite(value: object, where: str, found: list[str]) -> object:
    """Copy data with null for numbers that are not finite, and list these."""
    if isinstance(value, float) and not math.isfinite(value):
        found.append(f"{where} = {value}")
        return None
    if isinstance(value, dict):
        items = cast("dict[object, object]", value).items()
        return {key: _finite(each, f"{where}.{key}".lstrip("."), found) for key, each in items}
    if isinstance(value, list | tuple):
        items = enumerate(cast("list[object]", value))
        return [_finite(each, f"{where}.{number}".lstrip("."), found) for number, each in items]
    return value


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        DataError: absent, damaged, nested too deeply, with a number that is not finite, or not an object.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a {type(content).__name__}; expected an object")
    return cast("dict[str, Any]", content)


def parse_json(text: str) -> object:
    """Read JSON text.

    Raises:
        ValueError: no JSON, nested too deeply, or with a number that is not finite.
    """
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_number)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse(text: str) -> float:
    raise ValueError(f"{text} is no number that JSON knows")


def _number(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(shown(text))


def write_tensors(path: Path, tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, whole or not at all.

    Args:
        path: where the file goes.
        tensors: by name; contiguous, and none shares memory with another.
        metadata: for the file's header.

    Raises:
        ExportError: it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        with new_file(path) as part:
            save_file(dict(tensors), str(part), dict(metadata))
    except SafetensorError as error:
        raise ExportError(f"cannot write {path}: {error}") from error


def write_network(path: Path, network: "nn.Module") -> None:
    """Write the weights of a network as a safetensors file, whole or not at all; a shared tensor is written once.

    Raises:
        ExportError: it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_model

    try:
        with new_file(path) as part:
            save_model(network, str(part))
    except SafetensorError as error:
        raise ExportError(f"cannot write {path}: {error}") from error


def read_tensors(path: Path) -> Tensors:
    """Read a safetensors file.

    Raises:
        DataError: absent or damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise DataError(f"no such file: {path}")
    try:
        with safe_open(str(path), framework="pt") as file:
            return Tensors({key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is damaged: {' '.join(str(error).split())[:200]}") from error
