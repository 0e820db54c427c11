"""No key of a chip is without effect: each changes answers, or changes nothing but costs on some chip."""

from collections.abc import Iterator
from functools import cache
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from bitline import load_chip
from bitline.chip.description import Chip
from bitline.chip.records import Record
from bitline.cost.model import price
from bitline.nn import calibrate, placement, program, to_crossbar

BASE = ("adc.bits=3", "crossbar.rows=32", "crossbar.active_rows=16", "crossbar.cols=64", "cell.programming=ideal")
WRITES = ("cell.programming={kind='lognormal', sigma=0.1}",)
BREAKS = (*WRITES, "cell.faults={stuck_off=0.05, stuck_on=0.05}")
ABSOLUTE = ("cell.programming={kind='gaussian_absolute', sigma='3 uS'}",)
FIXED = ("adc.policy=fixed", "adc.range={low='0 uA', high='100 uA'}")
POWERS = ("weights.scale=power_of_two", "inputs.scale=power_of_two")
READS_BACK = (*BREAKS, "mitigation.readback=true")

# Context and change. A key of one of several kinds of record has its kind in brackets.
ANSWERS: dict[str, tuple[tuple[str, ...], str]] = {
    "cell.bits": ((), "cell.bits=1"),
    "cell.g_min": (("cell.leak=kept",), "cell.g_min='4 uS'"),
    "cell.g_max": (ABSOLUTE, "cell.g_max='30 uS'"),
    "cell.read_voltage": (FIXED, "cell.read_voltage='0.3 V'"),
    "cell.leak": (("adc.policy=full",), "cell.leak=kept"),
    "cell.programming": ((), "cell.programming={kind='gaussian_proportional', sigma=0.1}"),
    "cell.programming[lognormal].sigma": (WRITES, "cell.programming.sigma=0.2"),
    "cell.programming[lognormal].centred": (WRITES, "cell.programming.centred=true"),
    "cell.programming[gaussian_proportional].sigma": (
        ("cell.programming={kind='gaussian_proportional', sigma=0.1}",),
        "cell.programming.sigma=0.2",
    ),
    "cell.programming[gaussian_absolute].sigma": (ABSOLUTE, "cell.programming.sigma='5 uS'"),
    "cell.programming[per_level].sigma": (
        ("cell.bits=1", "cell.programming={kind='per_level', sigma=['1 uS', '1 uS']}"),
        "cell.programming.sigma=['1 uS', '2 uS']",
    ),
    "cell.programming[per_level].mean": (
        ("cell.bits=1", "cell.programming={kind='per_level', sigma=['1 uS', '1 uS']}"),
        "cell.programming.mean=['2 uS', '20 uS']",
    ),
    "cell.faults.stuck_off": ((), "cell.faults.stuck_off=0.1"),
    "cell.faults.stuck_on": ((), "cell.faults.stuck_on=0.1"),
    "cell.read_noise": ((), "cell.read_noise={kind='proportional', sigma=0.3}"),
    "cell.read_noise[absolute].sigma": (
        ("cell.read_noise={kind='absolute', sigma='3 uS'}",),
        "cell.read_noise.sigma='6 uS'",
    ),
    "cell.read_noise[proportional].sigma": (
        ("cell.read_noise={kind='proportional', sigma=0.3}",),
        "cell.read_noise.sigma=0.6",
    ),
    "crossbar.cols": ((*WRITES, "weights.encoding={kind='offset', sum='column'}"), "crossbar.cols=24"),
    "crossbar.active_rows": ((), "crossbar.active_rows=32"),
    "dac.bits": ((), "dac.bits=2"),
    "adc.bits": ((), "adc.bits=4"),
    "adc.levels": ((), "adc.levels=5"),
    "adc.policy": ((), "adc.policy=full"),
    "adc.granularity": ((), "adc.granularity=layer"),
    "adc.calibration": ((), "adc.calibration=percentile"),
    "adc.percentile": (("adc.calibration=percentile",), "adc.percentile=90.0"),
    "adc.range.low": (FIXED, "adc.range.low='10 uA'"),
    "adc.range.high": (FIXED, "adc.range.high='60 uA'"),
    "weights.bits": ((), "weights.bits=5"),
    "weights.encoding": ((), "weights.encoding=twos_complement"),
    "weights.encoding[offset].sum": (WRITES, "weights.encoding.sum=column"),
    "weights.encoding[offset].zero_point": ((), "weights.encoding.zero_point=140"),
    "weights.encoding[offset].correction": (BREAKS, "weights.encoding.correction=measured"),
    "weights.encoding[pair].subtract": (("weights.encoding=pair",), "weights.encoding.subtract=digital"),
    "weights.slices": (WRITES, "weights.slices=9"),
    "weights.granularity": ((), "weights.granularity=tensor"),
    "weights.scale": ((), "weights.scale=power_of_two"),
    "weights.rounding": (POWERS, "weights.rounding=nearest"),
    "weights.bias_bits": (POWERS, "weights.bias_bits=3"),
    "inputs.bits": ((), "inputs.bits=5"),
    "inputs.calibration": (("inputs.bits=4",), "inputs.calibration=max"),
    "inputs.percentile": (("inputs.calibration=percentile",), "inputs.percentile=80.0"),
    "inputs.scale": ((), "inputs.scale=power_of_two"),
    "inputs.rounding": (POWERS, "inputs.rounding=nearest"),
    "inputs.zero_point": ((), "inputs.zero_point=true"),
    "mitigation.remap": (BREAKS, "mitigation.remap=true"),
    "mitigation.flip": (BREAKS, "mitigation.flip=true"),
    "mitigation.nearest": (BREAKS, "mitigation.nearest=true"),
    "mitigation.readback": (BREAKS, "mitigation.readback=true"),
    "mitigation.rewrites": (READS_BACK, "mitigation.rewrites=2"),
    "mitigation.verify": (WRITES, "mitigation.verify=0.5"),
    "mitigation.tolerance": ((*WRITES, "mitigation.verify=0.5"), "mitigation.tolerance=0.02"),
}
COST_ONLY = {
    "node": "node='32 nm'",
    "vdd": "vdd='0.7 V'",
    "cell.area_f2": "cell.area_f2=30.0",
    "cell.access_resistance": "cell.access_resistance='1 kohm'",
    "crossbar.rows": "crossbar.rows=64",
    "crossbar.segment_rows": "crossbar.segment_rows=16",
    "adc.columns_per_adc": "adc.columns_per_adc=4",
    "adc.sample_rate": "adc.sample_rate='1 GHz'",
    "adc.model": "adc.model=survey",
    "timing.read": "timing.read='50 ns'",
    "timing.pulse": "timing.pulse='1 ns'",
    "timing.sample_and_hold": "timing.sample_and_hold=true",
    "timing.clock": "timing.clock='0.5 GHz'",
    "system.crossbars_per_macro": "system.crossbars_per_macro=4",
    "system.macros_per_tile": "system.macros_per_tile=4",
    "system.tiles": "system.tiles=40",
    "system.buffer_kib": "system.buffer_kib=128",
    "system.bus_bits": "system.bus_bits=128",
    "system.hops": "system.hops=2.0",
    "system.copies": "system.copies=2",
    "cost_table": "cost_table=isaac-32nm",
    "cell_cost": "cell_cost=conductance",
}
WORDS = {"name": "name=other", "about": "about=text", "doi": "doi='10.1/2'", "deviations": "deviations=['one']"}
EVERYTHING = (*BREAKS, "cell.read_noise={kind='proportional', sigma=0.1}", "cell.leak=kept", "mitigation.verify=0.2")


def keys(record: type[Record], prefix: str = "") -> Iterator[str]:
    """All keys of a record; those of a record of several kinds with the kind in brackets."""
    for name, field in record.model_fields.items():
        inner = list(records(field.annotation))
        if len(inner) == 1 and len(inner[0].model_fields) > 0 and "kind" not in inner[0].model_fields:
            yield from keys(inner[0], f"{prefix}{name}.")
            continue
        if name != "kind":
            yield prefix + name
        for each in inner:
            kind = get_args(each.model_fields["kind"].annotation)[0]
            yield from keys(each, f"{prefix}{name}[{kind}].")


def records(annotation: Any) -> Iterator[type[Record]]:
    if isinstance(annotation, type) and issubclass(annotation, Record):
        yield annotation
    for part in get_args(annotation):
        yield from records(part)


@cache
def network() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Conv2d(12, 6, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(24, 5)
    )
    return net.eval(), torch.rand(16, 3, 6, 6) ** 2 - 0.05


@cache
@torch.no_grad()
def answer(*overrides: str) -> Tensor:
    net, x = network()
    model = to_crossbar(net, load_chip("rram-22nm", [*BASE, *overrides]), example=x).model
    calibrate(model, [x])
    program(model, 0)
    return model(x)


def test_every_key_is_known_here():
    listed = [*ANSWERS, *COST_ONLY, *WORDS]
    assert sorted(listed) == sorted(keys(Chip))


@pytest.mark.parametrize("key", ANSWERS)
def test_a_key_changes_answers(key):
    context, change = ANSWERS[key]
    assert change.startswith(key.replace("]", "[").split("[")[0])
    assert not torch.equal(answer(*context, change), answer(*context))


@pytest.mark.parametrize("key", [*COST_ONLY, *WORDS])
def test_a_key_that_only_costs_changes_no_bit_of_an_answer(key):
    change = {**COST_ONLY, **WORDS}[key]
    assert load_chip("rram-22nm", [*BASE, change]) != load_chip("rram-22nm", BASE)
    assert torch.equal(answer(*EVERYTHING, change), answer(*EVERYTHING))


@cache
def costs(preset: str, *overrides: str) -> tuple[float, float, float]:
    """Energy, latency and area of a network on several tiles."""
    net, x = (
        nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 64)).eval(),
        torch.rand(1, 3, 10, 10),
    )
    small = ("system.crossbars_per_macro=2", "system.macros_per_tile=2", *overrides)
    cost = price(placement(to_crossbar(net, load_chip(preset, small), example=x).model))
    return cost.energy_J, cost.latency_s, cost.area_m2


@pytest.mark.parametrize("key", COST_ONLY)
def test_a_key_that_only_costs_costs_on_some_chip(key):
    presets = ("rram-22nm", "example-128", "isaac-32nm")
    assert any(costs(preset, COST_ONLY[key]) != costs(preset) for preset in presets)
