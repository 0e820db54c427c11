"""ADC ranges that a network trains together with its weights, keeps, and writes to a file."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from bitline.chip.description import Chip
from bitline.errors import ConversionError, DataError
from bitline.files import parse_json, read_tensors, write_tensors
from bitline.mapping.range_parts import flat_parts
from bitline.mvm import adc
from bitline.mvm.gradient import Sampling
from bitline.mvm.product import Product
from bitline.nn.layer import CrossbarLayer
from bitline.nn.on import crossbar_layers

_FORMAT = "bitline ADC ranges 1"
_TENSORS = ("input_scale", "input_signed", "adc_lsb", "adc_offset")
_ZERO = "input_zero"


def train_ranges(
    model: nn.Module, *, offsets: bool = False, vectors: int = 128, sums: int = 2**21, seed: int = 0
) -> list[nn.Parameter]:
    """Make parameters of a converted network's ADC ranges, beginning from the ranges it has.

    Each layer gets ``log2_lsb``, and with `offsets` ``offset_shift``. Their gradient is that of a learned step size,
    estimated from input vectors drawn anew at every step; see `bitline.mvm.gradient.range_gradient`. It is not
    scaled down as Esser et al. (arXiv:1902.08153) do: give the parameters to Adam, which needs no scaling, at a rate of
    about 1e-2: octaves of an LSB, or LSBs of an offset, a step. `keep_ranges` ends it.

    Args:
        model: converted and calibrated, on a chip of ``adc.policy = "trained"``.
        offsets: train the lowest value of every range too.
        vectors: input vectors that each layer's gradient is estimated from at a step, at most.
        sums: analog sums that each layer computes for them, at most; but never fewer than 8 vectors.
        seed: of the draws; each depends on it, on the layer's name and on the number of the step.

    Returns:
        The new parameters.

    Raises:
        ConversionError: ranges that are unknown or train already, or another ADC policy.
    """
    if vectors < 1:
        raise ConversionError(f"vectors is {vectors}; allowed: 1 or more")
    layers = crossbar_layers(model)
    for name, layer in layers.items():
        if layer.chip.adc.policy != "trained":
            raise ConversionError(
                f"layer {name} is on chip {layer.chip.name} of adc.policy = {layer.chip.adc.policy!r}; ranges train "
                "under 'trained' only: call set_chip(model, replace(chip, 'adc.policy=trained')) first"
            )
        if layer.ranges.log2_lsb is not None:
            raise ConversionError(f"layer {name}: its ADC ranges train already")
        _check_known(name, layer)
    for layer in layers.values():
        layer.ranges.begin_training(Sampling(vectors, sums, seed), offsets=offsets)
    parameters = (p for layer in layers.values() for p in (layer.ranges.log2_lsb, layer.ranges.offset_shift))
    return [p for p in parameters if p is not None]


def keep_ranges(model: nn.Module) -> None:
    """Write trained ADC ranges back into the buffers that hold calibrated ones, and remove their parameters.

    Raises:
        ConversionError: a range that training has made NaN or infinite.
    """
    layers = crossbar_layers(model)
    for name, layer in layers.items():
        if layer.ranges.log2_lsb is not None:
            _check_known(name, layer)
    for layer in layers.values():
        layer.ranges.end_training()


def save_ranges(model: nn.Module, path: Path | str) -> None:
    """Write the input and ADC ranges of a converted network to a safetensors file.

    Args:
        model: calibrated, or trained; it may go on training.
        path: a ``.safetensors`` file; one that is there is replaced once the new one is whole.

    Raises:
        ConversionError: ranges that are unknown, or a chip whose ADCs keep none.
    """
    layers = crossbar_layers(model)
    tensors: dict[str, Tensor] = {}
    for name, layer in layers.items():
        _check_keeps(layer.chip)
        _check_known(name, layer)
        r = layer.ranges
        values = (r.input_scale, r.input_signed, r.lsb, r.offset)
        for key, value in zip(_TENSORS, values, strict=True):
            tensors[f"{name}.{key}"] = value.detach().cpu().clone().contiguous()
        if layer.input_zero:
            tensors[f"{name}.{_ZERO}"] = r.input_zero.cpu().clone()
    chip = next(iter(layers.values())).chip
    metadata = {"format": _FORMAT, "chip": json.dumps(flat_parts(chip), sort_keys=True), "name": chip.name}
    metadata |= {"layouts": json.dumps(_layouts(layers), sort_keys=True)}
    path = Path(path)
    _check_suffix(path)
    write_tensors(path, tensors, metadata)


def load_ranges(model: nn.Module, path: Path | str) -> None:
    """Give a converted network the input and ADC ranges of a file; it needs no calibration then.

    Nothing changes unless the whole file fits. Where ranges train, they go on from those of the file.

    Args:
        model: on a chip of the same ADCs, crossbars and number formats as the one that the file was written for.
        path: from `save_ranges`.

    Raises:
        DataError: an absent or damaged file, or another kind of file.
        ConversionError: layers or a chip that do not fit the file, or ranges that no ADC can have.
    """
    path = Path(path)
    tensors, metadata = _read(path)
    layers = crossbar_layers(model)
    _check_chip(next(iter(layers.values())).chip, metadata, path)
    for name, layer in layers.items():
        if layer.chip.inputs.zero_point:
            tensors.setdefault(f"{name}.{_ZERO}", torch.tensor(0))
    wanted = {f"{name}.{key}" for name, layer in layers.items() for key in _keys(layer)}
    for what, names in (("lacks", wanted - tensors.keys()), ("holds, beyond the network's,", tensors.keys() - wanted)):
        if names:
            raise ConversionError(f"{path} {what} {', '.join(sorted(names)[:4])}{', ...' if len(names) > 4 else ''}")
    _check_layouts(layers, metadata, path)
    for name, layer in layers.items():
        _check_fits(layer, {key: tensors[f"{name}.{key}"] for key in _keys(layer)}, f"{path}: layer {name}")
    for name, layer in layers.items():
        scale, signed, lsb, offset = (tensors[f"{name}.{key}"] for key in _TENSORS)
        layer.forget()
        zero = int(tensors[f"{name}.{_ZERO}"]) if layer.chip.inputs.zero_point else 0
        layer.ranges.take_inputs(float(scale), signed=bool(signed), zero=zero)
        layer.ranges.take(lsb, offset, layer.chip)


def ranged_layers(path: Path | str) -> set[str]:
    """Names of the layers whose ranges a file of `save_ranges` holds.

    Raises:
        DataError: an absent or damaged file, or another kind of file.
    """
    return {name.rpartition(".")[0] for name in _read(Path(path))[0]}


def _keys(layer: CrossbarLayer) -> tuple[str, ...]:
    """Tensors that a file has of a layer; one of no zero point may lack it."""
    return (*_TENSORS, _ZERO) if layer.chip.inputs.zero_point else _TENSORS


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    _check_suffix(path)
    tensors, metadata = read_tensors(path)
    if metadata.get("format") != _FORMAT:
        raise DataError(f"{path} holds no ADC ranges; expected a file of save_ranges(model, path)")
    return tensors, metadata


def _check_suffix(path: Path) -> None:
    if path.suffix != ".safetensors":
        raise DataError(f"{path}: ranges are kept in .safetensors files only")


def _check_keeps(chip: Chip) -> None:
    if not chip.adc.keeps_ranges:
        raise ConversionError(
            f"chip {chip.name} has adc.policy = {chip.adc.policy!r}, which keeps no ranges; "
            "allowed: 'calibrated', 'trained'"
        )


def _check_known(name: str, layer: CrossbarLayer) -> None:
    if not layer.ranges.known(layer.chip):
        why = "unknown; call calibrate(model, batches) first"
        if layer.ranges.log2_lsb is not None:
            why = "NaN or infinite; training has diverged"
        raise ConversionError(f"layer {name}: its input or ADC range is {why}")


def _check_chip(chip: Chip, metadata: dict[str, str], path: Path) -> None:
    _check_keeps(chip)
    mine, theirs = flat_parts(chip), _json(metadata, "chip", path)
    for key in sorted(mine.keys() | theirs.keys()):
        if mine.get(key) != theirs.get(key):
            raise ConversionError(
                f"{path} was written for chip {metadata.get('name', '?')} of {key} = {theirs.get(key)!r}; "
                f"chip {chip.name} has {mine.get(key)!r}: --set adc.policy=calibrated fits new ranges "
                "for it, and bitline optimize psum-aware trains some"
            )


def _json(metadata: dict[str, str], key: str, path: Path) -> dict[str, Any]:
    try:
        return dict(cast("dict[str, Any]", parse_json(metadata[key])))
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path} is damaged: it does not say which {key} it is for") from error


def _layouts(layers: Mapping[str, CrossbarLayer]) -> dict[str, str]:
    """What the sums of each layer are made of, where that is not its groups by themselves."""
    return {name: layer.ranges.layout for name, layer in layers.items() if layer.ranges.layout != "dense"}


def _check_layouts(layers: Mapping[str, CrossbarLayer], metadata: dict[str, str], path: Path) -> None:
    mine, theirs = _layouts(layers), _json(metadata, "layouts", path)
    for name in layers:
        if mine.get(name) != theirs.get(name):
            raise ConversionError(
                f"{path} was written for layer {name} mapped {theirs.get(name, 'dense')!r}; "
                f"the network has it {mine.get(name, 'dense')!r}"
            )


def _check_fits(layer: CrossbarLayer, saved: dict[str, Tensor], where: str) -> None:
    """Raise ConversionError where ranges of a file cannot be those of a layer."""
    signed, scale = saved["input_signed"], saved["input_scale"]
    if signed.dtype != torch.bool or signed.numel() != 1 or scale.numel() != 1:
        raise ConversionError(f"{where}: input range is not one number and one sign")
    if not bool(scale.isfinite() & (scale > 0)):
        raise ConversionError(f"{where}: input_scale = {float(scale)} must be a number above zero")
    zero = saved.get(_ZERO, torch.tensor(0))
    if zero.numel() != 1 or zero.is_floating_point() or not 0 <= int(zero) < 2**layer.chip.inputs.bits:
        raise ConversionError(f"{where}: input_zero is no whole number of inputs.bits = {layer.chip.inputs.bits}")
    if not layer.converts:
        return
    product = Product(replace(layer.whole_placement, matmul=replace(layer.matmul, signed=bool(signed))).merged)
    shape = adc.shape(layer.chip.adc.granularity, product)
    for key in ("adc_lsb", "adc_offset"):
        value = saved[key]
        if tuple(value.shape) != shape or value.dtype != torch.float64:
            raise ConversionError(f"{where}: {key} is {value.dtype} of shape {tuple(value.shape)}; expected {shape}")
        if not bool(value.isfinite().all()):
            raise ConversionError(f"{where}: {key} is NaN or infinite")
    if layer.ranges.log2_lsb is not None and tuple(layer.ranges.log2_lsb.shape) != shape:
        raise ConversionError(f"{where}: ranges of shape {tuple(layer.ranges.log2_lsb.shape)} train; expected {shape}")
    if not saved["adc_lsb"].equal(adc.snap(saved["adc_lsb"])):
        raise ConversionError(f"{where}: adc_lsb is below one level or has more than 10 significant bits")
    if not saved["adc_offset"].equal(saved["adc_offset"].round()):
        raise ConversionError(f"{where}: adc_offset is no whole number of levels")
