import pytest
import torch
from torch import nn

from bitline import chip as chips
from bitline.errors import ConversionError
from bitline.nn import calibrate, cells, crossbar_layers, program, to_crossbar
from bitline.programming.cells import program_cells
from bitline.train.chip_view import ChipView

FAULTS = "cell.faults={stuck_off=0.09, stuck_on=0.02}"
BASE = (
    "crossbar.rows=32",
    "crossbar.active_rows=32",
    "crossbar.cols=32",
    "adc.columns_per_adc=8",
    "adc.policy=lossless",
    "cell.programming={kind='ideal'}",
    "cell.leak=cancelled",
    "cell.read_noise={kind='none'}",
)


def network(rows_at_zero=0):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 12, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(12 * 36, 5))
    if rows_at_zero:
        with torch.no_grad():
            model[0].weight[:8, :3] = 0
            model[3].weight[:, :rows_at_zero] = 0
    return model


def answers(model, overrides, seed):
    x = torch.randn(6, 4, 6, 6, generator=torch.Generator().manual_seed(1))
    converted, _ = to_crossbar(model, chips.load("example-128", [*BASE, *overrides]), example=x)
    calibrate(converted, [x])
    program(converted, seed)
    found = []
    for mode in ("chip", "linear"):
        for layer in crossbar_layers(converted).values():
            layer.mode = mode
        with torch.no_grad():
            found.append(converted(x))
    return found


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        (FAULTS,),
        ("weights.encoding={kind='pair'}", FAULTS),
        ("weights.encoding={kind='twos_complement'}", FAULTS),
        ("weights.encoding={kind='offset', sum='column'}", FAULTS),
        ("weights.encoding={kind='offset', correction='measured'}", FAULTS),
        ("weights.encoding={kind='offset', correction='expected'}", FAULTS),
        ("mitigation={remap=true, flip=true, nearest=true}", FAULTS),
        ("mitigation={remap=true, flip=true, readback=true}", FAULTS),
        ("mitigation={readback=true, rewrites=2}", "weights.encoding={kind='pair'}", FAULTS),
        ("mitigation={flip=true}", "weights.encoding={kind='offset', correction='measured'}", FAULTS),
        ("weights.bits=6", "weights.bias_bits=6", "weights.scale=power_of_two", "inputs.scale=power_of_two", FAULTS),
    ],
)
@pytest.mark.parametrize("zeros", [0, 96])
def test_cells_that_sit_on_levels_make_exactly_the_effective_weights(overrides, zeros):
    direct, linear = answers(network(zeros), overrides, seed=3)

    torch.testing.assert_close(linear, direct, rtol=1e-4, atol=1e-4)


def test_errors_hold_while_weights_learn_until_the_chip_is_written_again():
    chip = chips.load("example-128", [*BASE, FAULTS])
    model, x = network(), torch.randn(2, 4, 6, 6)
    converted, _ = to_crossbar(model, chip, example=x)
    calibrate(converted, [x])
    layer = converted[0]
    program(converted, 3)
    with torch.no_grad():
        before = layer.effective_weight() - layer.fake_weight().value
        torch.testing.assert_close(layer.effective_weight() - layer.fake_weight().value, before, rtol=0, atol=0)
        layer.weight.add_(0.01 * layer.weight.abs().max())
        held = layer.effective_weight() - layer.fake_weight().value
        program(converted, 3)
        written = layer.effective_weight() - layer.fake_weight().value

    scale = layer.weight.abs().amax((1, 2, 3), keepdim=True)  # one range for each output, which the change widens
    torch.testing.assert_close(held / scale, before / (scale - 0.01 * layer.weight.abs().max()), rtol=0.2, atol=1e-3)
    assert not torch.allclose(held, written)


@pytest.mark.parametrize("encoding", ["{kind='offset', correction='measured'}", "{kind='pair'}"])
def test_groups_have_effective_weights_too(encoding):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 9, 3), nn.ReLU(), nn.Conv2d(9, 9, 3, groups=9), nn.Flatten(), nn.Linear(36, 5))
    direct, linear = answers(model, (f"weights.encoding={encoding}", FAULTS), seed=3)

    torch.testing.assert_close(linear, direct, rtol=1e-4, atol=1e-4)


def test_what_the_rounding_of_a_lossless_adc_adds_is_small_beside_the_error_of_cells():
    ideal, _ = answers(network(), (), seed=-1)
    direct, linear = answers(network(), ("cell.programming={kind='lognormal', sigma=0.1}", FAULTS), seed=3)

    assert (direct - linear).square().mean() < 0.05 * (direct - ideal).square().mean()


def test_an_adc_that_is_not_lossless_is_refused():
    with pytest.raises(ConversionError, match=r"adc.policy = 'calibrated'; only a lossless ADC"):
        ChipView(network(), chips.load("example-128"), torch.zeros(2, 4, 6, 6), linear=True)


def test_groups_that_share_bitlines_are_refused():
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4))
    x = torch.randn(2, 4, 6, 6)
    converted, _ = to_crossbar(model, chips.load("example-128", list(BASE)), example=x, mapping={"depthwise": "packed"})
    calibrate(converted, [x])
    program(converted, 0)
    converted[0].mode = "linear"

    with pytest.raises(ConversionError, match="mapped packed: its groups share bitlines; simulate it directly"):
        converted(x)


@pytest.mark.parametrize("mode", ["chip", "linear"])
def test_an_output_of_zero_weights_has_no_error_of_its_cells(mode):
    model = network()
    with torch.no_grad():
        model[0].weight[3] = 0
    x = torch.randn(6, 4, 6, 6, generator=torch.Generator().manual_seed(1))
    converted, _ = to_crossbar(model, chips.load("example-128", [*BASE, FAULTS]), example=x)
    calibrate(converted, [x])
    program(converted, 3)
    converted[0].mode = mode

    with torch.no_grad():
        y = converted[0](x)

    assert torch.equal(y[:, 3], model[0].bias[3].expand(6, 6, 6))
    assert not torch.equal(y[:, 4], model[0](x)[:, 4])


def test_cells_are_written_in_full_precision_whatever_their_network_has(monkeypatch):
    chip = chips.load("example-128", [*BASE, FAULTS, "mitigation={remap=true, flip=true, readback=true}"])
    narrow: list[bool] = []

    def spied(*args):
        narrow.append(torch.is_autocast_enabled("cpu"))
        return program_cells(*args)

    monkeypatch.setattr(cells, "program_cells", spied)
    model, x = network(), torch.randn(2, 4, 6, 6)
    converted, _ = to_crossbar(model, chip, example=x)
    calibrate(converted, [x])
    with torch.autocast("cpu", torch.bfloat16):
        converted[0].crossbars(chip, 3)
        assert torch.is_autocast_enabled("cpu")
    assert narrow
    assert not any(narrow)
