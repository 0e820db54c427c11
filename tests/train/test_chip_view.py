import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from bitline import chip as chips
from bitline.compress import fold_norms
from bitline.errors import ConversionError
from bitline.models import build
from bitline.nn import calibrate, program, to_crossbar
from bitline.train.chip_view import ChipView

CHIP = chips.load("example-128", ["adc.policy=lossless", "cell.programming={kind='lognormal', sigma=0.1}"])


@pytest.fixture
def network():
    torch.manual_seed(0)
    found = build("resnet20", num_classes=4, in_channels=1, image_size=8, width=0.25)
    with torch.no_grad():
        found(torch.randn(64, 1, 8, 8))  # running statistics unlike those of a fresh batch norm
        for module in found.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
    return found.eval()


@pytest.fixture
def images():
    return torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("seed", [-1, 3])
def test_a_view_answers_what_the_folded_network_on_the_chip_does(network, images, seed):
    plain = fold_norms(network, images).model
    converted, _ = to_crossbar(plain, CHIP, example=images)
    view = ChipView(network, CHIP, images)
    calibrate(converted, [images])
    view.calibrate([images])
    for model in (converted, view.on_chip):
        program(model, seed)

    with torch.no_grad():
        torch.testing.assert_close(view(images), converted(images), rtol=0, atol=0)


def test_a_view_follows_the_network_and_has_no_parameters_of_its_own_crossbars(network, images):
    view = ChipView(network, CHIP, images)
    view.calibrate([images])
    with torch.no_grad():
        before = view(images)
        network.conv1[1].weight.mul_(0.5)
        after = view(images)

    assert not torch.equal(before, after)
    assert {id(p) for p in view.parameters()} <= {id(p) for p in network.parameters()}


def test_gradients_reach_weights_batch_norms_and_masks_through_the_fold(network, images):
    class Mask(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.tensor(0.7))

        def forward(self, weight):
            return weight * self.factor

    parametrize.register_parametrization(network.fc, "weight", Mask())
    view = ChipView(network, chips.replace(CHIP, "inputs.bits=12"), images)
    view.calibrate([images])

    nn.functional.cross_entropy(view(images), torch.arange(16) % 4).backward()
    on_chip = {name: p.grad.clone() for name, p in network.named_parameters()}
    network.zero_grad()
    nn.functional.cross_entropy(network(images), torch.arange(16) % 4).backward()

    for name, parameter in network.named_parameters():
        similar = nn.functional.cosine_similarity(on_chip[name].flatten(), parameter.grad.flatten(), 0)
        assert similar > 0.9, name


def test_running_statistics_stay_as_they_are(network, images):
    view = ChipView(network.train(), CHIP, images)
    view.calibrate([images])
    known = {name: buffer.clone() for name, buffer in network.named_buffers()}

    view.train()(images)

    for name, buffer in network.named_buffers():
        assert torch.equal(buffer, known[name]), name


def test_a_batch_norm_that_cannot_be_folded_is_named(images):
    network = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 4)).eval()

    with pytest.raises(ConversionError, match="batch norm 1 follows no single layer"):
        ChipView(network, CHIP, images)


def test_a_linear_view_learns_under_autocast_as_without(network, images):
    labels, found = torch.arange(16) % 4, {}
    for bf16 in (False, True):
        view = ChipView(network, CHIP, images, linear=True, bias_correction=True)
        view.calibrate([images])
        program(view.on_chip, 3)
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            answers = view(images)
        nn.functional.cross_entropy(answers.float(), labels).backward()
        found[bf16] = torch.cat([p.grad.flatten() for p in network.parameters()])

    assert answers.dtype == torch.bfloat16
    assert found[True].dtype == torch.float32
    assert nn.functional.cosine_similarity(found[False], found[True], 0) > 0.99
