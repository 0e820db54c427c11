"""Wide numbers: sums beyond what float32 holds."""

import pytest
import torch

from bitline.chip import load
from bitline.mapping.encode import encode
from bitline.mapping.lower import Matmul
from bitline.mapping.place import dense
from bitline.mapping.quantize import weight_limits
from bitline.mvm import adc, reference
from bitline.mvm.crossbars import Crossbars
from bitline.mvm.product import Product
from bitline.mvm.torch_fast import crossbar_mvm


def test_isaac_numbers_of_sixteen_bits_are_exact(rng):
    chip = load("isaac-32nm")
    product = Product(dense(Matmul("it", "linear", 300, 20, signed=True), chip))
    q = torch.randint(-(2**15), 2**15, (1, 300, 20), generator=rng)
    x = torch.randint(-(2**15), 2**15, (2, 2, 1, 300), generator=rng)
    crossbars = Crossbars(product, encode(q, product.placement))
    exact = torch.einsum("ipgr,grc->ipgc", x.double(), q.double())
    for shortcut in (True, False):
        assert torch.equal(crossbar_mvm(x, crossbars, adc.lossless(), shortcut=shortcut), exact)


def test_isaac_numbers_through_eight_bit_adcs_are_the_reference(rng):
    chip = load("isaac-32nm")
    product = Product(dense(Matmul("it", "linear", 140, 2), chip))
    q = torch.randint(-(2**15), 2**15, (1, 140, 2), generator=rng)
    x = torch.randint(0, 2**16, (1, 1, 1, 140), generator=rng)
    levels, scale = encode(q, product.placement), adc.full(product)
    got = crossbar_mvm(x, Crossbars(product, levels), scale)
    assert torch.equal(got, reference.crossbar_mvm(x, levels, product, scale))
    assert not torch.equal(got, torch.einsum("ipgr,grc->ipgc", x.double(), q.double()))


@pytest.mark.parametrize(("cell", "digit"), [(8, 8), (7, 7), (8, 1), (1, 8)])
@pytest.mark.parametrize("encoding", ["offset", "pair", "twos_complement"])
@pytest.mark.parametrize("tall", [128, 2048])
def test_tall_crossbars_of_wide_cells_and_digits_stay_exact(make_chip, rng, cell, digit, encoding, tall):
    chip = make_chip(
        cell={"bits": cell},
        crossbar={"rows": tall, "cols": 64},
        dac={"bits": digit},
        inputs={"bits": 8},
        weights={"bits": 8, "encoding": encoding},
    )
    product = Product(dense(Matmul("it", "linear", 5000, 3), chip))
    low, high = weight_limits(chip.weights)
    q = torch.randint(low, high + 1, (1, 5000, 3), generator=rng)
    q[..., 0] = high
    x = torch.randint(0, 256, (3, 1, 1, 5000), generator=rng)
    x[0] = 255
    crossbars = Crossbars(product, encode(q, product.placement))
    exact = torch.einsum("ipgr,grc->ipgc", x.double(), q.double())
    for shortcut in (True, False):
        assert torch.equal(crossbar_mvm(x, crossbars, adc.lossless(), shortcut=shortcut), exact)
