"""Trained weights from safetensors files, taken for what they say they are, or refused."""

import logging
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from bitline.errors import DataError

log = logging.getLogger(__name__)

FLOATING = {"F16", "BF16", "F32", "F64"}
"""types that real weights may have; each becomes the type that the network has"""
WHOLE = {"I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64"}
"""types that counters may have"""
TINY, OUTLIER = 1e-30, 1e6
"""weights so small, or so many times their median, are remarked on; assumed"""
HUGE = 1e6
"""so are a bias and a factor of a normalization beyond it; assumed"""
_WORDS = {"BOOL": "truth values", "C64": "complex numbers", **dict.fromkeys(WHOLE, "integers without a scale")}


def load_weights(model: nn.Module, path: Path | str) -> None:
    """Copy the tensors of a safetensors file into a network, all of them and no others.

    Args:
        model: changed in place.
        path: a ``.safetensors`` file whose names, shapes and kinds of numbers are those of ``model.state_dict()``.

    Raises:
        DataError: absent or damaged file, another format, names, shapes or types that do not fit, or numbers that are
            not finite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    path = Path(path)
    if path.suffix != ".safetensors":
        raise DataError(
            f"{path}: weights are read from .safetensors only, because other formats can run code; "
            "convert with safetensors.torch.save_model(model, path)"
        )
    if not path.is_file():
        raise DataError(f"no such file: {path}")
    try:
        _check_types(model, path)
        load_model(model, str(path), strict=True)
    except (SafetensorError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} does not fit {type(model).__name__}: {reason[:400]}") from error
    check_weights(model, str(path))
    for remark in remarks(model):
        log.warning("%s: %s", path, remark)


def remarks(model: nn.Module) -> Iterator[str]:
    """Say which weights are numbers that no training leaves: all zero, all tiny, or one beyond all others."""
    for name, tensor in model.named_parameters():
        if tensor.is_meta or is_lazy(tensor) or not tensor.numel():
            continue
        sizes = tensor.detach().abs().flatten()
        most = float(sizes.max())
        if tensor.dim() < 2:
            if most > HUGE:
                yield f"{name} has a number of {most:.3g}; no other part of an answer can be told beside it"
            continue
        middle = float(sizes[sizes > 0].median()) if most else 0.0
        if most < TINY:
            yield f"{name} is {'zero everywhere' if most == 0 else f'nowhere above {most:.2g}'}"
        elif most > OUTLIER * middle:
            yield f"{name} has a weight of {most:.3g} beside a median of {middle:.3g}; one scale cannot hold both"


def check_weights(model: nn.Module, where: str, tensors: Mapping[str, Tensor] | None = None) -> None:
    """Refuse a network with a parameter or statistic that is NaN or infinite, or a variance below zero.

    Args:
        model: looked at, not changed.
        where: named in errors, for example the file that its weights are from.
        tensors: a state of the model, looked at instead of the one it is in.

    Raises:
        DataError: names the first such tensor, and how many of its numbers are of this kind.
    """
    # Buffers of other kinds may be infinite for good reason, as a mask of attention is.
    statistics = ((n, b) for n, b in model.named_buffers() if n.rpartition(".")[2] in ("running_mean", "running_var"))
    for name, tensor in chain(model.named_parameters(), statistics):
        if tensors is not None and name not in tensors:
            continue
        tensor = tensor if tensors is None else tensors[name]
        what = "" if tensor.is_meta or is_lazy(tensor) else _wrong(name, tensor.detach())
        if what:
            raise DataError(f"{where}: {name} has {what}")


def _wrong(name: str, tensor: Tensor) -> str:
    count = int((~torch.isfinite(tensor)).sum())
    if count:
        return f"{count} of {tensor.numel()} numbers that are NaN or infinite"
    if name.endswith("running_var") and tensor.numel() and float(tensor.min()) < 0:
        return f"a variance of {float(tensor.min()):g}; allowed: 0 or more"
    return ""


def _check_types(model: nn.Module, path: Path) -> None:
    """Refuse tensors whose type says that their numbers are something else than the network computes with."""
    from safetensors import safe_open

    wanted = model.state_dict()
    with safe_open(str(path), framework="pt") as file:
        for name in sorted(wanted.keys() & set(file.keys())):
            kind = file.get_slice(name).get_dtype()
            allowed = FLOATING if wanted[name].dtype.is_floating_point else WHOLE
            if wanted[name].dtype != torch.bool and kind not in allowed:
                words = f", {_WORDS[kind]}" if kind in _WORDS else ""
                raise DataError(f"{path}: {name} is {kind}{words}; allowed: {', '.join(sorted(allowed))}")
