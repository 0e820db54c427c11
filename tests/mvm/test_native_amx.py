"""The AMX path of the native kernels, by way of its emulation: every processor with AVX-512 runs that."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mvm_samples import ENCODINGS, Case, without

from bitline.errors import MappingError
from bitline.mapping.empty import clear_
from bitline.mapping.encode import encode
from bitline.mapping.lower import Matmul
from bitline.mapping.place import dense
from bitline.mapping.quantize import weight_limits
from bitline.mvm import adc, native
from bitline.mvm.product import Product
from bitline.mvm.torch_fast import crossbar_mvm
from bitline.physics.faults import stuck_levels
from bitline.physics.program import effective_levels

EMULATED, LOOK_UPS = "amx-emulated", "avx512"
_native = native._native
_reason = _native.why_not(EMULATED) if _native else "the native kernels are not built here"
emulated = pytest.mark.skipif(bool(_reason), reason=_reason)


def check(case: Case) -> str:
    """Compare with the tensor path, and with look-ups where either rounds to within a tolerance; say the kind."""
    try:
        plan = native.Plan(case.crossbars, case.scale, EMULATED)
    except MappingError:
        return "none"
    x = case.bytes
    if plan.kind.endswith("words"):
        other = native.Plan(case.crossbars, case.scale, LOOK_UPS)
        assert other.kind == "words"
        wanted, _ = other.multiply(x, 1)
    else:
        wanted = crossbar_mvm(case.x, case.crossbars, case.scale, shortcut=False)
    for shortcuts in (True, False):
        assert torch.equal(plan.multiply(x, 1, shortcuts=shortcuts)[0], wanted), plan.kind
    return plan.kind


@st.composite
def large(draw, make_chip, *, encoding=None, real=None):
    """A layer of several tiles in every direction, most of the time; some of its crossbars may not be built."""
    encoding = encoding or draw(st.sampled_from(list(ENCODINGS)))
    cell, digit = draw(st.integers(1, 4)), draw(st.sampled_from([1, 1, 1, 2, 3, 8]))
    real = draw(st.booleans()) if real is None else real
    active = draw(st.integers(1, 200))
    chip = make_chip(
        cell={
            "bits": cell,
            "leak": "kept" if draw(st.booleans()) else "cancelled",
            **({"programming": {"kind": "lognormal", "sigma": 0.1}} if real else {}),
        },
        crossbar={"rows": 256, "cols": draw(st.sampled_from([72, 512])), "active_rows": active},
        dac={"bits": digit},
        inputs={"bits": draw(st.integers(digit, 8))},
        weights={"bits": draw(st.integers(2, min(8, 4 * cell))), "encoding": ENCODINGS[encoding]},
        adc={"bits": draw(st.integers(1, 10))},
    )
    cols = draw(st.sampled_from([1, 3, 15, 16, 17, 33, 70]))
    matmul = Matmul(
        "it", "linear", draw(st.integers(1, 300)), cols, draw(st.integers(1, 2)), signed=draw(st.booleans())
    )
    product = Product(dense(matmul, chip))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    low, high = weight_limits(chip.weights)
    q = torch.randint(low, high + 1, (matmul.groups, matmul.rows, cols), generator=generator)
    if draw(st.booleans()):
        product = without(product, q, 0.7, generator)
    levels = encode(q, product.placement)
    if real:
        stuck = stuck_levels(levels.shape, chip.cell, generator=generator)
        levels = clear_(effective_levels(levels, stuck, chip.cell, generator=generator), product.placement)
    low, high = product.form.limits
    vectors = draw(st.sampled_from([1, 31, 63, 64, 65, 97, 140]))
    x = torch.randint(low, high + 1, (1, vectors, matmul.groups, matmul.rows), generator=generator)
    match draw(st.sampled_from(["any", "few digits", "one row"])):
        case "few digits":
            x = x.clamp(max(low, -2), min(high, 2)) & -2 if not matmul.signed else x.clamp(min=0) & 2
        case "one row":
            x[..., 1:] = 0
        case _:
            pass
    shape = adc.shape(draw(st.sampled_from(["layer", "slice", "slice_digit", "column"])), product)
    match draw(st.sampled_from(["lossless", "full", "range"])):
        case "lossless":
            scale = adc.lossless()
        case "full":
            scale = adc.full(product)
        case _:
            ends = (torch.rand(2, *shape, generator=generator) * product.max_sum / 2).sort(0).values
            ends[0] *= draw(st.booleans())
            scale = adc.from_range(ends[0], ends[1], product)
    return Case(x, q, levels, product, scale)


@emulated
@pytest.mark.parametrize("encoding", list(ENCODINGS))
@pytest.mark.parametrize("real", [False, True])
@settings(max_examples=12)
@given(data=st.data())
def test_layers_of_many_tiles_give_the_answer_of_the_tensor_path(make_chip, data, encoding, real):
    check(data.draw(large(make_chip, encoding=encoding, real=real)))


@emulated
@settings(max_examples=30)
@given(st.data())
def test_conversions_that_clip_are_those_that_look_ups_count(make_chip, data):
    case = data.draw(large(make_chip))
    try:
        plans = [native.Plan(case.crossbars, case.scale, path, count=True) for path in (EMULATED, LOOK_UPS)]
    except MappingError:
        return
    (y, clipped), (wanted, count) = (p.multiply(case.bytes, 1) for p in plans)
    assert torch.equal(y, wanted)
    assert clipped == count


def layer(
    make_chip, rng, *, real=False, signed=False, rows=300, cols=70, sections: dict[str, Any] | None = None
) -> Case:
    chip = make_chip(
        **{
            "crossbar": {"rows": 128, "cols": 512},
            "inputs": {"bits": 8},
            "weights": {"bits": 8},
            "adc": {"bits": 6},
            "cell": {"bits": 2, "programming": {"kind": "lognormal", "sigma": 0.1}},
        }
        | (sections or {})
    )
    product = Product(dense(Matmul("it", "conv2d", rows, cols, signed=signed), chip))
    low, high = weight_limits(chip.weights)
    q = torch.randint(low, high + 1, (1, rows, cols), generator=rng)
    levels = encode(q, product.placement)
    if real:
        stuck = torch.full(levels.shape, -1, dtype=torch.int16)
        levels = effective_levels(levels, stuck, chip.cell, generator=rng)
    low, high = product.form.limits
    x = torch.randint(low, high + 1, (2, 67, 1, rows), generator=rng)
    return Case(x, q, levels, product, adc.full(product))


WIDE = {"cell": {"bits": 8}, "dac": {"bits": 8}}
PAIR = {"weights": {"bits": 8, "encoding": ENCODINGS["pair"]}}


@emulated
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("tiles", {}),
        ("tiles", {"signed": True}),
        ("tiles", {"sections": PAIR}),
        ("tiles, words", {"real": True}),
        ("tiles, floats", {"real": True, "sections": PAIR}),
        ("tiles, floats", {"sections": WIDE}),
        ("tiles, floats", {"sections": WIDE | PAIR}),
    ],
)
def test_every_kind_of_sums(make_chip, rng, kind, options):
    assert check(layer(make_chip, rng, **options)) == kind


@emulated
def test_levels_and_digits_of_eight_bits_make_tiles_of_bytes_where_sums_fit_16_bits(make_chip, rng):
    assert check(layer(make_chip, rng, sections={"cell": {"bits": 8}})).startswith("tiles")
    case = layer(make_chip, rng, sections={"crossbar": {"rows": 1, "cols": 512}, **WIDE}, rows=3)
    assert check(case).startswith("tiles")
    assert not check(case).endswith("floats")


@emulated
def test_tiles_too_large_to_keep_all_digits_are_expanded_again(make_chip, rng):
    case = layer(make_chip, rng, rows=2200, cols=17)
    case.x = case.x[:1]
    assert check(case) == "tiles"


@emulated
def test_the_number_of_threads_changes_no_bit(make_chip, rng):
    case = layer(make_chip, rng, real=True, sections=PAIR)
    plan = native.Plan(case.crossbars, case.scale, EMULATED)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        wanted, _ = plan.multiply(case.bytes, 1)
        torch.set_num_threads(3)
        assert torch.equal(plan.multiply(case.bytes, 1)[0], wanted)
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(_native is None, reason="the native kernels are not built here")
def test_a_path_says_why_it_does_not_run():
    assert EMULATED not in native.paths()
    for path in native.paths():
        assert _native.why_not(path) == ""
    for path in {"amx", "avx512", "avx2", "portable"} - set(native.paths()):
        assert _native.why_not(path)
    assert _native.why_not("abacus") == "this build has no such path"
