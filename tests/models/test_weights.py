"""Weights are what their file says, and numbers; everything else is refused by the tensor's name."""

import math

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bitline.errors import DataError
from bitline.models.weights import check_weights, load_weights


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


def written(folder, **changes):
    """The weights of a network in a file, some of them replaced by what a function makes of them."""
    torch.manual_seed(0)
    tensors = {name: tensor.clone() for name, tensor in network().state_dict().items()}
    for name, change in changes.items():
        key = name.replace("__", ".")
        tensors[key] = change(tensors[key])
    save_file(tensors, folder / "w.safetensors")
    return folder / "w.safetensors", tensors


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floating_weights_of_other_widths_become_those_of_the_network(tmp_path, dtype):
    path, tensors = written(tmp_path, **{"0__weight": lambda w: w.to(dtype)})
    model = network()
    load_weights(model, path)
    assert model[0].weight.dtype == torch.float32
    torch.testing.assert_close(model[0].weight.detach(), tensors["0.weight"].float(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.to(torch.int8), "0.weight is I8, integers without a scale; allowed: BF16, F16, F32, F64"),
        (lambda w: w.view(torch.int32), "0.weight is I32, integers without a scale; allowed: BF16, F16, F32, F64"),
        (lambda w: w > 0, "0.weight is BOOL, truth values; allowed: BF16, F16, F32, F64"),
        (lambda w: w.to(torch.complex64), "0.weight is C64, complex numbers; allowed: BF16, F16, F32, F64"),
        (lambda w: w.to(torch.float8_e4m3fn), "0.weight is F8_E4M3; allowed: BF16, F16, F32, F64"),
    ],
)
def test_weights_of_another_kind_are_refused_by_name(tmp_path, change, message):
    path, _ = written(tmp_path, **{"0__weight": change})
    with pytest.raises(DataError) as error:
        load_weights(network(), path)
    assert str(error.value) == f"{path}: {message}"


def test_a_counter_that_is_no_integer_is_refused(tmp_path):
    path, _ = written(tmp_path, **{"1__num_batches_tracked": lambda n: n.float()})
    with pytest.raises(DataError, match=r"1.num_batches_tracked is F32; allowed: I16, I32, "):
        load_weights(network(), path)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["0.weight", "0.bias", "1.running_mean", "1.running_var", "3.bias"])
def test_weights_that_are_no_numbers_are_refused_with_the_tensor_and_the_count(tmp_path, name, bad):
    def spoil(tensor):
        tensor.view(-1)[:2] = bad
        return tensor

    path, tensors = written(tmp_path, **{name.replace(".", "__"): spoil})
    with pytest.raises(DataError) as error:
        load_weights(network(), path)
    assert str(error.value) == f"{path}: {name} has 2 of {tensors[name].numel()} numbers that are NaN or infinite"


def test_double_precision_that_overflows_is_refused(tmp_path):
    path, _ = written(tmp_path, **{"3__bias": lambda b: b.double() + 1e300})
    with pytest.raises(DataError, match=r"3.bias has 3 of 3 numbers that are NaN or infinite"):
        load_weights(network(), path)


def test_a_variance_below_zero_is_refused():
    model = network()
    model[1].running_var[1] = -1
    with pytest.raises(DataError, match=r"^here: 1.running_var has a variance of -1; allowed: 0 or more$"):
        check_weights(model, "here")


def test_an_infinite_mask_and_weights_not_made_yet_are_left_alone():
    model = nn.Sequential(nn.LazyLinear(2), nn.Linear(2, 2, device="meta"))
    model.register_buffer("mask", torch.full((2, 2), -math.inf))
    check_weights(model, "here")
