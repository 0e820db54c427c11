import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from bitline.errors import MappingError
from bitline.mapping.lower import Matmul, input_rows, lower, output_shape, weight_matrix

MODES = ("zeros", "reflect", "replicate", "circular")


@st.composite
def convolutions(draw):
    """A convolution and an input that it takes, both float64."""
    axes = draw(st.integers(1, 2))
    size = [draw(st.integers(1, 9)) for _ in range(axes)]
    kernel = [draw(st.integers(1, 4)) for _ in range(axes)]
    dilation = [draw(st.integers(1, 3)) for _ in range(axes)]
    stride = [draw(st.integers(1, 3)) for _ in range(axes)]
    padding = draw(st.sampled_from(["same", "valid"]) | st.tuples(*[st.integers(0, 3)] * axes))
    mode = draw(st.sampled_from(MODES))
    if padding == "same":
        stride = [1] * axes
    groups = draw(st.integers(1, 3))
    inputs, outputs = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    cls = nn.Conv1d if axes == 1 else nn.Conv2d
    layer = cls(
        inputs,
        outputs,
        tuple(kernel),
        tuple(stride),
        padding,
        tuple(dilation),
        groups,
        padding_mode=mode,
        dtype=torch.float64,
    )
    images = draw(st.integers(1, 3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    return layer, torch.randint(-9, 10, (images, inputs, *size), generator=generator).double()


def multiply(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    rows, w = input_rows(layer, x), weight_matrix(layer)
    y = torch.einsum("ipgr,grc->ipgc", rows, w).flatten(2)
    if isinstance(layer, nn.Linear):
        return y.reshape(output_shape(layer, x.shape)) + layer.bias
    return y.transpose(1, 2).reshape(output_shape(layer, x.shape)) + layer.bias.view(-1, *[1] * (x.dim() - 2))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@given(convolutions())
def test_rows_times_weights_are_the_convolution(case):
    layer, x = case
    try:
        wanted = layer(x)
    except RuntimeError:
        assume(False)
    torch.testing.assert_close(multiply(layer, x), wanted, rtol=1e-12, atol=1e-12)
    matmul = lower(layer, "conv", input_shape=x.shape)
    assert matmul.positions * matmul.groups * matmul.cols == wanted[0].numel() == matmul.outputs
    assert matmul.inputs == x[0].numel()
    assert input_rows(layer, x).shape == (x.shape[0], matmul.positions, matmul.groups, matmul.rows)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@given(convolutions(), st.sampled_from([torch.uint8, torch.int8, torch.int32]))
def test_integers_reach_the_rows_unchanged_whatever_the_padding(case, dtype):
    layer, x = case
    x = (x.abs() if dtype == torch.uint8 else x).to(dtype)
    try:
        layer(x.double())
    except RuntimeError:
        assume(False)
    rows = input_rows(layer, x)
    assert rows.dtype == dtype
    assert torch.equal(rows.double(), input_rows(layer, x.double()))


@given(st.lists(st.integers(1, 4), max_size=3), st.integers(1, 3))
def test_rows_times_weights_are_the_linear_layer_over_any_leading_axes(leading, images):
    layer = nn.Linear(5, 3, dtype=torch.float64)
    x = torch.randn(images, *leading, 5, dtype=torch.float64)
    torch.testing.assert_close(multiply(layer, x), layer(x), rtol=1e-12, atol=1e-12)
    assert lower(layer, "fc", input_shape=x.shape).macs * images == layer(x).numel() * 5


def test_inputs_in_channels_last_order_or_sliced_give_the_same_rows(rng):
    layer = nn.Conv2d(4, 2, 3, padding=1)
    x = torch.randn(2, 4, 6, 10, generator=rng)
    strided = torch.randn(2, 4, 6, 20, generator=rng)[..., ::2]
    assert torch.equal(input_rows(layer, x.to(memory_format=torch.channels_last)), input_rows(layer, x))
    assert torch.equal(input_rows(layer, strided), input_rows(layer, strided.clone()))


def test_an_input_smaller_than_the_kernel_is_refused():
    layer = nn.Conv2d(1, 1, 3)
    message = "padded input of 2 x 5 is smaller than a kernel that spans 3 x 3"
    with pytest.raises(MappingError, match=message):
        input_rows(layer, torch.zeros(1, 1, 2, 5))
    with pytest.raises(MappingError, match=message):
        lower(layer, "conv", input_shape=torch.Size([1, 1, 2, 5]))


@pytest.mark.parametrize("shape", [(8, 8), (8,), (1, 3, 8, 8, 8)])
def test_an_input_of_other_axes_is_refused(shape):
    with pytest.raises(
        MappingError, match=r"layer conv: input of shape .* expected \(batch, channels, height, width\)"
    ):
        lower(nn.Conv2d(3, 1, 3), "conv", input_shape=torch.Size(shape))


@pytest.mark.parametrize(
    ("layer", "shape"), [(nn.Linear(8, 1), (8,)), (nn.Conv2d(3, 1, 3), (3, 5, 6)), (nn.Conv1d(3, 1, 3), (3, 9))]
)
def test_an_input_without_its_batch_axis_is_lowered_as_a_batch_of_one(layer, shape):
    alone, batch = (lower(layer, "it", input_shape=torch.Size(size)) for size in (shape, (1, *shape)))
    assert alone == batch


def test_no_image_gives_no_rows_of_the_right_shape():
    assert input_rows(nn.Conv2d(2, 4, 3, padding=1), torch.zeros(0, 2, 5, 7)).shape == (0, 35, 1, 18)
    assert input_rows(nn.Linear(5, 2), torch.zeros(0, 3, 5)).shape == (0, 3, 1, 5)
    assert input_rows(nn.Linear(5, 2), torch.zeros(3, 0, 5)).shape == (3, 0, 1, 5)


def test_without_an_input_a_layer_has_one_position():
    matmul = lower(nn.Conv2d(4, 6, (3, 2), groups=2), "conv")
    assert matmul == Matmul("conv", "conv2d", 12, 3, 2, 1, 0)


@pytest.mark.parametrize("module", [nn.ConvTranspose2d(1, 1, 2), nn.Conv3d(1, 1, 2), nn.Bilinear(2, 2, 2), nn.ReLU()])
def test_another_kind_of_layer_is_refused_with_those_allowed(module):
    with pytest.raises(MappingError) as error:
        lower(module, "it")
    assert str(error.value) == (
        f"layer it: {type(module).__name__} is no matrix product that bitline maps; allowed: Linear, Conv1d, Conv2d"
    )


@pytest.mark.parametrize("field", ["rows", "cols", "groups", "positions"])
def test_a_product_without_extent_is_refused(field):
    sizes = {"rows": 1, "cols": 1, "groups": 1, "positions": 1, field: 0}
    with pytest.raises(MappingError, match=rf"^layer it: {field} = 0 must be at least 1$"):
        Matmul("it", "linear", **sizes)


@pytest.mark.parametrize(
    ("layer", "depthwise"),
    [
        (nn.Conv2d(4, 8, 3, groups=4), True),
        (nn.Conv1d(4, 4, 3, groups=4), True),
        (nn.Conv2d(4, 8, 3, groups=2), False),
        (nn.Conv2d(8, 4, 3, groups=4), True),
        (nn.Conv2d(1, 8, 3), False),
        (nn.Linear(4, 4), False),
    ],
)
def test_a_depthwise_layer_has_one_input_or_one_output_channel_in_each_of_several_groups(layer, depthwise):
    assert lower(layer, "it").depthwise == depthwise


@given(convolutions(), st.integers(1, 5))
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_groups_set_together_read_the_rows_of_each_and_zeros_where_there_are_none(case, together):
    layer, x = case
    try:
        layer(x)
    except RuntimeError:
        assume(False)
    own, joined = input_rows(layer, x), input_rows(layer, x, together)
    flat = joined.flatten(2)
    assert joined.shape[2] == -(-layer.groups // together)
    assert torch.equal(flat[..., : own[0, 0].numel()], own.flatten(2))
    assert not flat[..., own[0, 0].numel() :].any()


@pytest.mark.parametrize(
    ("layer", "shape", "window"),
    [
        (nn.Conv2d(16, 4, 3, padding=1), (2, 16, 10, 20), 16 * (2 * 20 + 3)),
        (nn.Conv2d(16, 4, (1, 5)), (2, 16, 10, 20), 16 * 5),
        (nn.Conv2d(16, 4, 3, dilation=2), (2, 16, 10, 20), 16 * (4 * 20 + 5)),
        (nn.Conv2d(16, 16, 3, groups=16), (2, 16, 10, 20), 16 * (2 * 20 + 3)),
        (nn.Conv2d(3, 4, 3, padding=3), (2, 3, 2, 2), 3 * 4),
        (nn.Conv1d(8, 4, 7), (2, 8, 30), 8 * 7),
        (nn.Linear(12, 5), (2, 9, 12), 12),
    ],
)
def test_a_window_is_what_lies_between_the_first_and_the_last_pixel_of_a_kernel_in_every_channel(layer, shape, window):
    assert lower(layer, "m", input_shape=torch.Size(shape)).window == window
