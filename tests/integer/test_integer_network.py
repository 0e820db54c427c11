"""A network of integers alone answers what the simulated chip answers with ideal cells, bit for bit."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from integer_samples import NETWORKS, Mixed, Twins, on_chip, powers, shuffled
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bitline.errors import ConversionError, DataError, MappingError
from bitline.integer.bounds import Bounds, Format
from bitline.integer.network import IntegerNetwork, integer_network
from bitline.integer.operations import Requantize, SumPool
from bitline.integer.product import Product
from bitline.integer.requantize import requantize
from bitline.integer.trace import Kind, Step
from bitline.nn import calibrate, to_crossbar


class OnlyIntegers(TorchDispatchMode):
    """Fails at the first operator that sees or makes a floating-point or complex tensor."""

    def __init__(self):
        super().__init__()
        self.operators = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.operators.add(str(func))
        for leaf in tree_leaves((args, kwargs, result)):
            if isinstance(leaf, torch.Tensor):
                assert not leaf.is_floating_point(), func
                assert not leaf.is_complex(), func
            assert not isinstance(leaf, float), func
        return result


ROUNDINGS = [("up", "channel"), ("nearest", "tensor")]


@pytest.mark.parametrize(
    ("name", "rounding", "granularity"),
    [*((name, "nearest", "channel") for name in NETWORKS), *(("mixed", *kind) for kind in ROUNDINGS)],
)
def test_integers_give_the_numbers_of_the_simulated_chip(make_chip, name, rounding, granularity):
    build, shape = NETWORKS[name]
    torch.manual_seed(1)
    x = torch.randn(3, *shape)
    chip = powers(make_chip, weights={"rounding": rounding, "granularity": granularity}, inputs={"rounding": rounding})
    model = on_chip(shuffled(build()), chip, x)
    network = integer_network(model, x)
    q = network.quantize(x)
    with OnlyIntegers() as spy:
        scores = network(q)
    assert any("mm" in name or "mul" in name for name in spy.operators)
    with torch.no_grad():
        expected = model(x)
    assert float(expected.std()) > 0
    assert torch.equal(scores.real, expected.double())


@pytest.mark.parametrize(
    ("weights", "inputs"),
    [
        ({"bits": 4}, {"bits": 4}),
        ({"bits": 8}, {"bits": 12}),
        ({"bits": 12}, {"bits": 8}),
        ({"encoding": "pair", "bits": 6}, {"bits": 6}),
        ({"encoding": {"kind": "offset", "zero_point": 100}}, {"bits": 8}),
        ({"encoding": "twos_complement", "bias_bits": 16}, {"bits": 3}),
    ],
)
def test_other_widths_and_encodings_give_the_same_numbers_too(make_chip, weights, inputs):
    torch.manual_seed(0)
    x = torch.randn(4, 2, 8, 9)
    model = on_chip(Mixed(), powers(make_chip, weights=weights, inputs=inputs), x).double()
    network = integer_network(model, x.double())
    with torch.no_grad():
        assert torch.equal(network(network.quantize(x)).real, model(x.double()))


def test_a_removed_layer_answers_its_bias(make_chip):
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)), torch.randn(4, 6)
    nn.init.zeros_(net[0].weight)
    model = on_chip(net, powers(make_chip), x)
    network = integer_network(model, x)
    with torch.no_grad():
        assert torch.equal(network(network.quantize(x)).real, model(x).double())
        # The bias of a sum that is always zero is not rounded to the unit of its weights.
        torch.testing.assert_close(model[0](x)[0], net[0].bias, rtol=0, atol=float(net[0].bias.abs().max()) / 127)


@given(st.integers(-10, 40), st.sampled_from([1, 3, 5, 7, 49]), st.booleans(), st.integers(2, 9), st.integers(0, 2**32))
def test_a_requantization_is_the_exact_quotient_rounded_half_to_even(shift, divisor, signed, bits, seed):
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    shift = shift if divisor == 1 else min(shift, 12)
    width = min(30, max(shift, 0) + bits + divisor.bit_length() + 1)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-(2**width), 2**width, (60, 1), generator=generator)
    if 0 < shift < 20:  # ties, and what lies beside them
        ties = (2 * torch.randint(-(2**bits), 2**bits, (60, 1), generator=generator) + 1) * divisor << (shift - 1)
        x = torch.cat([x, *((ties + n).clamp(-(2**width), 2**width) for n in (-1, 0, 1))])
    bounds = Bounds(torch.zeros(1).long(), torch.tensor([-(2**width)]), torch.tensor([2**width]), divisor)
    step = Step(Kind.REQUANTIZE, "y", ("x",), (1,), settings={"format": Format(shift, low, high)})
    operation = requantize(step, bounds).operation
    assert isinstance(operation, Requantize)
    expected = [max(low, min(high, round(Fraction(n) / divisor / Fraction(2) ** shift))) for n in x.flatten().tolist()]
    assert operation.run(x.int()).flatten().tolist() == expected


def test_a_division_that_its_reciprocal_does_not_make_exact_is_refused():
    bounds = Bounds(torch.zeros(1).long(), torch.tensor([-(2**40)]), torch.tensor([2**40]), 49)
    step = Step(Kind.REQUANTIZE, "y", ("x",), (1,), where="pool", settings={"format": Format(20, -128, 127)})
    with pytest.raises(MappingError, match="pool: dividing by 49 takes 35 bits; at most 31 can be exact"):
        requantize(step, bounds)


def test_an_average_over_a_window_of_a_power_of_two_only_changes_the_unit(make_chip):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(4, 2))
    network = integer_network(on_chip(net, powers(make_chip), torch.randn(3, 1, 4, 4)), torch.randn(1, 1, 4, 4))
    kinds = [type(operation) for operation in network.operations]
    assert kinds.count(SumPool) == 1
    assert all(op.divisor == 1 for op in network.operations if isinstance(op, Requantize))


def test_images_at_once_change_no_score(make_chip, monkeypatch):
    torch.manual_seed(0)
    x = torch.randn(7, 2, 8, 9)
    network = integer_network(on_chip(Mixed(), powers(make_chip), x), x)
    whole = network(network.quantize(x)).integers
    monkeypatch.setattr("bitline.integer.network._AT_ONCE", 2)
    assert torch.equal(network(network.quantize(x)).integers, whole)


def test_a_computer_whose_byte_products_saturate_gives_the_same_integers(make_chip, monkeypatch):
    torch.manual_seed(0)
    x = torch.randn(3, 2, 8, 9)
    network = integer_network(on_chip(Mixed(), powers(make_chip), x), x)
    fast = network(network.quantize(x)).integers
    monkeypatch.setattr("bitline.integer.product.exact_bytes", lambda: False)
    assert torch.equal(network(network.quantize(x)).integers, fast)


def test_a_saved_network_is_the_same_network(make_chip, tmp_path):
    torch.manual_seed(0)
    x = torch.randn(3, 2, 8, 9)
    network = integer_network(on_chip(Mixed(), powers(make_chip), x), x)
    network.save(tmp_path / "net.safetensors")
    again = IntegerNetwork.load(tmp_path / "net.safetensors")
    scores, same = network(network.quantize(x)), again(again.quantize(x))
    assert scores.exponent == same.exponent
    assert torch.equal(scores.integers, same.integers)
    assert (again.shape, again.sum_bits, again.source_format) == (
        network.shape,
        network.sum_bits,
        network.source_format,
    )
    (tmp_path / "half.safetensors").write_bytes((tmp_path / "net.safetensors").read_bytes()[:900])
    with pytest.raises(DataError, match="damaged"):
        IntegerNetwork.load(tmp_path / "half.safetensors")
    with pytest.raises(DataError, match="no such file"):
        IntegerNetwork.load(tmp_path / "none.safetensors")


def test_a_sum_that_can_exceed_the_accumulator_is_refused(make_chip):
    torch.manual_seed(0)
    x = torch.rand(3, 6)
    model = on_chip(nn.Sequential(nn.Linear(6, 3)), powers(make_chip), x)
    network = integer_network(model, x)
    (product,) = (op for op in network.operations if isinstance(op, Product))
    most = (product.weight.clamp(min=0).long() * 255).sum(1).flatten() + product.bias
    least = (product.weight.clamp(max=0).long() * 255).sum(1).flatten() + product.bias
    needed = max(int(most.max()).bit_length(), int(-least.min() - 1).bit_length()) + 1
    assert network.sum_bits == {"0": needed}
    assert integer_network(model, x, accumulator_bits=needed).sum_bits == {"0": needed}
    with pytest.raises(MappingError, match=f"takes {needed} bits; accumulator_bits = {needed - 1}"):
        integer_network(model, x, accumulator_bits=needed - 1)


@pytest.mark.parametrize("exponent", [-39, -40])
def test_a_sum_that_no_64_bits_hold_is_refused(make_chip, exponent):
    torch.manual_seed(0)
    x = torch.rand(3, 2600)
    model = on_chip(Twins(exponent), powers(make_chip), x)
    with pytest.raises(MappingError, match=r"add .*: sums of up to \d\.\d+e\+\d+ can occur; no more than 62 bits"):
        integer_network(model, x)


def test_an_accumulator_that_is_none_is_refused(make_chip):
    x = torch.rand(3, 6)
    model = on_chip(nn.Sequential(nn.Linear(6, 3)), powers(make_chip), x)
    with pytest.raises(MappingError, match="accumulator_bits is 64; allowed: 2 to 62"):
        integer_network(model, x, accumulator_bits=64)


def test_what_is_no_integer_is_refused(make_chip):
    torch.manual_seed(0)
    x = torch.randn(3, 2, 8, 9)
    model = to_crossbar(Mixed(), powers(make_chip), example=x).model
    calibrate(model, [x])
    with pytest.raises(ConversionError, match="act makes a value that has to be stored; call store"):
        integer_network(model, x)
    real = powers(make_chip, weights={"bias_bits": None})
    with pytest.raises(ConversionError, match=r"bias of real numbers; set weights\.bias_bits"):
        integer_network(on_chip(Mixed(), real, x), x)
    network = integer_network(on_chip(Mixed(), powers(make_chip), x), x)
    with pytest.raises(MappingError, match=r"images are torch\.float32"):
        network(x)
