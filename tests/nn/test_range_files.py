"""The file that ADC ranges are kept in: it gives them back exactly, and nothing that does not fit."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from bitline import load_chip
from bitline.chip import replace
from bitline.errors import BitlineError, ConversionError, DataError
from bitline.nn import (
    calibrate,
    crossbar_layers,
    keep_ranges,
    load_ranges,
    save_ranges,
    set_chip,
    to_crossbar,
    train_ranges,
)

GRANULARITIES = ("layer", "slice", "slice_digit", "column")


def plain() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))


def trained(make_chip, **adc) -> tuple[nn.Module, Tensor]:
    """A network whose ranges are not where calibration put them, and its input."""
    torch.manual_seed(0)
    x = torch.rand(6, 2, 6, 6)
    chip = make_chip(crossbar={"rows": 8, "cols": 32}, adc={"policy": "trained", "bits": 3, **adc})
    model = to_crossbar(plain(), chip, example=x).model
    calibrate(model, [x * 0.8])
    with torch.no_grad():
        for p in train_ranges(model):
            p.add_(0.4)
    keep_ranges(model)
    return model, x


def moved(model: nn.Module, *overrides: str) -> None:
    set_chip(model, replace(next(iter(crossbar_layers(model).values())).chip, *overrides))


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("still", [False, True])
def test_a_file_gives_a_fresh_network_the_ranges(make_chip, tmp_path, granularity, still):
    model, x = trained(make_chip, granularity=granularity)
    if still:
        for p in train_ranges(model, offsets=True):
            p.data.add_(0.6)
    save_ranges(model, tmp_path / "ranges.safetensors")
    net = plain()
    net.load_state_dict({k: v for k, v in model.state_dict().items() if k in net.state_dict()})
    fresh = to_crossbar(net, model[0].chip, example=x).model
    load_ranges(fresh, tmp_path / "ranges.safetensors")
    assert torch.equal(fresh(x), model(x))
    set_chip(fresh, replace(model[0].chip, "cell.faults.stuck_on=0.1"))
    assert torch.equal(fresh(x), model(x))
    assert [file.name for file in tmp_path.iterdir()] == ["ranges.safetensors"]


def test_ranges_in_training_go_on_from_those_of_a_file(make_chip, tmp_path):
    model, x = trained(make_chip)
    save_ranges(model, tmp_path / "ranges.safetensors")
    wanted = model(x)
    parameters = train_ranges(model, offsets=True)
    for p in parameters:
        p.data.add_(1.0)
    load_ranges(model, tmp_path / "ranges.safetensors")
    assert torch.equal(model(x), wanted)
    assert model[0].ranges.log2_lsb is parameters[0]


def spoiled(change):
    """Write a file anew with its tensors and metadata changed."""

    def spoil(path):
        with safe_open(str(path), framework="pt") as file:
            tensors, metadata = {k: file.get_tensor(k) for k in file.keys()}, file.metadata()  # noqa: SIM118
        change(tensors, metadata)
        save_file(tensors, str(path), metadata)

    return spoil


def put(key, value):
    return spoiled(lambda tensors, _: tensors.__setitem__(key, value(tensors[key])))


SPOILED = {
    "absent": (lambda path: path.unlink(), DataError, "no such file"),
    "empty": (lambda path: path.write_bytes(b""), DataError, "is damaged"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-9]), DataError, "is damaged"),
    "text": (lambda path: path.write_text("ranges " * 99), DataError, "is damaged"),
    "weights": (lambda path: save_file({"w": torch.ones(2)}, str(path)), DataError, "holds no ADC ranges"),
    "no chip": (spoiled(lambda _, m: m.pop("chip")), DataError, "does not say which chip"),
    "half a chip": (spoiled(lambda _, m: m.update(chip="{")), DataError, "does not say which chip"),
    "missing": (spoiled(lambda t, _: t.pop("3.adc_lsb")), ConversionError, r"lacks 3\.adc_lsb$"),
    "more": (spoiled(lambda t, _: t.update(extra=torch.ones(1))), ConversionError, r"beyond the network's, extra$"),
    "other chip": (
        spoiled(lambda _, m: m.update(chip=json.dumps({**json.loads(m["chip"]), "adc.bits": 7}))),
        ConversionError,
        r"written for chip small of adc\.bits = 7; chip small has 3: --set adc\.policy=calibrated fits new ranges",
    ),
    "not a number": (put("3.adc_lsb", lambda v: v * float("nan")), ConversionError, "layer 3: adc_lsb is NaN"),
    "infinite": (put("0.adc_offset", lambda v: v / 0), ConversionError, "layer 0: adc_offset is NaN or infinite"),
    "too small": (put("0.adc_lsb", lambda v: v * 0 + 0.5), ConversionError, "is below one level"),
    "too fine": (put("0.adc_lsb", lambda v: v * 0 + 1 + 2.0**-20), ConversionError, "more than 10 significant bits"),
    "half": (put("0.adc_offset", lambda v: v + 0.5), ConversionError, "no whole number of levels"),
    "shape": (put("0.adc_lsb", lambda v: v[:, :1, :1].contiguous()), ConversionError, r"expected \(1, 4, 2, 1\)"),
    "scale": (put("0.input_scale", lambda v: -v), ConversionError, "must be a number above zero"),
    "sign": (put("0.input_signed", lambda v: v.int()), ConversionError, "not one number and one sign"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_file_that_does_not_fit_is_refused_and_changes_nothing(make_chip, tmp_path, name):
    spoil, error, message = SPOILED[name]
    model, x = trained(make_chip)
    path = tmp_path / "ranges.safetensors"
    save_ranges(model, path)
    calibrate(model, [x * 0.8])
    before = model(x)
    spoil(path)
    with pytest.raises(error, match=message):
        load_ranges(model, path)
    assert torch.equal(model(x), before)


def test_files_belong_to_chips_whose_adcs_keep_ranges(make_chip, tmp_path):
    model, _ = trained(make_chip)
    path = tmp_path / "ranges.safetensors"
    save_ranges(model, path)
    with pytest.raises(DataError, match=r"ranges.pt: ranges are kept in \.safetensors files only"):
        save_ranges(model, tmp_path / "ranges.pt")
    moved(model, "adc.policy=full")
    for call in (load_ranges, save_ranges):
        with pytest.raises(BitlineError, match="keeps no ranges; allowed: 'calibrated'"):
            call(model, path)


@torch.no_grad()
def test_a_file_from_before_fingerprints_still_fits_its_chip():
    chip, path = (
        load_chip("rram-22nm", ["adc.bits=4"]),
        Path(__file__).parent / "ranges_before_fingerprints.safetensors",
    )
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4)), torch.rand(6, 12)
    model = to_crossbar(net, chip, example=x).model
    load_ranges(model, path)
    wanted = to_crossbar(net, chip, example=x).model
    calibrate(wanted, [x])
    assert torch.equal(model(x), wanted(x))
    with pytest.raises(ConversionError, match=r"adc\.bits = 4; chip rram-22nm has 5"):
        load_ranges(to_crossbar(net, replace(chip, "adc.bits=5"), example=x).model, path)
    corrected = replace(chip, "weights.encoding={kind='offset', correction='measured'}")
    load_ranges(to_crossbar(net, corrected, example=x).model, path)
