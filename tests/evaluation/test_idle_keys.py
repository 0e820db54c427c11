"""Keys that do nothing are found by trying, over all keys and presets; on another network again."""

import pytest
import torch
from torch import nn

from bitline.chip import Chip, load, presets, replace
from bitline.cost.model import price
from bitline.evaluation.idle_keys import idle_keys, variants
from bitline.mapping.lower import Matmul
from bitline.mapping.place import place
from bitline.nn import calibrate, program, to_crossbar

OTHERS = {
    "cell.g_min": "0.5 uS",
    "cell.g_max": "50 uS",
    "cell.read_voltage": "0.3 V",
    "cell.leak": "kept",
    "cell.access_resistance": "5 kohm",
    "adc.levels": "20",
    "adc.granularity": "layer",
    "adc.calibration": "percentile",
    "adc.sample_rate": "300 MHz",
    "adc.percentile": "97.0",
    "inputs.percentile": "97.0",
    "timing.pulse": "1 ns",
    "mitigation.remap": "true",
    "mitigation.flip": "true",
    "mitigation.nearest": "true",
    "mitigation.readback": "true",
    "mitigation.verify": "0.3",
    "mitigation.tolerance": "0.4",
}
"""another value of each key that does nothing on some preset"""


def answers(chip: Chip) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    layer = nn.Linear(300, 40, bias=False)
    layer.weight.data = torch.randn(40, 300, generator=generator)
    images = torch.rand(32, 300, generator=generator)
    with torch.no_grad():
        model = to_crossbar(nn.Sequential(layer), chip, example=images[:2]).model
        calibrate(model, [images])
        program(model, 5)
        return model(images[:3])


def cost(chip: Chip) -> tuple[float, ...]:
    layers = [
        Matmul("a", "conv2d", 300, 70, positions=90, inputs=5000, window=900),
        Matmul("b", "linear", 2000, 300, inputs=2000, window=2000),
    ]
    of = price(place(layers, chip))
    return of.energy_J, of.latency_s, of.area_m2


@pytest.mark.parametrize("preset", presets())
def test_keys_that_are_called_idle_change_neither_answers_nor_costs_of_another_network(preset):
    chip = load(preset)
    idle = idle_keys(chip)

    assert set(idle) <= set(OTHERS)
    before, spent = answers(chip), cost(chip)
    for key in idle:
        changed = replace(chip, f"{key}={OTHERS[key]}")
        assert changed != chip
        assert torch.equal(answers(changed), before), key
        assert cost(changed) == spent, key


@pytest.mark.parametrize(
    ("preset", "idle", "felt"),
    [
        (
            "rram-22nm",
            {"cell.read_voltage", "cell.access_resistance", "timing.pulse", "adc.sample_rate"},
            {"adc.bits", "cell.g_max", "system.bus_bits", "system.hops", "timing.clock", "system.tiles"},
        ),
        (
            "isaac-32nm",
            {"cell.read_voltage", "cell.access_resistance", "timing.pulse"},
            {"adc.sample_rate", "inputs.calibration", "system.buffer_kib", "dac.bits", "cost_table"},
        ),
        ("example-128", {"mitigation.tolerance"}, {"cell.read_voltage", "cell.access_resistance", "timing.pulse"}),
    ],
)
def test_keys_that_are_known_to_do_nothing_on_a_preset_are_found_and_others_are_not(preset, idle, felt):
    found = set(idle_keys(load(preset)))

    assert idle <= found
    assert not felt & found


MORE = {
    "mitigation.rewrites": ("mitigation.readback=true",),
    "mitigation.tolerance": ("mitigation.verify=0.5",),
    "adc.percentile": ("adc.calibration=percentile",),
    "adc.range": ("adc.policy=fixed", "adc.range={low='0 A', high='300 uA'}"),
    "inputs.percentile": ("inputs.calibration=percentile",),
    "inputs.rounding": ("inputs.scale=power_of_two",),
    "weights.rounding": ("weights.scale=power_of_two",),
}
"""what makes a key count that does nothing, or can have no other value, on a chip with variation, faults and noise"""


def test_every_key_counts_on_some_chip():
    chip = load("example-128")
    idle, fixed = set(idle_keys(chip)), {key for key, others in variants(chip) if not others}

    # A bias has bits where scales are powers of two; the layer that is tried has none.
    assert idle | fixed == MORE.keys() | {"weights.bias_bits"}
    for key, overrides in MORE.items():
        other = replace(chip, *overrides)
        changed = [each for path, each in variants(other) if path in (key, f"{key}.low", f"{key}.high")]
        assert any(changed), key
        assert not {key, f"{key}.low", f"{key}.high"} & set(idle_keys(other)), key


def test_a_chip_that_cannot_answer_has_no_list():
    tiny = replace(
        load("example-128"),
        "crossbar.rows=8",
        "crossbar.cols=8",
        "adc.columns_per_adc=8",
        "system.tiles=1",
        "system.macros_per_tile=1",
        "system.crossbars_per_macro=1",
    )

    assert idle_keys(tiny) == []


def test_a_chip_that_cannot_be_priced_has_no_keys_that_are_said_to_do_nothing():
    assert idle_keys(load("example-128", ["adc.bits=13"])) == []
