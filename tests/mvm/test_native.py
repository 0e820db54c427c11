"""What only native paths promise: shortcuts, a count of what clips, and the reason why a layer does not fit."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from mvm_samples import ENCODINGS, Case, cases, large, positions_in_lsb, scale_of

from bitline.errors import MappingError
from bitline.mvm import native
from bitline.mvm.crossbars import Crossbars
from bitline.mvm.torch_fast import crossbar_mvm
from bitline.physics.noise import ReadNoise
from bitline.physics.normal import quantiles, tail

pytestmark = pytest.mark.skipif(not native.paths(), reason="the native kernels are not built here")
PATHS = native.paths()


def plan(case: Case, path: str, **kwargs) -> native.Plan:
    try:
        return native.Plan(case.crossbars, case.scale, path, **kwargs)
    except MappingError:
        assume(False)
        raise


@pytest.mark.parametrize("path", PATHS)
@given(data=st.data())
def test_shortcuts_change_no_bit(make_chip, path, data):
    case = data.draw(cases(make_chip, input_bits=8, cells=data.draw(st.sampled_from(["ideal", "real"]))))
    # Small inputs, whose high digits are zero in every row, and rows that are never driven.
    case.x = case.x.clamp(-1, 3) * (torch.arange(case.x.shape[-1]) % 2)
    taken, _ = plan(case, path).multiply(case.bytes, 1)
    not_taken, _ = plan(case, path).multiply(case.bytes, 1, shortcuts=False)
    assert torch.equal(taken, not_taken)


@pytest.mark.parametrize("path", PATHS)
@given(data=st.data())
def test_cells_kept_in_16_bits_answer_as_their_levels_do(make_chip, path, data):
    case = data.draw(cases(make_chip, input_bits=8, cells="real"))
    kept = plan(case, path)
    levels = native.Plan(Crossbars(case.product, case.levels), case.scale, path)

    assert kept.kind == levels.kind
    assert torch.equal(kept.multiply(case.bytes, 1)[0], levels.multiply(case.bytes, 1)[0])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_kept_cells_of_every_encoding_give_the_answer_of_the_tensor_path(make_chip, rng, path, encoding):
    case = large(
        make_chip,
        rng,
        cell={"bits": 2, "programming": {"kind": "lognormal", "sigma": 0.2}},
        weights={"bits": 8, "encoding": ENCODINGS[encoding]},
        adc={"bits": 5},
        inputs={"bits": 8},
    )
    assert case.crossbars.cells.dtype == torch.int16
    assert case.product.placement.chip.slices > 1
    wanted = crossbar_mvm(case.x, Crossbars(case.product, case.levels), case.scale)
    assert torch.equal(native.Plan(case.crossbars, case.scale, path).multiply(case.bytes, 1)[0], wanted)


@pytest.mark.parametrize("path", PATHS)
def test_conversions_of_absent_crossbars_do_not_clip(make_chip, rng, path):
    case = large(make_chip, rng, absent=0.5, adc={"bits": 3}, crossbar={"rows": 128, "cols": 40}, inputs={"bits": 8})
    case.scale = scale_of(1, 10_000, 0, 7)
    _, clipped = native.Plan(case.crossbars, case.scale, path, count=True).multiply(case.bytes, 1)
    assert clipped == case.x.shape[1] * case.product.placement.conversions_per_vector


def test_native_quantiles_are_those_of_tensors():
    inner, far = native.quantiles()
    assert torch.equal(torch.tensor(inner, dtype=torch.int16), quantiles())
    assert torch.equal(torch.tensor(far), tail())


@pytest.mark.parametrize("path", PATHS)
@given(data=st.data())
def test_clipped_conversions_are_counted(make_chip, path, data):
    case = data.draw(cases(make_chip, input_bits=8, cells=data.draw(st.sampled_from(["ideal", "real"]))))
    position = positions_in_lsb(case)
    wanted = 0
    if case.scale.low is not None and case.scale.high is not None:
        code = position.round()
        wanted = int(((code < case.scale.low) | (code > case.scale.high)).sum())
    result, clipped = plan(case, path, count=True).multiply(case.bytes, 1)
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
