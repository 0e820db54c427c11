"""What one layer on a chip refuses, and how it says so."""

import math

import pytest
import torch
from layer_samples import LAYERS, build, exact, on_chip, only_layer
from torch import nn

from bitline.errors import BitlineError, ConversionError, DataError, MappingError
from bitline.nn import calibrate, program, set_chip, to_crossbar


@pytest.mark.parametrize("kind", list(LAYERS))
def test_an_input_of_other_axes_is_refused(make_chip, kind):
    layer, x = build(kind)
    model = on_chip(layer, exact(make_chip), x)
    wrong = x.flatten()[0] if isinstance(layer, nn.Linear) else x.flatten()[:10]
    with pytest.raises(MappingError, match=r"^layer : input of shape .*; expected \(batch, "):
        model(wrong)


def test_an_input_smaller_than_the_kernel_is_refused(make_chip):
    layer, x = build("grouped")
    model = on_chip(layer, exact(make_chip), x)
    with pytest.raises(MappingError, match="padded input of 2 x 5 is smaller than a kernel that spans 3 x 3"):
        model(x[:, :, :2])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_inputs_that_are_no_numbers_are_refused(make_chip, bad):
    layer, x = build("linear")
    model = on_chip(nn.Sequential(layer), exact(make_chip), x)
    x = x.clone()
    x[1, 2] = bad
    for run in (lambda: model(x), lambda: calibrate(model, [x])):
        with pytest.raises(MappingError, match=r"^layer 0: 1 of \d+ inputs are NaN or infinite$"):
            run()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_refused_whenever_they_come(make_chip, bad):
    layer, x = build("linear")
    model = on_chip(nn.Sequential(layer), exact(make_chip), x)
    with torch.no_grad():
        model[0].weight[0, 0] = bad
    with pytest.raises(MappingError, match=r"^layer 0: 1 of 60 weights are NaN or infinite$"):
        model(x)
    with torch.no_grad():
        layer.weight[0, 0] = bad
    with pytest.raises(DataError, match=r"^Sequential: 0.weight has 1 of 60 numbers that are NaN or infinite$"):
        on_chip(nn.Sequential(layer), exact(make_chip), x)


def test_a_layer_that_is_not_calibrated_is_refused(make_chip):
    layer, x = build("linear")
    model = to_crossbar(nn.Sequential(layer), make_chip()).model
    with pytest.raises(ConversionError) as error:
        model(x)
    assert str(error.value) == (
        "layer 0: input range unknown; call calibrate(model, batches) before running on the chip"
    )
    only_layer(model).ranges.input_scale.fill_(0.1)
    set_chip(model, make_chip(adc={"policy": "calibrated"}))
    with pytest.raises(ConversionError, match=r"^layer 0: ADC range unknown; call calibrate"):
        model(x)


def test_a_layer_with_no_surrogate_says_so(make_chip):
    layer, x = build("linear")
    model = on_chip(layer, exact(make_chip), x)
    only_layer(model).mode = "surrogate"
    with pytest.raises(ConversionError, match="its mode is 'surrogate', and it has none; call bitline"):
        model(x)


def test_an_error_is_an_error_of_bitline():
    assert issubclass(MappingError, BitlineError)
    assert issubclass(ConversionError, BitlineError)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bias_that_is_no_number_is_refused_even_if_it_is_set_after_programming(make_chip, bad):
    layer, x = build("linear")
    model = on_chip(nn.Sequential(layer), exact(make_chip), x)
    program(model, 3)
    with torch.no_grad():
        model[0].bias[1] = bad
    with pytest.raises(MappingError, match=r"^layer 0: 1 of \d+ biases are NaN or infinite$"):
        model(x)


def test_a_network_whose_weights_or_example_are_no_numbers_is_refused_before_anything_is_done(make_chip):
    norm = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    norm[1].running_mean[0] = math.nan
    with pytest.raises(DataError, match=r"^Sequential: 1.running_mean has 1 of 3 numbers that are NaN or infinite$"):
        to_crossbar(norm, make_chip(), example=torch.ones(2, 4))
    with pytest.raises(MappingError, match=r"^example: 8 of 8 numbers are NaN or infinite$"):
        to_crossbar(nn.Sequential(nn.Linear(4, 3)), make_chip(), example=torch.full((2, 4), math.nan))


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (nn.Linear(4, 3), (2, 5), r"layer 0: input of shape \(2, 5\) has 5 features; expected 4"),
        (nn.Conv2d(1, 2, 3), (2, 3, 8, 8), r"layer 0: input of shape \(2, 3, 8, 8\) has 3 channels; expected 1"),
        (nn.Conv1d(2, 2, 3), (2, 1, 8), r"layer 0: input of shape \(2, 1, 8\) has 1 channels; expected 2"),
    ],
)
def test_inputs_of_other_channels_are_refused_by_the_layer(make_chip, layer, shape, message):
    size = (2, layer.weight.shape[1], *[8] * (layer.weight.dim() - 2))
    model = on_chip(nn.Sequential(layer), exact(make_chip), torch.rand(size))
    with pytest.raises(MappingError, match=f"^{message}$"):
        model(torch.rand(shape))
