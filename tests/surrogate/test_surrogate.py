"""One plain product and noise stand for a chip's conversions: mean, variance, seeds, gradients, and where it warns."""

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bitline.errors import ConversionError
from bitline.mvm.effective import effective_weights
from bitline.nn import IDEAL, CrossbarLayer, calibrate, crossbar_layers, program, to_crossbar
from bitline.surrogate import Statistics, Surrogate, answering, attach, measure, normals
from bitline.surrogate.answer import draw
from bitline.surrogate.statistics import CellErrors, Moments, of_layers


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)
    ).eval()


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def converted(make_chip: Any, **sections: Any) -> nn.Module:
    chip = make_chip(
        **{"crossbar": {"rows": 32, "cols": 64}, "weights": {"bits": 8}, "inputs": {"bits": 8}, **sections}
    )
    model, _ = to_crossbar(network(), chip, example=images(2))
    calibrate(model, [images(32)])
    return model


def moments(product: Tensor, error: Tensor) -> Moments:
    own = Moments()
    own.add(product, error)
    return own


def test_statistics_are_those_that_the_error_was_made_with(rng):
    x = torch.randn(60, 50, 2, generator=rng) * 3 + 1
    gain, shift, sigma = torch.tensor([-0.2, 0.0]), torch.tensor([0.5, -1.0]), torch.tensor([0.3, 0.1])

    (own,) = of_layers([moments(x, gain * x + shift + sigma * torch.randn(x.shape, generator=rng))], [None])

    torch.testing.assert_close(own.gain, gain, rtol=0, atol=0.01)
    torch.testing.assert_close(own.shift, shift, rtol=0, atol=0.03)
    torch.testing.assert_close(own.sigma, sigma, rtol=0.05, atol=0)
    assert own.overflows == 0
    assert own.snr == pytest.approx(((0.8**2 + 1) * 9 / 2) / ((0.09 + 0.01) / 2), rel=0.1)


def test_images_that_overflow_are_counted_once_and_are_no_part_of_the_noise(rng):
    x = torch.randn(50, 20, 3, generator=rng)
    error = 0.1 * torch.randn(x.shape, generator=rng)
    error[[4, 17]] += 20 * torch.randn(2, 20, 3, generator=rng)
    later = 0.1 * torch.randn(x.shape, generator=rng)
    later[[4, 17, 30]] += 20 * torch.randn(3, 20, 3, generator=rng)

    first, second = of_layers([moments(x, error), moments(x, later)], [None, None])

    torch.testing.assert_close(first.sigma, torch.full((3,), 0.1), rtol=0.1, atol=0)
    assert (first.overflows, second.overflows) == (2 / 50, 1 / 48)
    assert first.excess == pytest.approx(200, rel=0.2)
    assert Surrogate({"a": first, "b": second}, (), 50).overflows == pytest.approx(3 / 50)


@torch.no_grad()
def test_where_conversions_change_nothing_the_surrogate_answers_what_the_chip_does(make_chip):
    model = converted(make_chip, adc={"policy": "lossless"})
    exact = model(images(6, 1))

    with answering(model, measure(model, [images(16)])):
        torch.testing.assert_close(model(images(6, 1)), exact, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_conversions_that_round_to_whole_levels_add_a_twelfth_of_a_level_squared_each(make_chip):
    model = converted(make_chip, adc={"policy": "lossless"}, cell={"programming": {"kind": "lognormal", "sigma": 0.3}})
    layer = crossbar_layers(model)["0"]

    own = measure(model, [images(64)], seed=4).layers["0"]

    # 27 rows are one row tile; 8 digits of a bit; 4 slices of two bits
    power = sum(4**p for p in range(8)) * sum(16**s for s in range(4)) / 12
    torch.testing.assert_close(own.sigma.double(), layer.factor_of_one()[0] * math.sqrt(power), rtol=0.15, atol=0)


@torch.no_grad()
def test_the_error_has_the_mean_and_the_variance_of_that_of_the_conversions(make_chip):
    model = converted(make_chip, adc={"bits": 5})
    layer = crossbar_layers(model)["0"]
    x = images(400, 7)
    product = layer.linear_answer(x, layer.fake_input(x))
    exact = layer(x) - product

    with answering(model, measure(model, [images(64)])):
        ours = layer(x) - product

    spread = exact.std((0, 2, 3))
    assert float(((ours - exact).mean((0, 2, 3)).abs() / spread).max()) < 0.1
    torch.testing.assert_close(ours.std((0, 2, 3)), spread, rtol=0.1, atol=0)


@torch.no_grad()
def test_an_image_has_the_same_noise_in_every_batch_and_another_at_every_read(make_chip):
    model = converted(make_chip, adc={"bits": 4})
    surrogate, x = measure(model, [images(32)]), images(9, 1)

    with answering(model, surrogate):
        program(model, IDEAL)
        whole = model(x)
        again = model(x)
        program(model, IDEAL)
        parts = torch.cat([model(part) for part in x.split([2, 6, 1])])
        program(model, 3)
        other = model(x)

    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)
    assert float((again - whole).abs().mean()) > 1e-3
    assert float((other - whole).abs().mean()) > 1e-3


def test_normal_numbers_are_normal_and_do_not_depend_on_how_images_are_cut():
    like = torch.empty(300, 40, 7, 7)
    z = normals.of_images(11, 200, like)

    assert abs(float(z.mean())) < 0.01
    assert float(z.std()) == pytest.approx(1, abs=0.01)
    kurtosis = float(z.double().pow(4).mean())
    assert kurtosis == pytest.approx(3, abs=0.1)
    for first, last in itertools.pairwise((0, 1, 55, 57, 300)):
        assert torch.equal(normals.of_images(11, 200 + first, like[first:last]), z[first:last])
    one, other = z.flatten(1)[:64], normals.of_images(12, 200, like).flatten(1)[:64]
    assert abs(float((one * other).mean())) < 0.02
    assert abs(float((one[:-1] * one[1:]).mean())) < 0.02  # images beside each other, place by place


def test_longer_tables_begin_as_shorter_ones_do():
    short, long = normals.numbers(1, 2**20, torch.empty(1)), normals.numbers(1, 2**21, torch.empty(1))

    assert torch.equal(long[: len(short)], short)
    assert len(normals.numbers(1, normals.MOST + 5, torch.empty(1))) == normals.MOST + 5


@pytest.mark.parametrize("drawn", [False, True])
def test_the_gradient_is_that_of_the_quantized_product_with_its_gain(make_chip, drawn):
    model = converted(make_chip, adc={"bits": 4})
    surrogate = measure(model, [images(32)])
    layer, own = crossbar_layers(model)["2"], surrogate.layers["2"]
    x = torch.rand(2, 12, 6, 6, generator=torch.Generator().manual_seed(1)) * 2 * 255 * layer.ranges.input_scale.float()
    x.requires_grad_()
    weights = torch.randn(2, 8, 4, 4, generator=torch.Generator().manual_seed(2))

    attach(model, surrogate, drawn=drawn)
    (layer(x) * weights).sum().backward()

    w = (layer.fake_weight().value * (1 + own.gain).view(-1, 1, 1, 1)).detach().requires_grad_()
    q = layer.fake_input(x.detach()).value.requires_grad_()
    (F.conv2d(q, w) * weights).sum().backward()
    inside = x.detach() <= 255.5 * layer.ranges.input_scale.float()
    assert 0.2 < float(inside.float().mean()) < 0.8
    torch.testing.assert_close(x.grad, q.grad * inside, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer.weight.grad, w.grad * (1 + own.gain).view(-1, 1, 1, 1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(layer.bias.grad, weights.sum((0, 2, 3)), rtol=1e-4, atol=1e-4)


def test_drawn_errors_of_cells_have_the_spread_of_programmed_ones_and_change_with_the_chip(make_chip):
    cells = {"programming": {"kind": "lognormal", "sigma": 0.15}}
    model = converted(make_chip, adc={"policy": "lossless"}, cell=cells)
    layer = crossbar_layers(model)["5"]
    own = measure(model, [images(8)], seed=1).layers["5"].cells
    assert own is not None
    whole = layer.integer_weights()
    programmed = torch.stack([effective_weights(layer.crossbars(layer.chip, seed)) - whole for seed in range(2, 10)])
    drawn = torch.stack([draw(own, whole, seed) for seed in range(2, 10)])

    assert float(drawn.std()) == pytest.approx(float(programmed.std()), rel=0.1)
    assert abs(float(drawn.mean() - programmed.mean())) < 0.1 * float(programmed.std())
    assert abs(float((drawn[0] * drawn[1]).mean())) < 0.1 * float(drawn.square().mean())


@torch.no_grad()
def test_drawn_cells_err_on_programmed_chips_alone(make_chip):
    model = converted(make_chip, adc={"policy": "lossless"}, cell={"programming": {"kind": "lognormal", "sigma": 0.15}})
    measured, x = measure(model, [images(8)], seed=1), images(4)
    cells_alone = {
        name: replace(own, gain=0 * own.gain, shift=0 * own.shift, noise=0.0) for name, own in measured.layers.items()
    }
    ideal = model(x)

    with answering(model, replace(measured, layers=cells_alone), drawn=True):
        assert float((model(x) - ideal).norm() / ideal.norm()) < 0.01
        program(model, 2)
        assert float((model(x) - ideal).norm() / ideal.norm()) > 0.05


def test_layers_whose_groups_share_bitlines_are_simulated_exactly(make_chip):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=6)).eval()
    model, _ = to_crossbar(plain, make_chip(), example=images(2), mapping={"*": "naive"})
    calibrate(model, [images(8)])

    surrogate = measure(model, [images(8)])

    assert (tuple(surrogate.layers), surrogate.exact) == (("0",), ("2",))
    with answering(model, surrogate):
        layers = crossbar_layers(model)
        assert (layers["0"].mode, layers["2"].mode) == ("surrogate", "chip")
    assert {layer.mode for layer in layers.values()} == {"chip"}


def test_it_says_that_it_does_not_hold_where_conversions_say_more_than_the_product(make_chip):
    coarse, fine = (measure(converted(make_chip, adc={"bits": bits}), [images(32)]) for bits in (2, 8))

    assert fine.holds
    assert not coarse.holds
    assert set(coarse.noisy) <= {"0", "2", "5"}
    assert all(snr < 1 for snr in coarse.noisy.values())


def test_a_share_of_images_that_overflow_gets_noise_of_that_power_and_training_none(make_chip):
    model = converted(make_chip)
    layer = crossbar_layers(model)["5"]
    assert isinstance(layer, CrossbarLayer)
    own = Statistics(torch.zeros(5), torch.zeros(5), torch.full((5,), 0.1), 1.0, 0.01, overflows=0.2, excess=100.0)
    x = torch.rand(500, 8 * 36, generator=torch.Generator().manual_seed(0))
    layer.mode = "linear"
    product = layer(x)

    with answering(model, Surrogate({"5": own}, (), 1)), torch.no_grad():
        error = layer(x) - product
        layer.training = True
        training = layer(x) - product

    assert float((error.abs().amax(1) > 1).float().mean()) == pytest.approx(0.2, abs=0.05)
    assert float(training.abs().max()) < 1


def test_it_wants_images_and_ranges(make_chip):
    model = converted(make_chip)
    with pytest.raises(ConversionError, match="a surrogate is measured on images; there are none"):
        measure(model, [])
    uncalibrated, _ = to_crossbar(network(), make_chip(), example=images(2))
    with pytest.raises(ConversionError, match="input range unknown; call calibrate"):
        measure(uncalibrated, [images(2)])
    with (
        answering(uncalibrated, measure(model, [images(8)])),
        pytest.raises(ConversionError, match="input range unknown; call calibrate"),
    ):
        uncalibrated(images(2))


def test_errors_of_rare_integers_are_those_of_all():
    cells = CellErrors(-2, torch.tensor([0.0, 0, 0.5, 0]), torch.zeros(4))
    assert draw(cells, torch.tensor([[-2.0, 0.0, 7.0]]), 1).tolist() == [[0, 0.5, 0]]
