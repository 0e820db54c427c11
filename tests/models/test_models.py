import pytest
import torch
from torch import nn

from bitline.errors import DataError
from bitline.models import VGG8, LeNet5, build, names


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize(("channels", "size", "classes"), [(3, 32, 10), (1, 64, 7)])
def test_every_network_answers_one_score_per_class(name, channels, size, classes):
    model = build(name, num_classes=classes, in_channels=channels, image_size=size, width=0.25).eval()

    assert model(torch.randn(2, channels, size, size)).shape == (2, classes)


def test_vgg8_has_the_shapes_of_the_published_network():
    weights = [tuple(p.shape) for p in VGG8().parameters() if p.ndim > 1]

    convolutions = [(3, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)]
    assert weights == [(o, i, 3, 3) for i, o in convolutions] + [(1024, 8192), (10, 1024)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet20", 269_722 + 2_752),  # option A as published, and two 1x1 shortcuts with batch norm
        ("resnet56", 853_018 + 2_752),
        ("vgg16", 14_710_464 + 2 * 4_224 + 5_130),
    ],
)
def test_the_number_of_parameters_is_the_published_one(name, expected):
    assert parameters(build(name)) == expected


def test_lenet5_on_28_px_has_the_well_known_number_of_parameters():
    assert parameters(LeNet5()) == 61_706


@pytest.mark.parametrize("size", [8, 16, 28, 32])
def test_lenet5_takes_digits_mnist_and_cifar_sizes(size):
    assert LeNet5(image_size=size)(torch.randn(2, 1, size, size)).shape == (2, 10)


@pytest.mark.parametrize("name", ["vgg8", "vgg16", "resnet20", "resnet56"])
def test_every_convolution_is_without_bias_and_followed_by_batch_norm(name):
    model = build(name, width=0.1)
    followed = {
        id(first)
        for block in model.modules()
        if isinstance(block, nn.Sequential)
        for first, second in zip(block, list(block)[1:], strict=False)
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d) and first.bias is None
    }

    assert {id(m) for m in model.modules() if isinstance(m, nn.Conv2d)} == followed


def test_width_multiplies_hidden_channels_only():
    half = [tuple(p.shape) for p in VGG8(width=0.5).parameters() if p.ndim > 1]

    assert half[0] == (64, 3, 3, 3)
    assert half[-2:] == [(512, 4096), (10, 512)]


@pytest.mark.parametrize("name", names())
def test_gradients_reach_every_parameter(name):
    model = build(name, width=0.25)

    model(torch.randn(4, 3, 32, 32)).square().sum().backward()

    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters() if p.ndim > 1)


def test_an_unknown_name_is_refused_with_those_allowed():
    with pytest.raises(DataError, match=r"model is 'resnet-20'; allowed: vgg8, .*did you mean 'resnet20'"):
        build("resnet-20")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"width": 0.0}, "width is 0.0; allowed: 0.015625 to 64"),
        ({"num_classes": 0}, "num_classes is 0; allowed: 1 to 100000"),
        ({"image_size": 4}, "image_size 4: 3 poolings by two need at least 8 px"),
    ],
)
def test_an_impossible_size_is_refused(given, message):
    with pytest.raises(DataError, match=message):
        build("vgg8", **given)


def test_vgg16_begins_with_the_variance_that_he_et_al_give():
    for module in build("vgg16", width=0.5).features.modules():
        if isinstance(module, nn.Conv2d):
            assert float(module.weight.detach().var()) == pytest.approx(2 / (9 * module.out_channels), rel=0.15)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"width": 1e9}, r"width is 1000000000.0; allowed: 0.015625 to 64"),
        ({"width": 1e-9}, r"width is 1e-09; allowed: 0.015625 to 64"),
        ({"width": "1"}, r"width is '1'; allowed"),
        ({"width": float("nan")}, r"width is nan; allowed"),
        ({"width": 64}, r"vgg8 with num_classes 10, .*, width 64 has 5\.\d+e\+10 weights; allowed: 1e\+09"),
        ({"num_classes": 10**9}, r"num_classes is 1000000000; allowed: 1 to 100000"),
        ({"num_classes": True}, r"num_classes is True; allowed"),
        ({"image_size": 100_000}, r"image_size is 100000; allowed: 1 to 1024"),
        ({"image_size": 8.0}, r"image_size is 8.0; allowed"),
        ({"in_channels": 10**6}, r"in_channels is 1000000; allowed: 1 to 1024"),
    ],
)
def test_a_network_that_no_machine_holds_is_refused_before_it_is_built(given, message):
    with pytest.raises(DataError, match=f"^{message}"):
        build("vgg8", **given)
