"""What every path of `mvm` keeps to: the numbers of the reference, whatever the layer, the ADC and the batch."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from mvm_paths import ABSOLUTE, PATHS, PROPORTIONAL, Path, by_tensors, defined
from mvm_samples import ENCODINGS, POLICIES, Case, cases, large, layer, real_case, scale_of
from torch import Tensor

from bitline.chip import load
from bitline.errors import MappingError
from bitline.mapping.encode import encode
from bitline.mapping.lower import Matmul
from bitline.mapping.place import dense
from bitline.mapping.quantize import weight_limits
from bitline.mvm import adc
from bitline.mvm.product import Product
from bitline.physics.noise import ReadNoise

TENSORS = by_tensors(shortcut=True)
"""for layers too large for the reference"""


def paths(**wanted: object):
    """The paths that are so, by name."""
    return pytest.mark.parametrize(
        "path",
        [
            pytest.param(path, id=name)
            for name, path in PATHS.items()
            if all(getattr(path, key) == value for key, value in wanted.items())
        ],
    )


every_path = paths()
others = pytest.mark.parametrize(
    "path", [pytest.param(path, id=name) for name, path in PATHS.items() if name != "reference"]
)


beside_tensors = pytest.mark.parametrize(
    "path", [pytest.param(path, id=name) for name, path in PATHS.items() if path.quick and "tensor" not in name]
)


def drawn(data, make_chip, path: Path, **options) -> Case:
    """A layer that the path says it takes."""
    options["most_bits"] = min(path.most_bits, options.get("most_bits", 8))
    return data.draw(cases(make_chip, input_bits=path.input_bits, absent=path.absent, **options))


def answer(path: Path, case: Case, noise: ReadNoise | None = None) -> Tensor:
    """What the path answers; layers that do not fit it are tried no further."""
    got = path.answer(case, noise)
    assume(got is not None)
    assert got is not None
    assert got.dtype == torch.float64
    return got


@others
@given(st.data())
def test_integer_levels_give_the_reference_bit_for_bit(make_chip, path, data):
    case = drawn(data, make_chip, path, cells=data.draw(st.sampled_from(["ideal", "stuck"])))
    assert torch.equal(answer(path, case), defined(case))


@others
@given(st.data())
def test_real_levels_give_the_reference_bit_for_bit(make_chip, path, data):
    case = drawn(data, make_chip, path, cells="real")
    assert torch.equal(answer(path, case), defined(case))


@others
@given(st.data())
def test_read_noise_gives_the_reference_bit_for_bit(make_chip, path, data):
    if not path.noises:
        return
    case = drawn(
        data, make_chip, path, cells=data.draw(st.sampled_from(["ideal", "real"])), most_bits=3,
        read_noise=data.draw(st.sampled_from(path.noises)),
    )  # fmt: skip
    noise = ReadNoise(case.product.placement.chip.cell, data.draw(st.integers(0, 2**40)), first_image=3)
    assert torch.equal(answer(path, case, noise), defined(case, noise))


@pytest.mark.parametrize("noise", [ABSOLUTE, PROPORTIONAL], ids=lambda noise: noise["kind"])
@every_path
def test_read_noise_changes_the_answer_or_is_refused(make_chip, rng, path, noise):
    case = layer(make_chip, rng, "full", "offset", cell={"read_noise": {**noise}})
    with_noise = path.answer(case, ReadNoise(case.product.placement.chip.cell, 1)) if path.noises else None
    assert (with_noise is not None) == (noise in path.noises)
    assert with_noise is None or not torch.equal(with_noise, path.multiply(case, None))


@every_path
@given(st.data())
def test_ideal_cells_and_a_lossless_adc_give_the_exact_integer_product(make_chip, path, data):
    case = drawn(data, make_chip, path, policies=("lossless",))
    assert torch.equal(answer(path, case), case.exact)


@every_path
@given(st.data())
def test_ideal_cells_and_a_full_range_of_enough_bits_give_the_exact_integer_product(make_chip, path, data):
    case = drawn(data, make_chip, path, policies=("full",), most_bits=4)
    chip = case.product.placement.chip
    enough = case.product.max_sum.bit_length() + (2 if case.product.subtracts else 0)
    wide = chip.model_copy(update={"adc": chip.adc.model_copy(update={"bits": max(1, min(16, enough))})})
    case.product = Product(dense(case.product.placement.matmul, wide, case.product.placement.absent))
    case.scale = adc.full(case.product)
    assert case.scale.resolves(-case.product.max_sum if case.product.subtracts else 0, case.product.max_sum)
    assert torch.equal(answer(path, case), case.exact)


@others
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("encoding", list(ENCODINGS))
def test_every_encoding_and_adc_policy_gives_the_reference(make_chip, rng, path, encoding, policy):
    for codes in ({"bits": 1}, {"bits": 2, "levels": 3}, {"bits": 4, "levels": 11}):
        case = layer(make_chip, rng, policy, encoding, adc=codes)
        assert torch.equal(path.multiply(case, None), defined(case))


@every_path
@pytest.mark.parametrize("lsb", [2.0, 4.0, 6.0, 12.0, 14.0, 16.0])
def test_ties_round_to_even(make_chip, path, lsb):
    chip = make_chip(cell={"bits": 4}, weights={"bits": 5, "encoding": "pair"}, dac={"bits": 4})
    product = Product(dense(Matmul("it", "linear", 1, 31), chip))
    q = torch.arange(-15, 16)[None, None]
    case = Case(
        torch.arange(16)[:, None, None, None], q, encode(q, product.placement), product, scale_of(lsb, 3, -8, 7)
    )

    # Python rounds halves to even too.
    exact = ((case.exact - 3) / lsb).apply_(lambda sum: min(max(round(sum), -8), 7)) * lsb + 3

    assert torch.equal(path.multiply(case, None), exact)


@every_path
@given(st.data())
def test_an_image_does_not_depend_on_its_batch(make_chip, path, data):
    noises = st.sampled_from([None, *path.noises])
    kind = data.draw(noises)
    case = drawn(data, make_chip, path, cells="real", read_noise=kind, most_bits=3)

    def part(start: int, stop: int) -> Tensor:
        noise = ReadNoise(case.product.placement.chip.cell, 7, first_image=start) if kind else None
        return answer(path, Case(case.x[start:stop], case.q, case.levels, case.product, case.scale), noise)

    whole = part(0, len(case.x))
    assert torch.equal(torch.cat([part(i, i + 1) for i in range(len(case.x))]), whole)


@paths(quick=True)
@pytest.mark.parametrize("noisy", [False, True])
def test_an_image_does_not_depend_on_its_batch_where_plain_sums_of_floats_would(make_chip, rng, path, noisy):
    case = real_case(make_chip, rng, noise=path.noises[-1] if noisy and path.noises else None)

    def part(start: int, stop: int) -> Tensor:
        noise = ReadNoise(case.product.placement.chip.cell, 7, first_image=start) if noisy and path.noises else None
        return path.multiply(Case(case.x[start:stop], case.q, case.levels, case.product, case.scale), noise)

    whole = part(0, 5)
    assert torch.equal(torch.cat([part(i, i + 1) for i in range(5)]), whole)
    assert torch.equal(torch.cat([part(0, 2), part(2, 5)]), whole)


@paths(quick=True)
@pytest.mark.parametrize("threads", [2, 5])
@pytest.mark.parametrize("noisy", [False, True])
def test_the_number_of_threads_changes_no_bit(make_chip, rng, path, threads, noisy):
    case = real_case(make_chip, rng, noise=path.noises[-1] if noisy and path.noises else None)
    noise = ReadNoise(case.product.placement.chip.cell, 7) if noisy and path.noises else None
    before = torch.get_num_threads()
    results: list[Tensor] = []
    try:
        for count in (1, threads):
            torch.set_num_threads(count)
            results.append(path.multiply(case, noise))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


@every_path
@pytest.mark.parametrize("encoding", list(ENCODINGS))
def test_no_vector_gives_no_answer(make_chip, rng, path, encoding):
    case = layer(make_chip, rng, "full", encoding)
    for shape in ((0, 4), (4, 0)):
        for scale in (case.scale, adc.lossless()):
            case.x, case.scale = torch.zeros(*shape, *case.x.shape[2:], dtype=torch.int64), scale
            assert path.multiply(case, None).shape == (*shape, *case.q.shape[::2])


@every_path
@pytest.mark.parametrize("groups", [1, 8, 9, 40])
@pytest.mark.parametrize("encoding", list(ENCODINGS))
def test_many_groups_equal_their_parts(make_chip, rng, path, groups, encoding):
    chip = make_chip(crossbar={"cols": 64}, weights={"encoding": ENCODINGS[encoding]}, adc={"bits": 3})
    low, high = weight_limits(chip.weights)
    q = torch.randint(low, high + 1, (groups, 9, 2), generator=rng)
    x = torch.randint(0, 16, (2, 3, groups, 9), generator=rng)

    def product(first: int, last: int) -> Tensor:
        p = Product(dense(Matmul("it", "conv2d", 9, 2, last - first), chip))
        levels = encode(q[first:last], p.placement)
        return path.multiply(Case(x[:, :, first:last], q[first:last], levels, p, adc.full(p)), None)

    parts = [product(group, group + 1) for group in range(groups)]
    assert torch.equal(product(0, groups), torch.cat(parts, dim=2))


@paths(absent=True)
@pytest.mark.parametrize("encoding", list(ENCODINGS))
def test_a_layer_without_any_crossbar_answers_zero(make_chip, rng, path, encoding):
    case = layer(make_chip, rng, "slice", encoding, absent=1.0)
    # A code of an absent crossbar would stand for no zero: neither end of a range is a multiple of its LSB.
    case.scale = scale_of(7.5, 3, 0, 7)
    assert not path.multiply(case, None).any()


@every_path
@pytest.mark.parametrize("signed", [False, True])
def test_inputs_of_any_integer_type_give_the_same_answer(make_chip, rng, path, signed):
    case = layer(make_chip, rng, "slice", "offset", signed=signed)
    wanted = path.multiply(case, None)
    for dtype in (torch.int8, torch.int16, torch.int32, *(() if signed else (torch.uint8,))):
        case.x = case.x.to(dtype)
        assert torch.equal(path.multiply(case, None), wanted)


@paths(checks=True)
def test_what_does_not_fit_the_layer_is_refused(make_chip, path):
    product = Product(dense(Matmul("fc", "linear", 3, 2), make_chip()))
    levels = torch.zeros(1, 1, 2, 3, 2, dtype=torch.uint8)
    good = torch.zeros(1, 1, 1, 3, dtype=torch.int64)
    for x, cells, message in (
        (good[..., :2], levels, r"layer fc: inputs have shape \(1, 1, 1, 2\); expected \(images, positions, 1, 3\)"),
        (good, levels[..., :1], r"layer fc: levels have shape \(1, 1, 2, 3, 1\); expected \(1, 1, 2, 3, 2\)"),
        (good + 16, levels, r"layer fc: inputs span \[16, 16\]; 4 bits, unsigned, hold \[0, 15\]"),
        (good - 1, levels, r"layer fc: inputs span \[-1, -1\]; 4 bits, unsigned, hold \[0, 15\]"),
    ):
        with pytest.raises(MappingError, match=message):
            path.multiply(Case(x, torch.zeros(1, 3, 2), cells, product, adc.lossless()), None)


@every_path
@pytest.mark.parametrize("signed", [False, True])
def test_isaac_numbers_of_sixteen_bits_are_exact_or_refused(rng, path, signed):
    rows, cols = (140, 5) if path.quick else (130, 1)
    product = Product(dense(Matmul("it", "linear", rows, cols, signed=signed), load("isaac-32nm")))
    q = torch.randint(-(2**15), 2**15, (1, rows, cols), generator=rng)
    low, high = product.form.limits
    x = torch.randint(low, high + 1, (1, 2, 1, rows), generator=rng)
    case = Case(x, q, encode(q, product.placement), product, adc.lossless())

    got = path.answer(case)

    assert (got is None) == (path.input_bits < 16)
    assert got is None or torch.equal(got, case.exact)


@paths(input_bits=16)
def test_isaac_numbers_through_eight_bit_adcs_are_the_reference(rng, path):
    product = Product(dense(Matmul("it", "linear", 140, 2), load("isaac-32nm")))
    q = torch.randint(-(2**15), 2**15, (1, 140, 2), generator=rng)
    x = torch.randint(0, 2**16, (1, 1, 1, 140), generator=rng)
    case = Case(x, q, encode(q, product.placement), product, adc.full(product))
    assert torch.equal(path.multiply(case, None), defined(case))
    assert not torch.equal(path.multiply(case, None), case.exact)


@paths(quick=True)
@pytest.mark.parametrize(("cell", "digit"), [(8, 8), (7, 7), (8, 1), (1, 8)])
@pytest.mark.parametrize("encoding", ["offset", "pair", "two's complement"])
@pytest.mark.parametrize("tall", [128, 2048])
def test_tall_crossbars_of_wide_cells_and_digits_stay_exact_or_are_refused(
    make_chip, rng, path, cell, digit, encoding, tall
):
    chip = make_chip(
        cell={"bits": cell},
        crossbar={"rows": tall, "cols": 64},
        dac={"bits": digit},
        inputs={"bits": 8},
        weights={"bits": 8, "encoding": ENCODINGS[encoding]},
    )
    product = Product(dense(Matmul("it", "linear", 5000, 3), chip))
    low, high = weight_limits(chip.weights)
    q = torch.randint(low, high + 1, (1, 5000, 3), generator=rng)
    q[..., 0] = high
    x = torch.randint(0, 256, (3, 1, 1, 5000), generator=rng)
    x[0] = 255
    case = Case(x, q, encode(q, product.placement), product, adc.lossless())

    got = path.answer(case)

    assert got is None or torch.equal(got, case.exact)


@beside_tensors
@pytest.mark.parametrize("bits", [3, 5, 8, 10])
@pytest.mark.parametrize("encoding", ["offset", "pair", "digital pair", "two's complement"])
@pytest.mark.parametrize("granularity", ["layer", "slice_digit", "column"])
def test_layers_of_many_blocks_agree_with_tensors(make_chip, rng, path, bits, encoding, granularity):
    weights = {"bits": 8, "encoding": ENCODINGS[encoding]}
    case = large(make_chip, rng, weights=weights, inputs={"bits": 8}, adc={"bits": bits})
    shape = adc.shape(granularity, case.product)
    ends = torch.rand(2, *shape, generator=rng).sort(0).values * torch.tensor([0.2, 1.0]).view(2, 1, 1, 1, 1)
    case.scale = adc.from_range(*(ends * case.product.max_sum / 2), case.product)
    assert torch.equal(path.multiply(case, None), TENSORS(case, None))


@beside_tensors
def test_digits_and_rows_that_are_mostly_zero_agree_with_tensors(make_chip, rng, path):
    case = large(make_chip, rng, sparse=True)
    assert torch.equal(path.multiply(case, None), TENSORS(case, None))


@beside_tensors
@pytest.mark.parametrize("lsb", [2, 4, 6, 12, 16])
def test_ties_round_to_even_in_layers_of_many_blocks(make_chip, rng, path, lsb):
    case = large(make_chip, rng)
    case.scale = scale_of(lsb, 3, 0, 31)
    assert torch.equal(path.multiply(case, None), TENSORS(case, None))


@beside_tensors
@pytest.mark.parametrize("encoding", ["offset", "pair"])
@pytest.mark.parametrize("rows", [128, 512])
@pytest.mark.parametrize("ends", [True, False])
def test_real_levels_of_many_blocks_agree_with_tensors(make_chip, rng, path, encoding, rows, ends):
    case = large(
        make_chip,
        rng,
        rows=600,
        cell={"bits": 2, "programming": {"kind": "lognormal", "sigma": 0.1}},
        crossbar={"rows": rows, "cols": 512},
        weights={"bits": 8, "encoding": encoding},
        vectors=20,
        cols=10,
    )
    case.scale = case.scale if ends else adc.lossless()
    assert torch.equal(path.multiply(case, None), TENSORS(case, None))


@beside_tensors
@pytest.mark.parametrize("absent", [0.4, 0.9, 1.0])
@pytest.mark.parametrize("encoding", ["offset", "column", "pair"])
@pytest.mark.parametrize("cells", ["ideal", "varying", "noisy", "wide"])
def test_layers_without_some_crossbars_agree_with_tensors(make_chip, rng, path, absent, encoding, cells):
    chip = {
        "ideal": {},
        "varying": {"cell": {"programming": {"kind": "lognormal", "sigma": 0.1}}},
        "noisy": {"cell": {"read_noise": {"kind": "absolute", "sigma": "1 uS"}}},
        "wide": {"dac": {"bits": 2}},
    }[cells]
    if not path.absent or (cells == "noisy" and not path.noises):
        return
    # Column tiles of 10 columns, or 9: a tile of sixteen columns holds parts of several.
    case = large(
        make_chip,
        rng,
        absent=absent,
        weights={"bits": 8, "encoding": ENCODINGS[encoding]},
        inputs={"bits": 8},
        adc={"bits": 5},
        crossbar={"rows": 128, "cols": 40},
        **chip,
    )
    # A code of an absent crossbar would stand for no zero: neither end of a range is a multiple of its LSB.
    case.scale = adc.AdcScale(case.scale.lsb + 0.5, case.scale.offset + 3, case.scale.low, case.scale.high)
    noise = ReadNoise(case.product.placement.chip.cell, 5) if cells == "noisy" else None
    got = path.multiply(case, noise)
    assert torch.equal(got, TENSORS(case, noise))
    if absent == 1:
        assert not got.any()


@beside_tensors
@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize("dac", [1, 2])
def test_read_noise_in_layers_of_many_blocks_is_that_of_tensors(make_chip, rng, path, varying, dac):
    if not path.noises:
        return
    cell = {"programming": {"kind": "lognormal", "sigma": 0.1}} if varying else {}
    cell |= {"bits": 2, "g_min": "10 uS", "g_max": "100 uS", "read_noise": ABSOLUTE}
    case = large(make_chip, rng, cell=cell, dac={"bits": dac}, cols=10, vectors=70)
    noise = ReadNoise(case.product.placement.chip.cell, 5, first_image=3)
    wanted = TENSORS(case, noise)
    assert not torch.equal(wanted, TENSORS(case, None))
    assert torch.equal(path.multiply(case, noise), wanted)
