"""Native paths against tensors, and these against plain loops: one answer."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from test_paths import Case, cases
from torch import Tensor

from bitline.errors import MappingError
from bitline.mapping.empty import clear_, empty_blocks
from bitline.mapping.encode import encode
from bitline.mapping.lower import Matmul
from bitline.mapping.place import dense
from bitline.mapping.quantize import weight_limits
from bitline.mvm import adc, native, reference
from bitline.mvm.product import Product
from bitline.mvm.torch_fast import crossbar_mvm
from bitline.physics.noise import ReadNoise
from bitline.physics.normal import quantiles
from bitline.physics.program import RESOLUTION, effective_levels

pytestmark = pytest.mark.skipif(not native.paths(), reason="the native kernels are not built here")
PATHS = native.paths()


def inputs(case: Case) -> Tensor:
    return case.x.to(torch.int8 if case.product.form.signed else torch.uint8)


def plan(case: Case, path: str, **kwargs) -> native.Plan:
    assume(case.product.form.bits <= 8)
    try:
        return native.Plan(case.crossbars, case.scale, path, **kwargs)
    except MappingError:
        assume(False)
        raise


@pytest.mark.parametrize("path", PATHS)
@given(data=st.data())
def test_integer_levels_give_the_reference_bit_for_bit(make_chip, path, data):
    case = data.draw(cases(make_chip))
    wanted = reference.crossbar_mvm(case.x, case.levels, case.product, case.scale)
    got, _ = plan(case, path).multiply(inputs(case), 1)
    assert torch.equal(got, wanted)


@pytest.mark.parametrize("path", PATHS)
@given(data=st.data())
def test_shortcuts_change_no_bit(make_chip, path, data):
    case = data.draw(cases(make_chip, cells=data.draw(st.sampled_from(["ideal", "real"]))))
    # Small inputs, whose high digits are zero in every row, and rows that are never driven.
    case.x = case.x.clamp(-1, 3) * (torch.arange(case.x.shape[-1]) % 2)
    taken, _ = plan(case, path).multiply(inputs(case), 1)
    not_taken, _ = plan(case, path).multiply(inputs(case), 1, shortcuts=False)
    assert torch.equal(taken, not_taken)


def large(make_chip, rng, *, rows=300, cols=70, groups=2, vectors=130, sparse=False, absent=0.0, **chip) -> Case:
    """A layer of several blocks of vectors and columns and of uneven row tiles, without a share of its crossbars."""
    placed = make_chip(**{"cell": {"bits": 2}, "weights": {"bits": 8}, "crossbar": {"rows": 128, "cols": 512}, **chip})
    product = Product(dense(Matmul("it", "linear", rows, cols, groups), placed))
    low, high = weight_limits(placed.weights)
    q = torch.randint(low, high + 1, (groups, rows, cols), generator=rng)
    if absent:
        for block in product.placement.blocks():
            if torch.rand((), generator=rng) < absent:
                q[block.group, slice(*block.rows), slice(*block.cols)] = 0
        gone = empty_blocks(q, product.placement)
        assert gone
        product = Product(dense(product.placement.matmul, placed, gone))
    levels = encode(q, product.placement)
    levels = clear_(effective_levels(levels, None, placed.cell, generator=rng), product.placement)
    x = torch.randint(0, 2**placed.inputs.bits, (1, vectors, groups, rows), generator=rng)
    x = x * (torch.rand(rows, generator=rng) < 0.2) if sparse else x
    return Case(x, q, levels, product, adc.full(product))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("bits", [3, 5, 8, 10])
@pytest.mark.parametrize("encoding", ["offset", "pair", {"kind": "pair", "subtract": "digital"}, "twos_complement"])
@pytest.mark.parametrize("granularity", ["layer", "slice_digit", "column"])
def test_layers_of_many_blocks_agree_with_tensors(make_chip, rng, path, bits, encoding, granularity):
    case = large(make_chip, rng, weights={"bits": 8, "encoding": encoding}, inputs={"bits": 8}, adc={"bits": bits})
    shape = adc.shape(granularity, case.product)
    ends = torch.rand(2, *shape, generator=rng).sort(0).values * torch.tensor([0.2, 1.0]).view(2, 1, 1, 1, 1)
    case.scale = adc.from_range(*(ends * case.product.max_sum / 2), case.product)
    wanted = crossbar_mvm(case.x, case.crossbars, case.scale)
    got, _ = native.Plan(case.crossbars, case.scale, path).multiply(inputs(case), 1)
    assert torch.equal(got, wanted)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("absent", [0.4, 0.9, 1.0])
@pytest.mark.parametrize("encoding", ["offset", {"kind": "offset", "sum": "column"}, "pair"])
@pytest.mark.parametrize("cells", ["ideal", "varying", "noisy", "wide"])
def test_layers_without_some_crossbars_agree_with_tensors(make_chip, rng, path, absent, encoding, cells):
    # Column tiles of 10 columns, or 9: a tile of sixteen columns holds parts of several.
    chip = {
        "ideal": {},
        "varying": {"cell": {"programming": {"kind": "lognormal", "sigma": 0.1}}},
        "noisy": {"cell": {"read_noise": {"kind": "absolute", "sigma": "1 uS"}}},
        "wide": {"dac": {"bits": 2}},
    }[cells]
    case = large(
        make_chip,
        rng,
        absent=absent,
        weights={"bits": 8, "encoding": encoding},
        inputs={"bits": 8},
        adc={"bits": 5},
        crossbar={"rows": 128, "cols": 40},
        **chip,
    )
    # A code of an absent crossbar would stand for no zero: neither end of a range is a multiple of its LSB.
    case.scale = adc.AdcScale(case.scale.lsb + 0.5, case.scale.offset + 3, case.scale.low, case.scale.high)
    noise = ReadNoise(case.product.placement.chip.cell, 5) if cells == "noisy" else None
    wanted = crossbar_mvm(case.x, case.crossbars, case.scale, noise=noise)
    got, _ = native.Plan(case.crossbars, case.scale, path, noise=noise).multiply(inputs(case), 1, noise=noise)
    if cells in ("ideal", "wide"):
        assert torch.equal(got, wanted)
    else:
        assert_codes_differ_at_ties_only(case, got, wanted, 0.02, noise=noise)
    if absent == 1:
        assert not got.any()


@pytest.mark.parametrize("path", PATHS)
def test_conversions_of_absent_crossbars_do_not_clip(make_chip, rng, path):
    case = large(make_chip, rng, absent=0.5, adc={"bits": 3}, crossbar={"rows": 128, "cols": 40}, inputs={"bits": 8})
    one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    case.scale = adc.AdcScale(one, one * 10_000, 0, 7)
    _, clipped = native.Plan(case.crossbars, case.scale, path, count=True).multiply(inputs(case), 1)
    assert clipped == case.x.shape[1] * case.product.placement.conversions_per_vector


@pytest.mark.parametrize("path", PATHS)
def test_even_lsbs_round_ties_to_even(make_chip, rng, path):
    case = large(make_chip, rng)
    for lsb in (2.0, 4.0, 6.0, 12.0, 16.0):
        one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
        case.scale = adc.AdcScale(one * lsb, one * 3, 0, 31)
        wanted = crossbar_mvm(case.x, case.crossbars, case.scale)
        assert torch.equal(native.Plan(case.crossbars, case.scale, path).multiply(inputs(case), 1)[0], wanted)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_number_of_threads_changes_no_bit(make_chip, rng, path, threads):
    case = large(make_chip, rng, sparse=True)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        got, _ = native.Plan(case.crossbars, case.scale, path).multiply(inputs(case), 1)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(got, crossbar_mvm(case.x, case.crossbars, case.scale))


def positions_in_lsb(case: Case, **kwargs) -> Tensor:
    """Where every analog sum lies between two codes, 0.5 being a tie."""
    seen: list[Tensor] = []
    crossbar_mvm(case.x, case.crossbars, case.scale, observer=lambda a, _: seen.append(a), **kwargs)
    lsb, offset = (t[:, :, None, :, None, :] for t in (case.scale.lsb, case.scale.offset))
    there, tiles = case.product.built, case.product.placement.row_tiles
    found: list[Tensor] = []
    for number, a in enumerate(seen):
        position = ((a.double() - offset) / lsb).movedim(5, 1)
        found.append((position if there is None else position[there[number % tiles]]).flatten())
    return torch.cat(found)


def assert_codes_differ_at_ties_only(case: Case, got: Tensor, wanted: Tensor, within: float, **kwargs) -> None:
    position = positions_in_lsb(case, **kwargs)
    ties = int((((position - position.floor()) - 0.5).abs() < within).sum())
    heaviest = max(abs(a * b) for a in case.product.digit_weights for b in case.product.slice_weights)
    # Every code that differs moves one result by at most an LSB of the heaviest digit and slice.
    assert float((got - wanted).abs().sum()) <= ties * heaviest * float(case.scale.lsb.max()) * (1 + 1e-9)


REAL = {"bits": 2, "programming": {"kind": "lognormal", "sigma": 0.1}}


@pytest.mark.parametrize("path", PATHS)
@given(data=st.data())
def test_real_levels_give_the_codes_of_tensors_but_for_ties(make_chip, path, data):
    case = data.draw(cases(make_chip, cells="real"))
    got, _ = plan(case, path).multiply(inputs(case), 1)
    assert_codes_differ_at_ties_only(case, got, crossbar_mvm(case.x, case.crossbars, case.scale), native.TOLERANCE)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("encoding", ["offset", "pair"])
@pytest.mark.parametrize("rows", [128, 512])
@pytest.mark.parametrize("ends", [True, False])
def test_real_levels_of_many_blocks_differ_at_ties_only(make_chip, rng, path, encoding, rows, ends):
    case = large(
        make_chip,
        rng,
        rows=600,
        cell=REAL,
        crossbar={"rows": rows, "cols": 512},
        weights={"bits": 8, "encoding": encoding},
        vectors=20,
        cols=10,
    )
    if not ends:
        case.scale = adc.lossless()
    got, _ = native.Plan(case.crossbars, case.scale, path).multiply(inputs(case), 1)
    assert_codes_differ_at_ties_only(case, got, crossbar_mvm(case.x, case.crossbars, case.scale), native.TOLERANCE)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("cell", [{"bits": 2}, REAL])
@pytest.mark.parametrize("dac", [1, 2])
def test_read_noise_is_that_of_tensors_but_for_ties(make_chip, rng, path, cell, dac):
    cell = {**cell, "g_min": "10 uS", "g_max": "100 uS", "read_noise": {"kind": "absolute", "sigma": "3 uS"}}
    case = large(make_chip, rng, cell=cell, dac={"bits": dac}, cols=10, vectors=70)
    noise = ReadNoise(case.product.placement.chip.cell, 5, first_image=3)
    quiet = crossbar_mvm(case.x, case.crossbars, case.scale)
    wanted = crossbar_mvm(case.x, case.crossbars, case.scale, noise=noise)
    got, _ = native.Plan(case.crossbars, case.scale, path, noise=noise).multiply(inputs(case), 1, noise=noise)
    assert not torch.equal(wanted, quiet)
    # Noise is rounded to the resolution of levels where sums are words.
    within = native.TOLERANCE + RESOLUTION / float(case.scale.lsb.min())
    assert_codes_differ_at_ties_only(case, got, wanted, within, noise=noise)


def test_native_quantiles_are_those_of_tensors():
    assert torch.equal(torch.tensor(native.quantiles(), dtype=torch.int16), quantiles())


@pytest.mark.parametrize("path", PATHS)
@given(data=st.data())
def test_clipped_conversions_are_counted(make_chip, path, data):
    case = data.draw(cases(make_chip, cells=data.draw(st.sampled_from(["ideal", "real"]))))
    position = positions_in_lsb(case)
    wanted = 0
    if case.scale.low is not None and case.scale.high is not None:
        code = position.round()
        wanted = int(((code < case.scale.low) | (code > case.scale.high)).sum())
    result, clipped = plan(case, path, count=True).multiply(inputs(case), 1)
    assert torch.equal(result, crossbar_mvm(case.x, case.crossbars, case.scale))
    assert clipped == wanted


def test_a_layer_that_does_not_fit_says_why(make_chip, rng):
    case = large(make_chip, rng, inputs={"bits": 9})
    with pytest.raises(MappingError, match="inputs of 9 bits; native kernels take up to 8"):
        native.Plan(case.crossbars, case.scale, PATHS[0])
    case = large(make_chip, rng)
    noise = ReadNoise(make_chip(cell={"read_noise": {"kind": "proportional", "sigma": 0.1}}).cell, 0)
    assert "in proportion to conductance" in str(native.why_not(case.crossbars, torch.device("cpu"), noise))


def test_an_unknown_path_is_an_error_that_names_those_allowed(monkeypatch):
    monkeypatch.setenv(native.VARIABLE, "avx3")
    with pytest.raises(MappingError, match=r"BITLINE_PATH = 'avx3' does not run here.*allowed: .*tensor"):
        native.chosen_path()
