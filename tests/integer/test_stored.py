"""Values with several readers are kept as the integers that crossbars read."""

import copy

import pytest
import torch
from torch import nn

from bitline.errors import ConversionError
from bitline.integer.stored import store
from bitline.models import build
from bitline.nn import calibrate, set_chip, to_crossbar
from bitline.nn.grid import grids


@pytest.fixture
def chip(make_chip):
    return make_chip(
        crossbar={"rows": 64, "cols": 64},
        adc={"policy": "lossless"},
        inputs={"scale": "power_of_two"},
        weights={"scale": "power_of_two", "bias_bits": 8},
    )


class Residual(nn.Module):
    """A residual branch around a convolution; what makes the two readers' value is to be chosen."""

    def __init__(self, before: nn.Module, *, twice: bool = False) -> None:
        super().__init__()
        self.first, self.before = nn.Conv2d(2, 4, 3, padding=1), before
        self.inner, self.last = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 3, 1)
        self.twice = twice

    def forward(self, x):
        x = self.before(self.first(x))
        y = self.inner(x) + x
        return self.last(self.before(y) if self.twice else y.relu())


def converted(net, chip, x):
    model = to_crossbar(net, chip, example=x).model
    calibrate(model, [x])
    return model


def test_a_residual_value_lies_on_the_grid_of_the_crossbars_that_read_it(chip, rng):
    x = torch.randn(3, 2, 6, 6, generator=rng)
    model = converted(Residual(nn.ReLU()), chip, x)
    (value,) = store(model, x)
    assert value.module == "before"
    assert value.readers == ("inner", "add (in the network's code, add)")
    assert 2.0**value.exponent == float(model.inner.ranges.input_scale)
    seen = []
    model.before.register_forward_hook(lambda _m, _x, y: seen.append(y))
    model(x)
    assert torch.equal(seen[0], model.inner.fake_input(seen[0]).value)
    assert f"times 2^{value.exponent}" in repr(model)


def test_storing_survives_copies_states_and_another_calibration(chip, rng):
    x = torch.randn(3, 2, 6, 6, generator=rng)
    model = converted(Residual(nn.ReLU()), chip, x)
    stored = store(model, x)
    before = model(x)
    other = copy.deepcopy(model)
    assert torch.equal(other(x), before)
    calibrate(other, [3 * x])
    assert int(grids(other)["before"].exponent) > stored[0].exponent
    assert int(grids(model)["before"].exponent) == stored[0].exponent
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), before)
    assert store(model, x) == stored
    assert torch.equal(model(x), before)


def test_another_width_of_inputs_asks_for_calibration(chip, rng):
    x = torch.randn(3, 2, 6, 6, generator=rng)
    model = converted(Residual(nn.ReLU()), chip, x)
    store(model, x)
    set_chip(model, chip.model_copy(update={"inputs": chip.inputs.model_copy(update={"bits": 3})}))
    with pytest.raises(ConversionError, match=r"grid of stored values is unknown|input range unknown"):
        model(x)
    calibrate(model, [x])
    assert int(grids(model)["before"].high) == 7
    assert bool(model(x).isfinite().all())


def test_gradients_pass_a_grid_where_it_does_not_clip(chip, rng):
    x = torch.randn(3, 2, 6, 6, generator=rng)
    model = converted(Residual(nn.ReLU()), chip, x)
    store(model, x)
    grid = grids(model)["before"]
    top = int(grid.high) * 2.0 ** int(grid.exponent)
    given = torch.tensor([-1.0, 0.3 * top, 2 * top], requires_grad=True)
    grid(given).sum().backward()
    assert given.grad is not None
    assert given.grad.tolist() == [0.0, 1.0, 0.0]
    model(x).square().sum().backward()
    assert float(model.first.weight.grad.abs().sum()) > 0


@pytest.mark.parametrize("name", ["lenet5", "vgg8"])
def test_a_chain_stores_nothing(chip, name, rng):
    x = torch.randn(2, 1, 16, 16, generator=rng)
    model = converted(build(name, width=0.1, in_channels=1, image_size=16).eval(), chip, x)
    assert store(model, x) == ()


def test_a_value_that_no_crossbar_reads_has_a_scale_from_the_batch(chip, rng):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.act, self.last = nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Linear(4, 3)
            self.pool = nn.AdaptiveAvgPool2d(1)

        def forward(self, x):
            x = self.act(self.first(x))
            return self.last(self.pool(x + x.relu()).flatten(1))

    x = torch.randn(3, 2, 6, 6, generator=rng)
    model = converted(Net(), chip, x)
    (value,) = store(model, x)
    assert (value.module, value.signed) == ("act", False)
    with torch.no_grad():
        top = float(model.first._plain(x, model.first.weight, model.first.bias).max())
    assert top / 4 < 15 * 2.0**value.exponent < 4 * top


class Sum(nn.Module):
    """Adds in the network's own code, and reads the sum twice."""

    def __init__(self, after: nn.Module | None) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.after = after

    def forward(self, x):
        y = self.a(x) + self.b(x)
        y = y if self.after is None else self.after(y)
        return self.last(self.a(y) + y) if self.after is None else self.last(y) + self.last(y.relu())


def test_what_cannot_be_stored_is_named(chip, rng):
    x = torch.randn(3, 4, generator=rng)
    model = converted(Sum(None), chip, x)
    with pytest.raises(ConversionError, match=r"add \(in the network's code, add\) makes a value that is to be stored"):
        store(model, x)
    images = torch.randn(3, 2, 6, 6, generator=rng)
    model = converted(Residual(nn.ReLU(), twice=True), chip, images)
    with pytest.raises(ConversionError, match=r"before \(ReLU\) makes 2 values"):
        store(model, images)


class Mean(nn.Module):
    """Averages nine places in its own code, for one layer, or for a sum."""

    def __init__(self, summed: bool) -> None:
        super().__init__()
        self.a, self.b, self.summed = nn.Conv2d(2, 4, 1), nn.Linear(4, 4), summed

    def forward(self, x):
        y = self.a(x).mean((2, 3))
        return self.b(y) + y if self.summed else self.b(y)


def test_an_average_of_the_networks_code_is_for_crossbars_alone(chip, rng):
    images = torch.randn(3, 2, 3, 3, generator=rng)
    assert store(converted(Mean(False), chip, images), images) == ()
    with pytest.raises(
        ConversionError, match=r"mean \(in .* outside of modules; use a module, as nn\.AdaptiveAvgPool2d"
    ):
        store(converted(Mean(True), chip, images), images)


def test_an_identity_stores_what_the_networks_code_makes(chip, rng):
    x = torch.randn(3, 4, generator=rng)
    model = converted(Sum(nn.Identity()), chip, x)
    (value,) = store(model, x)
    assert (value.module, value.signed) == ("after", True)


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x):
        return self.a(x) if x.sum() > 0 else -self.a(x)


def test_code_that_looks_at_values_is_refused(chip, rng):
    x = torch.randn(3, 4, generator=rng)
    with pytest.raises(ConversionError, match="cannot be traced to integer operations"):
        store(converted(Branching(), chip, x), x)
    with pytest.raises(ConversionError, match=r"1 \(SiLU\) has no integer form; allowed"):
        store(converted(nn.Sequential(nn.Linear(4, 4), nn.SiLU(), nn.Linear(4, 2)), chip, x), x)


def test_real_scales_and_missing_ranges_are_refused(make_chip, chip, rng):
    x = torch.randn(3, 4, generator=rng)
    with pytest.raises(ConversionError, match="must be 'power_of_two'"):
        store(converted(nn.Sequential(nn.Linear(4, 2)), make_chip(), x), x)
    with pytest.raises(ConversionError, match="input range unknown"):
        store(to_crossbar(nn.Sequential(nn.Linear(4, 2)), chip, example=x).model, x)
