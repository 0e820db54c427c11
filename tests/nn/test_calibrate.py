"""Ranges from data: one call, streaming, the same every time."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from bitline import load_chip
from bitline.errors import ConversionError, MappingError
from bitline.network.images import Images
from bitline.nn import IDEAL, calibrate, crossbar_layers, program, set_chip, to_crossbar


def network(make_chip, **adc: object) -> tuple[nn.Module, list[Tensor]]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 3))
    chip = make_chip(crossbar={"rows": 32, "cols": 32}, adc={"policy": "calibrated", "bits": 4, **adc})
    batches = [torch.randn(3, 2, 6, 6) for _ in range(3)]
    return to_crossbar(net, chip).model, batches


def ranges(model: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("granularity", ["layer", "slice", "slice_digit", "column"])
def test_calibrating_twice_gives_the_same_ranges(make_chip, granularity):
    model, batches = network(make_chip, granularity=granularity)
    calibrate(model, batches)
    first = ranges(model)
    assert all(bool(value.isfinite().all()) for value in first.values())
    calibrate(model, batches)
    assert same(ranges(model), first)


def test_calibration_leaves_weights_modes_and_programmed_chips_alone(make_chip):
    model, batches = network(make_chip)
    model.train()
    model[1].eval()
    program(model, 5)
    weights = [p.clone() for p in model.parameters()]
    calibrate(model, batches)
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
    assert [m.training for m in model] == [True, False, True, True, True]
    assert {int(layer.chip_seed) for layer in crossbar_layers(model).values()} == {5}
    assert {layer.mode for layer in crossbar_layers(model).values()} == {"chip"}
    assert all(p.grad is None for p in model.parameters())


def test_a_failing_batch_leaves_the_modes_as_they_were(make_chip):
    model, batches = network(make_chip)
    model.train()
    with pytest.raises(MappingError, match="has 3 channels; expected 2"):
        calibrate(model, [batches[0], torch.randn(1, 3, 6, 6)])
    assert model.training
    assert {layer.mode for layer in crossbar_layers(model).values()} == {"chip"}


def test_batches_with_labels_give_the_same_ranges(make_chip):
    model, batches = network(make_chip)
    calibrate(model, batches)
    wanted = ranges(model)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.cat(batches), torch.zeros(9)), batch_size=3
    )
    calibrate(model, loader)
    assert same(ranges(model), wanted)


def test_an_empty_batch_among_others_changes_nothing(make_chip):
    model, batches = network(make_chip)
    calibrate(model, batches)
    wanted = ranges(model)
    calibrate(model, [batches[0], batches[0][:0], *batches[1:]])
    assert same(ranges(model), wanted)


def test_input_ranges_do_not_depend_on_how_images_are_batched(make_chip):
    model, batches = network(make_chip)
    images = torch.cat(batches).sort(0).values  # the largest come last, so that the histogram must grow
    scales: list[list[float]] = []
    for size in (1, 4, 9):
        calibrate(model, list(images.split(size)))
        scales.append([float(layer.ranges.input_scale) for layer in crossbar_layers(model).values()])
    for other in scales[1:]:
        assert other == pytest.approx(scales[0], rel=0.02)


@pytest.mark.parametrize("batches", [iter([torch.rand(1, 2, 6, 6)]), (x for x in [torch.rand(1, 2, 6, 6)])])
def test_what_can_be_walked_once_only_is_refused(make_chip, batches):
    model, _ = network(make_chip)
    with pytest.raises(ConversionError) as error:
        calibrate(model, batches)
    assert str(error.value) == "calibrate walks the batches twice; give a list or a data loader, not an iterator"


def test_a_bare_tensor_is_refused(make_chip):
    model, batches = network(make_chip)
    with pytest.raises(ConversionError) as error:
        calibrate(model, batches[0])
    assert str(error.value) == "calibrate takes an iterable of batches; put a single tensor in a list: [images]"


def test_no_data_but_zeros_are_refused_by_the_name_of_the_layer(make_chip):
    model, _ = network(make_chip)
    with pytest.raises(ConversionError, match=r"^layer 0 saw no data but zeros; its input range is unknown$"):
        calibrate(model, [torch.zeros(2, 2, 6, 6)])


@pytest.mark.parametrize("batches", [[], [torch.zeros(0, 2, 6, 6)]])
def test_no_data_are_refused_as_no_data(make_chip, batches):
    model, _ = network(make_chip)
    with pytest.raises(ConversionError, match=r"^calibrate has no data: `batches` gives none$"):
        calibrate(model, batches)


def test_a_network_that_is_not_converted_is_refused():
    with pytest.raises(ConversionError, match=r"^Linear has no layer on crossbars; call to_crossbar"):
        calibrate(nn.Linear(2, 2), [torch.rand(1, 2)])


def test_signed_inputs_are_noticed_layer_by_layer(make_chip):
    model, batches = network(make_chip)
    calibrate(model, batches)
    assert [bool(layer.ranges.input_signed) for layer in crossbar_layers(model).values()] == [True, False]
    calibrate(model, [batch.abs() for batch in batches])
    assert [bool(layer.ranges.input_signed) for layer in crossbar_layers(model).values()] == [False, False]


@pytest.mark.parametrize("granularity", ["layer", "slice", "slice_digit", "column"])
@pytest.mark.parametrize("change", [{"bits": 7}, {"calibration": "percentile"}, {"percentile": 99.0}])
def test_another_adc_is_fitted_without_data_as_if_calibrated_afresh(make_chip, granularity, change):
    model, batches = network(make_chip)
    calibrate(model, batches)
    chip = make_chip(
        crossbar={"rows": 32, "cols": 32}, adc={"policy": "calibrated", "bits": 4, "granularity": granularity, **change}
    )
    set_chip(model, chip)
    refitted = ranges(model)
    calibrate(model, batches)
    assert same(ranges(model), refitted)


@pytest.mark.parametrize(
    "change",
    [{"crossbar": {"rows": 16, "cols": 32}}, {"weights": {"bits": 6}}, {"dac": {"bits": 2}}, {"cell": {"bits": 1}}],
)
def test_a_chip_of_other_sums_needs_calibration_again(make_chip, change):
    model, batches = network(make_chip)
    calibrate(model, batches)
    set_chip(model, make_chip(**{"crossbar": {"rows": 32, "cols": 32}, "adc": {"policy": "calibrated"}, **change}))
    with pytest.raises(ConversionError, match="ADC range unknown; call calibrate"):
        model(batches[0])


def test_other_inputs_need_calibration_again(make_chip):
    model, batches = network(make_chip)
    calibrate(model, batches)
    set_chip(model, make_chip(crossbar={"rows": 32, "cols": 32}, inputs={"bits": 6}))
    with pytest.raises(ConversionError, match="input range unknown; call calibrate"):
        model(batches[0])


def test_a_copy_keeps_the_counted_sums(make_chip):
    model, batches = network(make_chip)
    calibrate(model, batches)
    twin = copy.deepcopy(model)
    chip = make_chip(crossbar={"rows": 32, "cols": 32}, adc={"policy": "calibrated", "bits": 6})
    set_chip(model, chip)
    set_chip(twin, chip)
    assert same(ranges(model), ranges(twin))


def test_scales_of_powers_of_two_are_that(make_chip):
    net = nn.Sequential(nn.Linear(6, 4))
    chip = make_chip(inputs={"bits": 4, "scale": "power_of_two"}, weights={"bits": 4, "scale": "power_of_two"})
    model = to_crossbar(net, chip).model
    calibrate(model, [torch.randn(50, 6)])
    assert math.frexp(float(model[0].ranges.input_scale))[0] == 0.5
    assert bool((torch.frexp(model[0].cells.weights(model[0]).scale(model[0].chip.weights)).mantissa == 0.5).all())


def test_a_leak_that_is_kept_is_within_the_calibrated_range(make_chip):
    torch.manual_seed(0)
    plain, images = nn.Sequential(nn.Linear(64, 16)), torch.rand(64, 64)
    cell = {"g_min": "10 uS", "g_max": "100 uS"}
    errors = {}
    for leak in ("cancelled", "kept"):
        chip = make_chip(
            cell={**cell, "leak": leak},
            adc={"bits": 6, "policy": "calibrated"},
            crossbar={"rows": 64, "cols": 64},
            weights={"bits": 4, "encoding": "pair"},
        )
        converted = to_crossbar(plain, chip).model
        calibrate(converted, [images])
        with torch.no_grad():
            errors[leak] = float((converted(images) - plain(images)).square().mean())
    assert errors["kept"] <= 2 * errors["cancelled"]


def test_ranges_fitted_in_turn_are_those_of_sums_that_inputs_from_the_chip_make():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(96, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 4))
    chip = load_chip("rram-22nm", ["adc.bits=3", "crossbar.rows=32", "crossbar.active_rows=32"])
    batches = [torch.rand(64, 96), torch.rand(64, 96)]
    together, _ = to_crossbar(net, chip)
    in_turn, _ = to_crossbar(net, chip)
    program(in_turn, 7)

    calibrate(together, batches)
    calibrate(in_turn, batches, in_turn=True)

    first, second, third = (in_turn[index] for index in (0, 2, 4))
    assert torch.equal(first.ranges.adc_lsb, together[0].ranges.adc_lsb)
    assert not torch.equal(second.ranges.adc_lsb, together[2].ranges.adc_lsb)
    assert int(first.chip_seed) == int(third.chip_seed) == 7
    program(in_turn, IDEAL)
    with torch.no_grad():
        reached = torch.cat([in_turn[:4](x) for x in Images(batches).runs(batches[0].device)])
    assert torch.equal(third.ranges.sums.vectors[0, :, 0], third.integers(reached))


def test_ranges_fitted_in_turn_lose_less_where_adcs_are_coarse():
    chip = load_chip("rram-22nm", ["adc.bits=3", "crossbar.rows=32", "crossbar.active_rows=32"])
    errors = [0.0, 0.0]
    for seed in range(4):
        torch.manual_seed(seed)
        net = nn.Sequential(*(layer for _ in range(4) for layer in (nn.Linear(128, 128), nn.ReLU()))).eval()
        x = torch.rand(256, 128)
        for in_turn in (False, True):
            model, _ = to_crossbar(net, chip)
            calibrate(model, [x], in_turn=in_turn)
            with torch.no_grad():
                errors[in_turn] += float((model(x) - net(x)).square().mean())

    assert errors[1] < 0.97 * errors[0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.complex64])
def test_batches_of_other_numbers_than_the_weights_are_refused(make_chip, dtype):
    model, _ = to_crossbar(nn.Sequential(nn.Linear(4, 3)), make_chip(), example=torch.ones(2, 4))
    with pytest.raises(ConversionError, match=f"images of {dtype}; expected torch.float32, as the weights"):
        calibrate(model, [torch.ones(2, 4, dtype=dtype)])


def test_an_image_without_its_batch_axis_is_refused_by_its_shape(make_chip):
    x = torch.rand(2, 3, 8, 8)
    model = to_crossbar(nn.Sequential(nn.Conv2d(3, 4, 3)), make_chip(), example=x).model
    with pytest.raises(MappingError, match=r"input of shape \(3, 8, 8\); expected \(batch, channels, height, width\)"):
        calibrate(model, [x[0]])


def test_a_layer_behind_neurons_that_never_fire_is_named_and_answers_its_bias(make_chip, caplog):
    class Dead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x):
            return self.second(torch.relu(self.first(x) - 100))

    x = torch.rand(5, 4)
    model, _ = to_crossbar(Dead(), make_chip(adc={"policy": "calibrated"}), example=x)

    with caplog.at_level("WARNING"):
        calibrate(model, [x])

    assert "layer second saw no data but zeros" in caplog.text
    assert torch.equal(model(x), model.second.bias.expand(5, 3))
    assert float(model.second.ranges.input_scale) == pytest.approx(1 / model.second.input_format.limits[1])
