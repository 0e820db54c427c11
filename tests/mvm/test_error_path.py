"""Errors of cells apart from the product: what the direct simulation answers beyond the exact product."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitline.chip import replace
from bitline.errors import MappingError
from bitline.mapping.encode import encode
from bitline.mapping.lower import Matmul
from bitline.mapping.place import dense
from bitline.mapping.quantize import weight_limits
from bitline.mvm import adc, error_path
from bitline.mvm.crossbars import Crossbars
from bitline.mvm.product import Product
from bitline.mvm.torch_fast import crossbar_mvm
from bitline.physics.faults import stuck_levels
from bitline.physics.program import effective_levels

ENCODINGS = ("offset", "column", "pair", "digital pair", "twos_complement")
RECORDS = {
    "offset": {"kind": "offset"},
    "column": {"kind": "offset", "sum": "column"},
    "pair": {"kind": "pair"},
    "digital pair": {"kind": "pair", "subtract": "digital"},
    "twos_complement": {"kind": "twos_complement"},
}


def layer(make_chip, encoding, *, rows=9, cols=3, groups=2, sigma=0.3, seed=0, signed=False, dac=1, height=4):
    """Integer inputs, programmed crossbars, their targets, and integer weights."""
    chip = make_chip(
        cell={
            "bits": 2,
            "programming": {"kind": "lognormal", "sigma": sigma},
            "faults": {"stuck_off": 0.1, "stuck_on": 0.02},
        },
        crossbar={"rows": height, "cols": 16},
        adc={"policy": "lossless"},
        weights={"encoding": RECORDS[encoding]},
        dac={"bits": dac},
    )
    product = Product(dense(Matmul("it", "linear", rows, cols, groups, signed=signed), chip))
    generator = torch.Generator().manual_seed(seed)
    low, high = weight_limits(chip.weights)
    q = torch.randint(low, high + 1, (groups, rows, cols), generator=generator)
    targets = encode(q, product.placement)
    stuck = stuck_levels(targets.shape, chip.cell, generator=generator)
    levels = effective_levels(targets, stuck, chip.cell, generator=generator)
    low, high = product.form.limits
    x = torch.randint(low, high + 1, (3, 5, groups, rows), generator=generator)
    return x, Crossbars(product, levels), targets, q


@given(st.sampled_from(ENCODINGS), st.integers(0, 2**32), st.booleans(), st.integers(1, 3), st.integers(1, 9))
def test_the_exact_product_and_the_error_path_are_the_direct_simulation(make_chip, encoding, seed, signed, dac, height):
    x, crossbars, targets, q = layer(make_chip, encoding, seed=seed, signed=signed, dac=dac, height=height)
    direct = crossbar_mvm(x, crossbars, adc.lossless())
    exact = torch.einsum("ipgr,grc->ipgc", x.double(), q.double())
    assert torch.equal(exact + error_path.error(x, crossbars, targets), direct)


def test_cells_on_their_levels_err_nothing(make_chip):
    x, crossbars, targets, _ = layer(make_chip, "pair")
    ideal = Crossbars(crossbars.product, targets)
    assert not error_path.error(x, ideal, targets).any()
    assert not error_path.weight_errors(ideal, targets).any()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_linear_form_goes_with_the_exact_error(make_chip, encoding):
    x, crossbars, targets, _ = layer(make_chip, encoding, rows=96, height=32, cols=8)
    exact = error_path.error(x, crossbars, targets).flatten()
    linear = error_path.linear_error(x, error_path.weight_errors(crossbars, targets)).flatten()
    assert float(torch.corrcoef(torch.stack([exact, linear]))[0, 1]) > 0.99
    assert not torch.equal(exact, linear)


def test_another_adc_is_refused(make_chip):
    x, crossbars, targets, _ = layer(make_chip, "offset")
    chip = replace(crossbars.product.placement.chip, "adc.policy=full")
    other = Crossbars(Product(dense(crossbars.product.placement.matmul, chip)), crossbars.levels)
    with pytest.raises(MappingError, match=r"adc\.policy = 'full'; .*: 'lossless'$"):
        error_path.error(x, other, targets)


def test_targets_of_another_shape_are_refused(make_chip):
    x, crossbars, targets, _ = layer(make_chip, "offset")
    with pytest.raises(MappingError, match=r"targets have shape .*; expected "):
        error_path.error(x, crossbars, targets[..., :1])
