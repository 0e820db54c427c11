"""The slow and the fast path, and the exact product that both come down to."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bitline.chip import replace
from bitline.errors import MappingError
from bitline.mapping.empty import clear_, empty_blocks
from bitline.mapping.encode import decode, encode
from bitline.mapping.lower import Matmul
from bitline.mapping.place import dense
from bitline.mapping.quantize import weight_limits
from bitline.mvm import adc, reference, torch_fast
from bitline.mvm.adc import AdcScale
from bitline.mvm.crossbars import Crossbars
from bitline.mvm.product import Product
from bitline.mvm.torch_fast import crossbar_mvm
from bitline.physics.faults import stuck_levels
from bitline.physics.noise import ReadNoise
from bitline.physics.program import RESOLUTION, effective_levels

ENCODINGS: dict[str, dict[str, Any]] = {
    "offset": {"kind": "offset"},
    "column": {"kind": "offset", "sum": "column"},
    "zero point": {"kind": "offset", "zero_point": 1},
    "pair": {"kind": "pair"},
    "digital pair": {"kind": "pair", "subtract": "digital"},
    "two's complement": {"kind": "twos_complement"},
}
POLICIES = ("lossless", "full", "fixed", "layer", "slice", "slice_digit", "column")


@dataclass
class Case:
    x: Tensor
    q: Tensor
    levels: Tensor
    product: Product
    scale: AdcScale

    @property
    def crossbars(self) -> Crossbars:
        return Crossbars(self.product, self.levels)

    @property
    def exact(self) -> Tensor:
        return torch.einsum("ipgr,grc->ipgc", self.x.double(), self.q.double())


@st.composite
def cases(draw, make_chip, *, cells="ideal", policies=POLICIES, read_noise=None, most_bits=8, absent=True):
    """A small layer on a small chip, with inputs at random; some of its crossbars may be empty, hence not built."""
    cell, digit = draw(st.integers(1, most_bits)), draw(st.integers(1, most_bits))
    encoding = draw(st.sampled_from(list(ENCODINGS)))
    weight_bits = draw(st.integers(2, min(16, 4 * cell)))
    input_bits = draw(st.integers(digit, min(16, 4 * digit)))
    signed = draw(st.booleans())
    policy = draw(st.sampled_from(policies))
    rows = draw(st.integers(1, 9))
    active = draw(st.integers(1, rows))
    pair = encoding == "pair"
    physics: dict[str, Any] = {"leak": draw(st.sampled_from(["cancelled", "kept"]))} if cells == "real" else {}
    if cells == "real":
        physics["programming"] = {"kind": "lognormal", "sigma": draw(st.sampled_from([0.01, 0.3]))}
    if read_noise:
        physics["read_noise"] = read_noise
    chip = make_chip(
        cell={"bits": cell, "faults": {"stuck_off": 0.2, "stuck_on": 0.1} if cells != "ideal" else {}, **physics},
        crossbar={"rows": rows, "cols": 64, "active_rows": active},
        dac={"bits": digit},
        inputs={"bits": input_bits},
        weights={"bits": weight_bits, "encoding": ENCODINGS[encoding]},
        adc={
            "bits": draw(st.integers(1, 10)),
            "policy": "fixed" if policy == "fixed" else "calibrated",
            **({"range": {"low": -4e-6 if pair else 1e-6, "high": 4e-6}} if policy == "fixed" else {}),
        },
    )
    # As few as one weight column a crossbar, so that there are several column tiles.
    cols = (draw(st.integers(1, 4)) + chip.reference_columns) * chip.cells_per_weight
    chip = replace(chip, f"crossbar.cols={cols}")
    matmul = Matmul(
        "it", "linear", draw(st.integers(1, 14)), draw(st.integers(1, 3)), draw(st.integers(1, 2)), signed=signed
    )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    product = Product(dense(matmul, chip))
    low, high = weight_limits(chip.weights)
    q = torch.randint(low, high + 1, (matmul.groups, matmul.rows, matmul.cols), generator=generator)
    if absent and draw(st.booleans()):
        share = draw(st.sampled_from([0.3, 0.8, 1.0]))
        for block in product.placement.blocks():
            if torch.rand((), generator=generator) < share:
                q[block.group, slice(*block.rows), slice(*block.cols)] = 0
        product = Product(dense(matmul, chip, empty_blocks(q, product.placement)))
    levels = encode(q, product.placement)
    if cells != "ideal":
        stuck = stuck_levels(levels.shape, chip.cell, generator=generator)
        levels = clear_(effective_levels(levels, stuck, chip.cell, generator=generator), product.placement)
    low, high = product.form.limits
    x = torch.randint(
        low,
        high + 1,
        (draw(st.integers(1, 2)), draw(st.integers(1, 2)), matmul.groups, matmul.rows),
        generator=generator,
    )
    x[0, 0] = draw(st.sampled_from([low, high])) if draw(st.booleans()) else x[0, 0]
    match policy:
        case "lossless":
            scale = adc.lossless()
        case "full":
            scale = adc.full(product)
        case "fixed":
            scale = adc.fixed(product)
        case _:
            shape = adc.shape(policy, product)
            ends = (torch.rand(2, *shape, generator=generator) * product.max_sum).sort(0).values
            scale = adc.from_range(ends[0], ends[1], product)
    return Case(x, q, levels, product, scale)


@given(st.data())
def test_the_fast_path_is_the_reference_bit_for_bit(make_chip, data):
    case = data.draw(cases(make_chip))
    wanted = reference.crossbar_mvm(case.x, case.levels, case.product, case.scale)
    assert torch.equal(crossbar_mvm(case.x, case.crossbars, case.scale), wanted)
    assert torch.equal(crossbar_mvm(case.x, case.crossbars, case.scale, shortcut=False), wanted)


@given(st.data())
def test_stuck_cells_are_whole_levels_and_stay_equal_bit_for_bit(make_chip, data):
    case = data.draw(cases(make_chip, cells="stuck"))
    assert case.levels.dtype == torch.uint8
    wanted = reference.crossbar_mvm(case.x, case.levels, case.product, case.scale)
    assert torch.equal(crossbar_mvm(case.x, case.crossbars, case.scale), wanted)
    assert torch.equal(crossbar_mvm(case.x, case.crossbars, case.scale, shortcut=False), wanted)


@given(st.data(), st.integers(1, 5000))
def test_the_size_of_a_chunk_changes_no_bit(make_chip, data, chunk):
    case = data.draw(cases(make_chip, cells=data.draw(st.sampled_from(["ideal", "real"]))))
    whole = crossbar_mvm(case.x, case.crossbars, case.scale, shortcut=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_fast, "CHUNK", chunk)
        assert torch.equal(crossbar_mvm(case.x, case.crossbars, case.scale, shortcut=False), whole)


@given(st.data())
def test_a_processor_without_an_exact_int8_product_gives_the_same_answer(make_chip, data):
    case = data.draw(cases(make_chip, cells=data.draw(st.sampled_from(["ideal", "real"]))))
    for shortcut in (True, False):
        wanted = crossbar_mvm(case.x, case.crossbars, case.scale, shortcut=shortcut)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch_fast, "_int8_is_exact", lambda: False)
            assert torch.equal(crossbar_mvm(case.x, case.crossbars, case.scale, shortcut=shortcut), wanted)


@given(st.data())
def test_ideal_cells_and_a_lossless_adc_give_the_exact_integer_product(make_chip, data):
    case = data.draw(cases(make_chip, policies=("lossless",)))
    for shortcut in (True, False):
        assert torch.equal(crossbar_mvm(case.x, case.crossbars, case.scale, shortcut=shortcut), case.exact)


@given(st.data())
def test_ideal_cells_and_a_full_range_of_enough_bits_give_the_exact_integer_product(make_chip, data):
    case = data.draw(cases(make_chip, policies=("full",), most_bits=4))
    chip = case.product.placement.chip
    enough = case.product.max_sum.bit_length() + (2 if case.product.subtracts else 0)
    wide = chip.model_copy(update={"adc": chip.adc.model_copy(update={"bits": max(1, min(16, enough))})})
    product = Product(dense(case.product.placement.matmul, wide, case.product.placement.absent))
    scale = adc.full(product)
    assert scale.resolves(-product.max_sum if product.subtracts else 0, product.max_sum)
    for shortcut in (True, False):
        assert torch.equal(crossbar_mvm(case.x, Crossbars(product, case.levels), scale, shortcut=shortcut), case.exact)


def sums_of(case: Case) -> tuple[Tensor, Tensor]:
    """What the ADCs of every row tile see and say, (tiles, groups, digits, vectors, slices, sides, columns)."""
    seen: list[Tensor] = []
    codes: list[Tensor] = []
    crossbar_mvm(case.x, case.crossbars, case.scale, observer=lambda a, c: (seen.append(a), codes.append(c.clone())))
    return torch.stack(seen).double(), torch.stack(codes).double()


def reference_sums(case: Case) -> Tensor:
    """The same sums by the definition, in doubles."""
    product = case.product
    placement, form = product.placement, product.form
    width, body = placement.chip.dac.bits, product.form.bits - product.form.signed
    vectors = case.x.flatten(0, 1)
    planes = [(vectors % 2**body >> shift) % 2**width for shift in range(0, body, width)]
    planes += [(vectors < 0).long()] if form.signed else []
    sides = case.levels.double()
    sides = sides[:, :1] - sides[:, 1:] if product.subtracts else sides
    return torch.stack(
        [
            torch.einsum("dvgr,gksrc->gdvskc", torch.stack(planes)[..., a:b].double(), sides[..., a:b, :])
            for a, b in pairwise(placement.row_bounds)
        ]
    )


@given(st.data())
def test_real_levels_make_exact_sums_and_codes_differ_only_where_two_are_equally_near(make_chip, data):
    case = data.draw(cases(make_chip, cells="real"))
    sums, codes = sums_of(case)
    assert torch.equal(sums, reference_sums(case))
    lsb, offset = (t[:, :, None, :, None, :] for t in (case.scale.lsb, case.scale.offset))
    position = (sums - offset) / lsb
    tie = ((position - position.floor()) - 0.5).abs() < 1e-2
    wanted = position.round()
    if case.scale.low is not None:
        wanted = wanted.clamp(case.scale.low, case.scale.high)
    assert torch.equal(codes[~tie], wanted[~tie])
    assert bool(((codes - wanted).abs() <= 1).all())
    got = crossbar_mvm(case.x, case.crossbars, case.scale)
    slow = reference.crossbar_mvm(case.x, case.levels, case.product, case.scale)
    if not bool(tie.any()):
        assert torch.equal(got, slow)
    weights = torch.tensor(case.product.digit_weights).abs().max() * max(map(abs, case.product.slice_weights))
    assert float((got - slow).abs().max()) <= float(tie.sum() * 2 * weights * case.scale.lsb.max())


NOISE = ({"kind": "absolute", "sigma": "3 uS"}, {"kind": "proportional", "sigma": 0.05})


@given(st.data(), st.sampled_from(NOISE))
def test_read_noise_is_the_reference_but_for_codes_at_a_tie(make_chip, data, read_noise):
    case = data.draw(
        cases(make_chip, cells=data.draw(st.sampled_from(["ideal", "real"])), read_noise=read_noise, most_bits=3)
    )
    noise = ReadNoise(case.product.placement.chip.cell, data.draw(st.integers(0, 2**40)), first_image=3)
    seen: list[Tensor] = []
    got = crossbar_mvm(case.x, case.crossbars, case.scale, noise=noise, observer=lambda a, _: seen.append(a))
    slow = reference.crossbar_mvm(case.x, case.levels, case.product, case.scale, noise=noise)
    lsb, offset = (t[:, :, None, :, None, :] for t in (case.scale.lsb, case.scale.offset))
    position = (torch.stack(seen).double() - offset) / lsb
    tie = ((position - position.floor()) - 0.5).abs() < 1e-2
    if not bool(tie.any()):
        assert torch.equal(got, slow)
    weights = max(case.product.digit_weights, key=abs), max(case.product.slice_weights, key=abs)
    assert float((got - slow).abs().max()) <= float(tie.sum() * 2 * abs(weights[0] * weights[1]) * case.scale.lsb.max())


@given(st.data())
def test_the_conversions_performed_are_those_counted(make_chip, data):
    case = data.draw(cases(make_chip))
    there, tile, performed = case.product.built, 0, 0

    def count(a: Tensor, code: Tensor) -> None:
        nonlocal tile, performed
        assert a.shape == code.shape
        gone = torch.zeros(a.shape, dtype=torch.bool)
        if there is not None:
            gone = (~there[tile])[:, None, None, None, None].expand(a.shape)
        assert not a[gone].any()
        assert not code[gone].any()
        performed += int((~gone).sum())
        tile = (tile + 1) % case.product.placement.row_tiles

    crossbar_mvm(case.x, case.crossbars, case.scale, observer=count)
    assert performed == case.x.shape[0] * case.x.shape[1] * case.product.placement.conversions_per_vector


@pytest.mark.parametrize("groups", [1, 8, 9, 40])
@pytest.mark.parametrize("encoding", list(ENCODINGS))
def test_many_groups_equal_their_parts(make_chip, rng, groups, encoding):
    chip = make_chip(crossbar={"cols": 64}, weights={"encoding": ENCODINGS[encoding]}, adc={"bits": 3})
    low, high = weight_limits(chip.weights)
    q = torch.randint(low, high + 1, (groups, 9, 2), generator=rng)
    x = torch.randint(0, 16, (2, 3, groups, 9), generator=rng)

    def product(part: Tensor, count: int) -> Tensor:
        p = Product(dense(Matmul("it", "conv2d", 9, 2, count), chip))
        return crossbar_mvm(x[:, :, part], Crossbars(p, encode(q[part], p.placement)), adc.full(p))

    everything = torch.arange(groups)
    parts = [product(everything[g : g + 1], 1) for g in range(groups)]
    assert torch.equal(product(everything, groups), torch.cat(parts, dim=2))


def real_case(make_chip, rng, rows: int = 300) -> Case:
    """Programmed cells, large enough that a plain float32 product depends on the batch."""
    chip = make_chip(
        cell={"programming": {"kind": "lognormal", "sigma": 0.2}, "read_noise": {"kind": "proportional", "sigma": 0.1}},
        crossbar={"rows": 127, "cols": 66},
        inputs={"bits": 8},
        weights={"bits": 8},
        adc={"bits": 8},
    )
    product = Product(dense(Matmul("it", "conv2d", rows, 33), chip))
    q = torch.randint(-128, 128, (1, rows, 33), generator=rng)
    stuck = torch.full((1, 1, 4, rows, 33), -1, dtype=torch.int16)
    levels = effective_levels(encode(q, product.placement), stuck, chip.cell, generator=rng)
    x = torch.randint(0, 256, (5, 35, 1, rows), generator=rng)
    return Case(x, q, levels, product, adc.full(product))


@pytest.mark.parametrize("noisy", [False, True])
def test_an_image_does_not_depend_on_its_batch(make_chip, rng, noisy):
    case = real_case(make_chip, rng)
    cell = case.product.placement.chip.cell

    def multiply(start: int, stop: int) -> Tensor:
        noise = ReadNoise(cell, 7, first_image=start) if noisy else None
        return crossbar_mvm(case.x[start:stop], case.crossbars, case.scale, noise=noise)

    whole = multiply(0, 5)
    assert torch.equal(torch.cat([multiply(i, i + 1) for i in range(5)]), whole)
    assert torch.equal(torch.cat([multiply(0, 2), multiply(2, 5)]), whole)
    if noisy:
        assert not torch.equal(multiply(0, 5), crossbar_mvm(case.x, case.crossbars, case.scale))


def test_sums_of_real_levels_do_not_depend_on_how_many_vectors_are_multiplied_at_once(make_chip, rng):
    case = real_case(make_chip, rng)
    whole, _ = sums_of(case)
    for count in (1, 2, 3, 5, 7):
        part, _ = sums_of(Case(case.x[:1, :count], case.q, case.levels, case.product, case.scale))
        assert torch.equal(part, whole[:, :, :, :count])


@pytest.mark.parametrize("noisy", [False, True])
def test_the_number_of_threads_changes_no_bit(make_chip, rng, noisy):
    case = real_case(make_chip, rng)
    noise = ReadNoise(case.product.placement.chip.cell, 7) if noisy else None
    before = torch.get_num_threads()
    results: list[Tensor] = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(crossbar_mvm(case.x[:2], case.crossbars, case.scale, noise=noise))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


def test_effective_levels_are_whole_multiples_of_their_resolution(make_chip, rng):
    levels = real_case(make_chip, rng).levels
    assert torch.equal((levels / RESOLUTION).round() * RESOLUTION, levels)
    assert not torch.equal(levels.round(), levels)


@given(st.data())
def test_inputs_of_any_integer_type_give_the_same_answer(make_chip, data):
    case = data.draw(cases(make_chip, most_bits=3))
    low, high = case.product.form.limits
    dtypes = [torch.int32] + ([torch.uint8] if low == 0 and high < 256 else []) + ([torch.int8] if high < 128 else [])
    for dtype in dtypes:
        again = crossbar_mvm(case.x.to(dtype), case.crossbars, case.scale)
        assert torch.equal(again, crossbar_mvm(case.x, case.crossbars, case.scale))


@pytest.mark.parametrize("path", ["fast", "reference"])
def test_what_does_not_fit_the_layer_is_refused(make_chip, path):
    product = Product(dense(Matmul("fc", "linear", 3, 2), make_chip()))
    levels = torch.zeros(1, 1, 2, 3, 2, dtype=torch.uint8)

    def multiply(x: Tensor, levels: Tensor) -> Tensor:
        if path == "fast":
            return crossbar_mvm(x, Crossbars(product, levels), adc.lossless())
        return reference.crossbar_mvm(x, levels, product, adc.lossless())

    good = torch.zeros(1, 1, 1, 3, dtype=torch.int64)
    assert multiply(good, levels).shape == (1, 1, 1, 2)
    for x, cells, message in (
        (good[..., :2], levels, r"layer fc: inputs have shape \(1, 1, 1, 2\); expected \(images, positions, 1, 3\)"),
        (good, levels[..., :1], r"layer fc: levels have shape \(1, 1, 2, 3, 1\); expected \(1, 1, 2, 3, 2\)"),
        (good + 16, levels, r"layer fc: inputs span \[16, 16\]; 4 bits, unsigned, hold \[0, 15\]"),
        (good - 1, levels, r"layer fc: inputs span \[-1, -1\]; 4 bits, unsigned, hold \[0, 15\]"),
    ):
        with pytest.raises(MappingError, match=message):
            multiply(x, cells)


def test_levels_decode_to_the_weights_that_the_shortcut_multiplies_by(make_chip, rng):
    case = real_case(make_chip, rng, rows=5)
    crossbars = Crossbars(case.product, encode(case.q, case.product.placement))
    assert torch.equal(crossbars.weights.double(), decode(crossbars.levels, case.product.placement))
    assert crossbars.weights.dtype == torch.int8


def test_no_vector_gives_no_answer(make_chip):
    product = Product(dense(Matmul("fc", "linear", 3, 2), make_chip()))
    crossbars = Crossbars(product, torch.zeros(1, 1, 2, 3, 2, dtype=torch.uint8))
    for shape in ((0, 4), (4, 0)):
        x = torch.zeros(*shape, 1, 3, dtype=torch.int64)
        for scale in (adc.lossless(), adc.full(product)):
            assert crossbar_mvm(x, crossbars, scale, shortcut=False).shape == (*shape, 1, 2)
            assert crossbar_mvm(x, crossbars, scale).shape == (*shape, 1, 2)
