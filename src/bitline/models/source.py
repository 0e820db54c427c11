"""A user's own Python file: run, and copied with those beside it that it imports, so that a run needs no other place.

What a run directory has of a file lies in its folder ``code`` and is known by SHA-256; ends of lines do not count.
"""

import ast
import functools
import hashlib
import importlib.util
import logging
import os
import shutil
import sys
import sysconfig
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from bitline.errors import DataError, nearest
from bitline.files import CODE, new_file

log = logging.getLogger(__name__)

_neighbours: set[str] = set()
"""modules that lie beside the files run so far: another file may have others of the same names"""


def load_model_file(path: Path, name: str, arguments: Mapping[str, Any] | None = None) -> nn.Module:
    """Run a user's Python file and return the network it defines.

    Args:
        path: of the file; modules beside it can be imported by it.
        name: in it: an `nn.Module` class or a function, both called with `arguments`, or an `nn.Module` instance.
        arguments: by name.

    Returns:
        The network.

    Raises:
        DataError: no such name in it, an error while it runs, or something that is not a network.
    """
    with _beside(path.parent.resolve()):
        return _network(_run(path), path, name, arguments or {})


def _run(path: Path) -> Any:
    """Run a file as a module of its own."""
    label = f"bitline_user_{path.stem}"
    python = importlib.util.spec_from_file_location(label, path)
    if python is None or python.loader is None:
        raise DataError(f"cannot import {path} as Python")
    module = importlib.util.module_from_spec(python)
    sys.modules[label] = module  # dataclasses and pickles in the file look themselves up there
    try:
        python.loader.exec_module(module)
    except Exception as error:
        alone = "; it is run on its own, not as part of a package: write `from NAME import ...` without the dot"
        relative = alone if isinstance(error, ImportError) and "relative import" in str(error) else ""
        raise DataError(f"{path} does not run: {type(error).__name__}: {error}{relative}") from error
    return module


def _network(module: Any, path: Path, name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Return what a module calls `name` as a network."""
    spec = f"{path}:{name}"
    if not hasattr(module, name):
        known = [key for key in vars(module) if not key.startswith("_")]
        raise DataError(f"{path} has no {name!r}; it defines {', '.join(known) or 'nothing'}{nearest(name, known)}")
    network: Any = getattr(module, name)
    if isinstance(network, nn.Module):
        if arguments:
            raise DataError(f"{spec} is a network already and takes no arguments; it got {', '.join(arguments)}")
        return network
    if not callable(network):
        raise DataError(f"{spec} is a {type(network).__name__}; expected an nn.Module, its class, or a function")
    try:
        network = network(**arguments)
    except Exception as error:
        how = f"with {', '.join(arguments)}" if arguments else "without arguments (--model-args gives it some)"
        raise DataError(f"{spec} cannot be called {how}: {type(error).__name__}: {error}") from error
    if not isinstance(network, nn.Module):
        raise DataError(f"{spec} gave a {type(network).__name__}; expected an nn.Module")
    return network


@contextmanager
def _beside(folder: Path) -> Generator[None]:
    """Have modules of a folder importable, none of an earlier folder in their place, and none from compiled files."""
    for name in _neighbours:
        sys.modules.pop(name, None)
    _neighbours.clear()
    before, settings = set(sys.modules), (sys.dont_write_bytecode, sys.pycache_prefix)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    sys.dont_write_bytecode, sys.pycache_prefix = True, os.devnull  # compiled files are in no hash
    try:
        yield
    finally:
        sys.dont_write_bytecode, sys.pycache_prefix = settings
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file is not None and Path(file).resolve().is_relative_to(folder):
                _neighbours.add(name)


def code_of(path: Path) -> dict[str, str]:
    """Return a file, and those beside it that it imports, and what these import: ``code/NAME`` -> SHA-256.

    Files are found by what is written in them, without running any. A module from elsewhere is named in a warning
    unless it is installed.

    Raises:
        DataError: no Python.
    """
    root = path.parent.resolve()
    found: dict[Path, None] = {path.resolve(): None}
    for file in (queue := [path.resolve()]):
        new = [other for other in _imports(file, root) if other not in found]
        found.update(dict.fromkeys(new))
        queue.extend(dict.fromkeys(new))
    return {f"{CODE}/{file.relative_to(root).as_posix()}": sha256(file) for file in found}


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file; of Python, whatever its ends of lines are."""
    content = path.read_bytes()
    return hashlib.sha256(content.replace(b"\r\n", b"\n") if path.suffix == ".py" else content).hexdigest()


def copy_code(code: Mapping[str, str], root: Path, folder: Path) -> None:
    """Copy files of `code_of` into a run directory, unless they are there.

    Args:
        code: ``code/NAME`` -> SHA-256.
        root: where NAME lies.
        folder: the run directory.

    Raises:
        DataError: a file is no longer what it was.
        ExportError: it cannot be written.
    """
    for name, known in code.items():
        source, target = root / name.removeprefix(f"{CODE}/"), folder / name
        if target.is_file() and sha256(target) == known:
            continue
        if not source.is_file() or sha256(source) != known:
            raise DataError(f"{source} is not as it was when the network was built from it; run the command again")
        with new_file(target) as part:
            shutil.copyfile(source, part)


def changes(code: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Say what is not as it was in the code of a run directory, by file."""
    found: dict[str, str] = {}
    for name, known in code.items():
        path = folder / name
        if not path.is_file():
            found[name] = "is missing"
        elif sha256(path) != known:
            found[name] = "was changed"
    there = (path for path in sorted((folder / CODE).rglob("*")) if path.is_file() and "__pycache__" not in path.parts)
    names = (path.relative_to(folder).as_posix() for path in there)
    return found | {name: "was added" for name in names if name not in code}


def _imports(file: Path, root: Path) -> Iterator[Path]:
    """Files below `root` that a file imports, anywhere in it."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise DataError(f"{file} does not run: {type(error).__name__}: {error}") from error
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files(root, alias.name.split("."), file)
        elif isinstance(node, ast.ImportFrom):
            start = root
            if node.level:
                start = file.parents[node.level - 1]
                if not start.is_relative_to(root):
                    continue
            parts = node.module.split(".") if node.module else []
            for alias in node.names:
                yield from _files(start, [*parts, alias.name], None if node.level else file)


def _files(start: Path, parts: list[str], file: Path | None) -> Iterator[Path]:
    """Files that importing a dotted name runs, where they are below a folder."""
    place, there = start, False
    for part in parts:
        place /= part
        for path in (place / "__init__.py", place.with_name(f"{part}.py")):
            if path.is_file():
                there = True
                yield path.resolve()
                break
    if file is not None and not there and not (start / parts[0]).is_dir():
        _tell(file, parts[0])


@functools.cache
def _tell(file: Path, name: str) -> None:
    """Warn of a module that lies elsewhere and is not installed."""
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return
    if found is None or found.origin in (None, "built-in", "frozen") or name == "bitline":
        return
    installed = [Path(sysconfig.get_path(key)).resolve() for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    place = Path(found.origin).resolve()
    if not any(place.is_relative_to(each) for each in installed) and "site-packages" not in place.parts:
        log.warning("%s imports %s from %s, which is not copied: it must be there wherever the run is read",
                    file, name, place)  # fmt: skip
