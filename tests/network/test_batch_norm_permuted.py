"""Batch norm after a block whose outputs are in another order than those of its last layer."""

import pytest
import torch
from torch import nn

from bitline.models.blocks import Block, GroupConv2d, GroupLinear, SeparableConv2d
from bitline.nn import to_crossbar

IMAGE = torch.randn(3, 8, 5, 5, generator=torch.Generator().manual_seed(0))
BLOCKS = {
    "group": (lambda: GroupConv2d(nn.Conv2d(8, 12, 3, bias=False), 4), "0.conv"),
    "group with bias": (lambda: GroupConv2d(nn.Conv2d(8, 12, 3), 2), "0.conv"),
    "group and mix": (lambda: GroupConv2d(nn.Conv2d(8, 12, 3, bias=False), 4, mix=2), "0.mix"),
    "separable": (lambda: SeparableConv2d(nn.Conv2d(8, 12, 3, bias=False)), "0.depthwise"),
    "separable with bias": (lambda: SeparableConv2d(nn.Conv2d(8, 12, 3), multiplier=2), "0.depthwise"),
    "depthwise first": (
        lambda: SeparableConv2d(nn.Conv2d(8, 12, 3, bias=False), multiplier=2, pointwise_first=False),
        "0.pointwise",
    ),
    "linear": (lambda: GroupLinear(nn.Linear(8, 12), 4), "0.conv"),
}


def shuffled(block: Block) -> Block:
    generator = torch.Generator().manual_seed(1)
    for buffer in block.buffers():
        buffer.copy_(torch.randperm(len(buffer), generator=generator))
    return block


def normed(block: Block) -> nn.Sequential:
    norm = (nn.BatchNorm1d if isinstance(block, GroupLinear) else nn.BatchNorm2d)(12)
    with torch.no_grad():
        for index, values in enumerate((norm.weight, norm.bias, norm.running_mean, norm.running_var)):
            values.copy_(torch.rand(12, generator=torch.Generator().manual_seed(index)) + 0.5)
    return nn.Sequential(shuffled(block), norm, nn.ReLU()).eval()


class InCode(nn.Module):
    def __init__(self, block: nn.Module, norm: nn.Module, *, read_twice: bool = False) -> None:
        super().__init__()
        self.block, self.norm, self.read_twice = block, norm, read_twice

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.block(x)
        return self.norm(y) + y if self.read_twice else self.norm(y)


def plain(converted: nn.Module) -> nn.Module:
    for module in converted.modules():
        if hasattr(module, "mode"):
            module.mode = "float"
    return converted


@pytest.mark.parametrize("with_example", [True, False])
@pytest.mark.parametrize("kind", BLOCKS)
def test_a_batch_norm_folds_through_the_order_of_a_blocks_outputs(make_chip, kind, with_example):
    make, layer = BLOCKS[kind]
    model = normed(make())
    x = IMAGE[:, :, 0, 0] if kind == "linear" else IMAGE

    converted, report = to_crossbar(model, make_chip(), example=x if with_example else None)

    assert report.folded == {"1": layer}
    assert report.digital == ()
    torch.testing.assert_close(plain(converted)(x), model(x))


@pytest.mark.parametrize("kind", ["group", "group and mix", "separable", "depthwise first"])
def test_outside_of_a_sequence_the_order_is_followed_too(make_chip, kind):
    block, norm, _ = normed(BLOCKS[kind][0]())
    model = InCode(block, norm).eval()

    converted, report = to_crossbar(model, make_chip(), example=IMAGE)

    assert report.folded == {"norm": BLOCKS[kind][1].replace("0.", "block.")}
    torch.testing.assert_close(plain(converted)(IMAGE), model(IMAGE))


def test_a_block_whose_result_is_read_twice_keeps_its_batch_norm(make_chip):
    block, norm, _ = normed(BLOCKS["group"][0]())
    model = InCode(block, norm, read_twice=True).eval()

    converted, report = to_crossbar(model, make_chip(), example=IMAGE)

    assert report.folded == {}
    torch.testing.assert_close(plain(converted)(IMAGE), model(IMAGE))


def test_a_block_that_is_kept_digital_keeps_its_batch_norm(make_chip):
    model = normed(BLOCKS["group and mix"][0]())

    report = to_crossbar(model, make_chip(), example=IMAGE, keep_digital=["0.mix"]).report

    assert report.folded == {}


@pytest.mark.parametrize("with_example", [True, False])
def test_a_block_that_stands_twice_keeps_its_batch_norms(make_chip, with_example):
    block, norm, _ = normed(GroupConv2d(nn.Conv2d(12, 12, 1), 4))
    model = nn.Sequential(block, norm, block, nn.BatchNorm2d(12)).eval()
    x = torch.randn(2, 12, 3, 3)

    assert to_crossbar(model, make_chip(), example=x if with_example else None).report.folded == {}
