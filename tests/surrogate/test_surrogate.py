"""One plain product and noise stand for a chip's conversions: mean, variance, seeds, gradients, and where it warns."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bitline.errors import ConversionError
from bitline.mvm.effective import effective_weights
from bitline.mvm.gradient import Quantized
from bitline.nn import IDEAL, calibrate, crossbar_layers, program, set_chip, to_crossbar
from bitline.surrogate import Noise, Surrogate, answering, attach, measure, normals
from bitline.surrogate.answer import draw
from bitline.surrogate.statistics import CellErrors, Seen, of_layers


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)
    ).eval()


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


SMALL = {"crossbar": {"rows": 32, "cols": 64}, "weights": {"bits": 8}, "inputs": {"bits": 8}}


def converted(make_chip: Any, **sections: Any) -> nn.Module:
    chip = make_chip(**{**SMALL, **sections})
    model, _ = to_crossbar(network(), chip, example=images(2))
    calibrate(model, [images(32)])
    return model


def seen(product: Tensor, error: Tensor) -> tuple[Seen, int]:
    """What is seen of a layer whose channels are on the last axis."""
    own = Seen()
    own.add(product, error, -1)
    return own, -1


def errors(cells: CellErrors, whole: Tensor, seed: int) -> Tensor:
    """Of integers that weights are, as they are drawn, weight units."""
    factor = torch.ones(len(whole))
    return Quantized(whole, 1.0, -(2**15), 2**15).erred(draw(cells, whole, seed, factor), torch.float32) - whole


def like(surrogate: Surrogate, **other: Any) -> Surrogate:
    """The surrogate with layers of other statistics."""
    return replace(surrogate, layers={name: replace(own, **other) for name, own in surrogate.layers.items()})


def test_statistics_are_those_that_the_error_was_made_with(rng):
    x = torch.randn(60, 50, 2, generator=rng) * 3 + 1
    gain, shift, sigma = torch.tensor([-0.2, 0.0]), torch.tensor([0.5, -1.0]), torch.tensor([0.3, 0.1])
    noise = sigma * torch.randn(x.shape, generator=rng)

    (own,) = of_layers([seen(x, gain * x + shift + noise)], [None])

    torch.testing.assert_close(own.gain, gain, rtol=0, atol=0.01)
    torch.testing.assert_close(own.shift, shift, rtol=0, atol=0.03)
    torch.testing.assert_close(own.noise[0].maps.float(), noise, rtol=0.02, atol=0.05)
    assert own.overflows == 0
    assert own.snr == pytest.approx(((0.8**2 + 1) * 9 / 2) / ((0.09 + 0.01) / 2), rel=0.1)


def test_images_that_overflow_are_counted_once_are_no_part_of_the_fit_and_come_last_in_every_layer(rng):
    x = torch.randn(50, 20, 3, generator=rng)
    error = 0.1 * torch.randn(x.shape, generator=rng)
    error[[4, 17]] += 20 * torch.randn(2, 20, 3, generator=rng)
    later = 0.1 * torch.randn(x.shape, generator=rng)
    later[[4, 17, 30]] += 20 * torch.randn(3, 20, 3, generator=rng)

    first, second = of_layers([seen(x, error), seen(x, later)], [None, None])

    assert first.power == pytest.approx(0.01, rel=0.1)
    assert (first.overflows, second.overflows) == (2 / 50, 1 / 48)
    for own, count in ((first, 2), (second, 3)):
        (noise,) = own.noise
        assert (len(noise.maps), noise.overflowing) == (50, count)
        assert float(noise.of(training=False)[-count:].float().std()) > 10
        assert float(noise.of(training=True).float().std()) < 0.2
    assert torch.allclose(first.noise[0].maps[-2:].float(), error[[4, 17]], rtol=0.02, atol=0.1)


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
    spread = own.noise[0].maps.double().square().mean((0, 2, 3)).sqrt()
    torch.testing.assert_close(spread, layer.factor_of_one()[0] * math.sqrt(power), rtol=0.15, atol=0)


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
def test_the_error_of_an_image_goes_to_one_side_as_that_of_narrow_conversions_does(make_chip):
    model = converted(make_chip, adc={"bits": 4, "policy": "calibrated", "granularity": "layer"})
    layer = crossbar_layers(model)["0"]
    bright = torch.rand(464, 1, 1, 1, generator=torch.Generator().manual_seed(1))
    x = images(464, 7) * bright
    product = layer.linear_answer(x, layer.fake_input(x))
    exact = (layer(x) - product)[64:]

    with answering(model, measure(model, [x[:64]])):
        ours = (layer(x) - product)[64:]

    # Spread of the mean of 64 positions over that of one, times 8: 1 for independent numbers.
    ours, exact = (8 * error.mean((2, 3)).std(0) / error.std((0, 2, 3)) for error in (ours, exact))
    assert float(exact.min()) > 5
    torch.testing.assert_close(ours, exact, rtol=0.25, atol=0)


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

    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)
    assert float((again - whole).abs().mean()) > 1e-3


@torch.no_grad()
def test_the_noise_of_an_image_is_a_map_that_was_seen_each_as_often_as_any_other(make_chip):
    model = converted(make_chip, adc={"bits": 4})
    layer, surrogate = crossbar_layers(model)["5"], measure(model, [images(16)])
    maps = torch.arange(7.0).view(7, 1).expand(7, 5).bfloat16()
    told = like(surrogate, gain=torch.zeros(5), shift=torch.zeros(5), noise=(Noise(maps),))
    x = torch.rand(70, 8 * 36, generator=torch.Generator().manual_seed(0))
    product = layer.linear_answer(x, layer.fake_input(x))

    with answering(model, replace(told, layers={"5": told.layers["5"]})):
        drawn = torch.cat([layer(part) for part in x.split([1, 5, 3, 40, 21])]) - product

    numbers = drawn.round()[:, 0]
    torch.testing.assert_close(drawn, numbers[:, None].expand(70, 5), rtol=0, atol=1e-4)
    assert numbers.unique(return_counts=True)[1].tolist() == [10] * 7
    assert len({tuple(turn.tolist()) for turn in numbers.split(7)}) > 3  # turns that begin anew


def test_normal_numbers_are_normal_and_others_for_another_seed():
    z, other = (normals.numbers(seed, 2**20, torch.empty(1)) for seed in (11, 12))

    assert abs(float(z.mean())) < 0.01
    assert float(z.std()) == pytest.approx(1, abs=0.01)
    assert float(z.double().pow(4).mean()) == pytest.approx(3, abs=0.1)
    assert abs(float((z * other).mean())) < 0.01


def test_a_surrogate_answers_for_the_chip_alone_that_it_was_measured_on(make_chip):
    model = converted(make_chip, adc={"bits": 5}, cell={"programming": {"kind": "lognormal", "sigma": 0.1}})
    surrogate = measure(model, [images(8)], seed=2)

    with answering(model, surrogate):
        program(model, 2)
        model(images(2))
        program(model, 3)
        with pytest.raises(ConversionError, match="layer 0: its surrogate was measured on chip seed 2, and this is 3"):
            model(images(2))
        set_chip(model, make_chip(**SMALL, adc={"bits": 6}, cell={"programming": {"kind": "lognormal", "sigma": 0.1}}))
        program(model, 2)
        with pytest.raises(ConversionError, match=r"measured on another chip \(.*adc.bits 6 \(was 5\)"):
            model(images(2))


def test_a_surrogate_refuses_images_of_another_size(make_chip):
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()
    model, _ = to_crossbar(plain, make_chip(adc={"bits": 4}), example=images(2))
    calibrate(model, [images(8)])
    with (
        answering(model, measure(model, [images(8)])),
        pytest.raises(ConversionError, match=r"layer 0: .* measured at outputs of shape \(4, 6, 6\), not \(4, 8, 8\)"),
    ):
        model(torch.rand(2, 3, 10, 10))


def test_longer_tables_begin_as_shorter_ones_do():
    short, long = normals.numbers(1, 2**20, torch.empty(1)), normals.numbers(1, 2**21, torch.empty(1))

    assert torch.equal(long[: len(short)], short)
    assert len(normals.numbers(1, normals.MOST + 5, torch.empty(1))) == normals.MOST


@pytest.mark.parametrize("drawn", [False, True])
def test_the_gradient_is_that_of_the_quantized_product_with_its_gain(make_chip, drawn):
    model = converted(make_chip, adc={"bits": 4})
    surrogate = measure(model, [images(32)])
    layer, own = crossbar_layers(model)["2"], surrogate.layers["2"]
    x = torch.rand(2, 12, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 * 255 * layer.ranges.input_scale.float()
    x.requires_grad_()
    weights = torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(2))

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
    drawn = torch.stack([errors(own, whole, seed) for seed in range(2, 10)])

    assert float(drawn.std()) == pytest.approx(float(programmed.std()), rel=0.1)
    assert abs(float(drawn.mean() - programmed.mean())) < 0.1 * float(programmed.std())
    assert abs(float((drawn[0] * drawn[1]).mean())) < 0.1 * float(drawn.square().mean())


@torch.no_grad()
def test_drawn_cells_err_on_programmed_chips_alone(make_chip):
    model = converted(make_chip, adc={"policy": "lossless"}, cell={"programming": {"kind": "lognormal", "sigma": 0.15}})
    measured, x = measure(model, [images(8)], seed=1), images(4)
    cells_alone = {
        name: replace(own, gain=0 * own.gain, shift=0 * own.shift, noise=()) for name, own in measured.layers.items()
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


def test_it_does_not_hold_where_it_or_the_chip_moves_many_images_to_another_class(make_chip):
    fine = measure(converted(make_chip, adc={"bits": 8}), [images(32)])
    coarse = measure(converted(make_chip, adc={"bits": 3}), [images(32)])

    assert fine.changed <= 0.1
    assert coarse.changed > fine.changed
    assert fine.holds
    assert not replace(fine, changed=0.3).holds
    assert not replace(fine, unlike=-3.0).holds


def test_it_wants_images_and_ranges(make_chip):
    model = converted(make_chip)
    with pytest.raises(ConversionError, match="a surrogate is measured on images; there are none"):
        measure(model, [])
    uncalibrated, _ = to_crossbar(network(), make_chip(**SMALL), example=images(2))
    with pytest.raises(ConversionError, match="input range unknown; call calibrate"):
        measure(uncalibrated, [images(2)])
    with (
        answering(uncalibrated, measure(model, [images(8)])),
        pytest.raises(ConversionError, match="input range unknown; call calibrate"),
    ):
        uncalibrated(images(2))


def test_errors_of_rare_integers_are_those_of_all():
    cells = CellErrors(-2, torch.tensor([0.0, 0, 0.5, 0]), torch.zeros(4))
    assert errors(cells, torch.tensor([[-2.0, 0.0, 7.0]]), 1).tolist() == [[0, 0.5, 0]]
