"""The Triton kernel against `torch_fast`: on a GPU where there is one, and in Triton's interpreter everywhere else.

The interpreter has to be chosen before Triton is imported, so one test runs this file again in a process of its own.
"""

import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mvm_samples import cases
from torch import Tensor

from bitline.chip import load
from bitline.errors import BitlineError, MappingError
from bitline.mapping.encode import encode
from bitline.mapping.lower import Matmul
from bitline.mapping.place import dense
from bitline.mapping.quantize import weight_limits
from bitline.mvm import adc, reference, torch_fast, triton, triton_kernel
from bitline.mvm.adc import AdcScale
from bitline.mvm.crossbars import Crossbars
from bitline.mvm.product import Product
from bitline.physics.program import effective_levels
from bitline.physics.steps import RESOLUTION

HERE = Path(__file__)
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu")
INSTALLED = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
KERNEL = pytest.mark.skipif(not triton.available(), reason="needs Triton and a GPU, or Triton's interpreter")
GPU = pytest.mark.skipif(
    find_spec("triton") is None or DEVICE.type != "cuda", reason="needs Triton and a GPU, and runs on no interpreter"
)


def to_device(crossbars: Crossbars, scale: AdcScale) -> tuple[Crossbars, AdcScale]:
    moved = AdcScale(scale.lsb.to(DEVICE), scale.offset.to(DEVICE), scale.low, scale.high)
    return Crossbars(crossbars.product, crossbars.levels.to(DEVICE)), moved


def multiply(x: Tensor, crossbars: Crossbars, scale: AdcScale, *, shortcut: bool = False) -> Tensor:
    return triton.crossbar_mvm(x.to(DEVICE), *to_device(crossbars, scale), shortcut=shortcut).cpu()


def ideal(chip, matmul: Matmul, rng: torch.Generator) -> Crossbars:
    product = Product(dense(matmul, chip))
    low, high = weight_limits(chip.weights)
    q = torch.randint(low, high + 1, (matmul.groups, matmul.rows, matmul.cols), generator=rng)
    return Crossbars(product, encode(q, product.placement))


def inputs(product: Product, rng: torch.Generator, images: int = 2, positions: int = 2) -> Tensor:
    low, high = product.form.limits
    matmul = product.placement.matmul
    return torch.randint(low, high + 1, (images, positions, matmul.groups, matmul.rows), generator=rng)


def scale_of(lsb: list[float], offset: float = 0.0, codes: int | None = 63) -> AdcScale:
    """One LSB for all slices, or one for each."""
    steps = torch.tensor(lsb, dtype=torch.float64)[None, None, :, None]
    return AdcScale(steps, torch.full_like(steps, offset), None if codes is None else 0, codes)


def assert_same(x: Tensor, crossbars: Crossbars, scale: AdcScale) -> None:
    assert triton.why_not(crossbars, scale) is None
    wanted = torch_fast.crossbar_mvm(x, crossbars, scale, shortcut=False)
    assert torch.equal(multiply(x, crossbars, scale), wanted)


@pytest.mark.slow
@INSTALLED
@pytest.mark.skipif(INTERPRETED, reason="runs in the interpreter already")
def test_the_kernel_gives_the_same_numbers_in_the_interpreter():
    files = [str(HERE), str(HERE.with_name("test_contract.py")), "-k", "triton"]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--hypothesis-profile=few", *files]
    run = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


@KERNEL
@settings(max_examples=10)
@given(st.data())
def test_the_shortcut_is_that_of_the_fast_path(make_chip, data):
    case = data.draw(cases(make_chip, policies=("lossless", "full"), most_bits=4, absent=False))
    wanted = torch_fast.crossbar_mvm(case.x, case.crossbars, case.scale)
    assert torch.equal(multiply(case.x, case.crossbars, case.scale, shortcut=True), wanted)


@KERNEL
@settings(max_examples=20)
@given(st.data())
def test_real_levels_give_the_numbers_of_the_reference(make_chip, data):
    case = data.draw(cases(make_chip, cells="real", most_bits=7, absent=False))
    assume(triton.why_not(case.crossbars, case.scale) is None)
    got = multiply(case.x, case.crossbars, case.scale)
    assert torch.equal(got, reference.crossbar_mvm(case.x, case.levels, case.product, case.scale))


@KERNEL
@pytest.mark.parametrize("encoding", ["offset", "pair"])
@pytest.mark.parametrize("bits", [5, 12])
def test_every_sum_of_a_wide_cell_and_digit_becomes_the_nearest_code_ties_to_even(make_chip, rng, encoding, bits):
    chip = make_chip(
        cell={"bits": 7},
        dac={"bits": 7},
        inputs={"bits": 7},
        weights={"bits": 7, "encoding": encoding},
        crossbar={"rows": 1, "cols": 2},
        adc={"bits": bits},
    )
    low, high = weight_limits(chip.weights)
    product = Product(dense(Matmul("it", "linear", 1, high + 1 - low), chip))
    levels = encode(torch.arange(low, high + 1)[None, None], product.placement)
    x = torch.arange(128)[:, None, None, None]
    for granularity in ("layer", "column"):
        reach = 2 ** (14 * torch.rand(adc.shape(granularity, product), generator=rng))
        least = (reach * torch.rand(reach.shape, generator=rng)).round() if granularity == "column" else reach * 0
        assert_same(x, Crossbars(product, levels), adc.from_range(least, least + reach, product))


@KERNEL
@pytest.mark.parametrize("rows", [300, 600])
def test_tall_row_tiles_of_eight_bit_cells_and_many_bits_of_input_are_exact(make_chip, rng, rows):
    chip = make_chip(
        cell={"bits": 8},
        crossbar={"rows": rows - 1, "cols": 64},
        inputs={"bits": 11},
        dac={"bits": 3},
        weights={"bits": 8, "encoding": "pair"},
        adc={"bits": 9},
    )
    crossbars = ideal(chip, Matmul("it", "linear", rows, 3, signed=True), rng)
    assert triton.Layout(crossbars, adc.full(crossbars.product)).parts == 1
    crossbars.levels[0, 0, 0, 0], crossbars.levels[0, 1, 0, 0] = 255, 0
    assert triton.Layout(crossbars, adc.full(crossbars.product)).parts == 2
    assert_same(inputs(crossbars.product, rng), crossbars, adc.full(crossbars.product))
    assert_same(inputs(crossbars.product, rng), crossbars, adc.lossless())


@KERNEL
@pytest.mark.parametrize("signed", [False, True])
def test_isaac_numbers_of_sixteen_bits_are_exact(rng, signed):
    crossbars = ideal(load("isaac-32nm"), Matmul("it", "linear", 140, 5, signed=signed), rng)
    fine = scale_of([1 + 2**-9], codes=255)
    assert triton.Layout(crossbars, fine).ranges.factor.dtype == torch.int64
    for scale in (adc.lossless(), adc.full(crossbars.product), fine):
        assert_same(inputs(crossbars.product, rng), crossbars, scale)


@KERNEL
def test_row_tiles_of_any_height_and_inputs_of_any_type_are_read_right(make_chip, rng):
    placement = dense(Matmul("it", "conv2d", 50, 5, 2), make_chip(crossbar={"rows": 20}))
    uneven = Product(replace(placement, row_bounds=(0, 3, 35, 36, 50)))
    levels = torch.randint(0, 4, (2, 1, 2, 50, 5), dtype=torch.uint8, generator=rng)
    x = inputs(uneven, rng, images=3, positions=7)
    for kind in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64):
        assert_same(x.to(kind)[1:, 2:], Crossbars(uneven, levels), adc.full(uneven))


@KERNEL
def test_a_layout_multiplies_again(make_chip, rng):
    crossbars = ideal(make_chip(), Matmul("it", "linear", 9, 3), rng)
    scale = adc.full(crossbars.product)
    layout = triton.Layout(*to_device(crossbars, scale))
    for _ in range(2):
        x = inputs(crossbars.product, rng)
        wanted = torch_fast.crossbar_mvm(x, crossbars, scale, shortcut=False)
        assert torch.equal(layout.multiply(x.to(DEVICE)).cpu(), wanted)


@GPU
@pytest.mark.parametrize("granularity", ["layer", "slice_digit", "column"])
@pytest.mark.parametrize("encoding", ["offset", "pair", "twos_complement"])
def test_a_layer_of_vgg_size_is_exact_on_the_gpu(make_chip, rng, granularity, encoding):
    chip = make_chip(
        crossbar={"rows": 128, "cols": 128},
        inputs={"bits": 8},
        weights={"bits": 8, "encoding": encoding},
        adc={"bits": 5},
    )
    crossbars = ideal(chip, Matmul("conv2", "conv2d", 1152, 128), rng)
    product = crossbars.product
    high = (0.2 + 0.5 * torch.rand(adc.shape(granularity, product), generator=rng)) * product.max_sum
    scale = adc.from_range(high * 0.1, high, product)
    assert_same(inputs(product, rng, images=2, positions=300), crossbars, scale)


@GPU
def test_real_levels_of_vgg_size_agree_on_the_gpu(make_chip, rng):
    chip = make_chip(
        cell={"programming": {"kind": "lognormal", "sigma": 0.1}},
        crossbar={"rows": 128, "cols": 128},
        inputs={"bits": 8},
        weights={"bits": 8},
        adc={"bits": 5},
    )
    crossbars = ideal(chip, Matmul("conv2", "conv2d", 576, 64), rng)
    product = crossbars.product
    stuck = torch.full(crossbars.levels.shape, -1, dtype=torch.int16)
    levels = effective_levels(crossbars.levels, stuck, chip.cell, generator=rng)
    x, scale = inputs(product, rng, positions=100), adc.full(product)
    got = multiply(x, Crossbars(product, levels), scale)
    fast = torch_fast.crossbar_mvm(x, Crossbars(product, levels), scale)
    assert float(((got - fast).abs() > 0).double().mean()) < 0.01


WIDE = {"cell": {"bits": 8}, "dac": {"bits": 7}, "inputs": {"bits": 7}}
WHY_NOT = {
    "digits": (
        {"dac": {"bits": 8}, "inputs": {"bits": 8}},
        4,
        scale_of([1]),
        "input digits of 8 bits exceed the 7 bits of a signed byte",
    ),
    "LSB": ({}, 4, scale_of([1 / 3]), "an LSB is not a positive number of at most 10 significant bits"),
    "offset": ({}, 4, scale_of([2], 0.5), "an offset is not a whole number of levels"),
    "sums": (
        {**WIDE, "crossbar": {"rows": 1024}},
        1024,
        scale_of([1]),
        "sums of up to 3.31622e+07 levels need more than 23 bits",
    ),
    "codes": (
        WIDE,
        8,
        scale_of([1 + 2**-9], codes=2**16 - 1),
        "float32 does not tell codes of up to 65535 from their middles at an LSB of 1.00195",
    ),
    "results": (
        {"cell": {"bits": 1}, "weights": {"bits": 16}, "inputs": {"bits": 16}},
        4,
        scale_of([2**-20, *[1.0] * 15]),
        "results need more than the 53 bits of a double",
    ),
}


@pytest.mark.parametrize("name", list(WHY_NOT))
def test_a_layer_that_does_not_fit_says_why(make_chip, rng, name):
    sections, rows, scale, sentence = WHY_NOT[name]
    crossbars = ideal(make_chip(**sections), Matmul("fc", "linear", rows, 2), rng)
    assert triton.why_not(crossbars, scale) == sentence
    with pytest.raises(MappingError, match="layer fc does not fit the Triton kernel: "):
        triton.crossbar_mvm(inputs(crossbars.product, rng), crossbars, scale, shortcut=False)


def test_real_levels_that_do_not_fit_say_why(make_chip):
    product = Product(dense(Matmul("fc", "linear", 2, 2), make_chip()))
    most = 127 * (1 + 2**8 + 2**16)
    levels = torch.zeros(1, 1, 2, 2, 2)
    levels[..., 0, :] = most * RESOLUTION
    assert triton.why_not(Crossbars(product, levels), scale_of([1])) is None
    assert triton.why_not(Crossbars(product, levels + RESOLUTION), scale_of([1])) == (
        f"a cell of {(most + 1) * RESOLUTION:g} levels exceeds three signed bytes"
    )
    assert triton.why_not(Crossbars(product, levels), scale_of([RESOLUTION], codes=None)) == (
        f"float32 does not tell codes of up to {most + 1} from their middles at an LSB of {RESOLUTION:g}"
    )
    levels[..., 1, 0] = most * RESOLUTION
    assert triton.why_not(Crossbars(product, levels), scale_of([1])) == (
        f"sums of up to {2 * most * RESOLUTION:g} levels need more than 23 bits"
    )


def test_inputs_that_do_not_fit_are_refused(make_chip, rng):
    crossbars = ideal(make_chip(), Matmul("fc", "linear", 3, 2), rng)
    for shortcut in (True, False):
        with pytest.raises(MappingError, match=r"layer fc: inputs span \[16, 16\]; 4 bits, unsigned, hold \[0, 15\]"):
            triton.crossbar_mvm(torch.full((1, 1, 1, 3), 16), crossbars, adc.full(crossbars.product), shortcut=shortcut)


@pytest.mark.skipif(INTERPRETED, reason="the interpreter takes inputs on the CPU")
def test_without_a_gpu_it_says_what_it_needs(make_chip, rng):
    crossbars = ideal(make_chip(), Matmul("fc", "linear", 3, 2), rng)
    with pytest.raises(BitlineError, match="inputs are on cpu; the kernel needs Triton and a GPU, torch_fast does not"):
        triton.Layout(crossbars, adc.full(crossbars.product)).multiply(inputs(crossbars.product, rng))


def test_without_triton_the_module_loads_and_is_not_available():
    code = "import sys; sys.modules['triton'] = None; from bitline.mvm import triton; assert not triton.available()"
    subprocess.run([sys.executable, "-c", code], check=True)


@INSTALLED
@pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("ones", [(), ("groups", "columns", "tiles", "digits", "planes", "body", "width")])
@pytest.mark.parametrize("tall", [False, True])
def test_the_kernel_compiles_for_a_gpu_that_is_not_there(capability, ones, tall, tmp_path, monkeypatch):
    import triton as compiler
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    types = dict.fromkeys(("x", "offset", "factor", "start", "weight"), "*i32")
    types |= {"cells": "*i8", "inverse": "*fp32", "constant": "*i64", "y": "*fp64"}
    types |= dict.fromkeys(("near", "lowest", "highest", "settle", "unit"), "fp32")
    constants = {"lanes": 4, "parts": 2, "block_k": 64, "one_step": not tall, "block_m": 64, "block_n": 32}
    constants |= dict.fromkeys(("by_group", "by_column", "shifted", "clips_low", "clips_high"), not ones)
    # Triton turns arguments that are 1 into constants.
    constants |= dict.fromkeys(ones, 1)
    kernel = triton_kernel.product_kernel
    signature = {name: types.get(name, "constexpr" if name in constants else "i32") for name in kernel.arg_names}
    options = {"num_warps": 4, "num_stages": 3, "enable_fp_fusion": False}
    source, target = ASTSource(kernel, signature, constants), GPUTarget("cuda", capability, 32)
    assembly = compiler.compile(source, target=target, options=options).asm["ptx"]
    assert "s32.s8.s8" in assembly  # tensor cores, on signed bytes


@INSTALLED
def test_a_layer_without_some_crossbars_is_left_to_tensors(make_chip, rng):
    product = Product(dense(Matmul("it", "linear", 16, 4), make_chip(), frozenset({(0, 1, 0)})))
    case = Crossbars(product, encode(torch.zeros(1, 16, 4), product.placement))
    assert "1 of its crossbars are not built" in str(triton.why_not(case, adc.full(product)))
