"""What pruning removed, counted; and fine-grained pruning to compare with."""

import copy
import math

import pytest
import torch
from pruning_samples import conv, images, network
from torch import nn

from bitline.compress.prune.crossbar_block import CrossbarBlocks
from bitline.compress.prune.fine_grained import fine_grained
from bitline.compress.prune.sparsity import crossbars, layer_crossbars, placement, sparsity, weights_left
from bitline.errors import ConversionError
from bitline.mapping.place import place
from bitline.network.trace import matmuls


def two_layers() -> nn.Module:
    """Matrices of 27 x 20 and 20 x 10."""
    torch.manual_seed(8)
    return nn.Sequential(conv(3, 20), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(20, 10)).eval()


def test_weights_that_are_zero_or_gone_are_removed():
    before, after = two_layers(), two_layers()
    after[3] = nn.Linear(20, 5)
    with torch.no_grad():
        after[0][0].weight[:2] = 0

    assert weights_left(after) == 18 * 27 + 100
    assert sparsity(before, after) == pytest.approx(1 - (18 * 27 + 100) / (20 * 27 + 200))
    assert sparsity(before, before) == 0


def test_sparsity_of_no_weights_is_refused():
    with pytest.raises(ConversionError, match="no linear or convolution layer"):
        sparsity(nn.ReLU(), nn.ReLU())


def test_a_dense_network_has_the_crossbars_of_its_placement(make_chip):
    model, chip = network("groups"), make_chip()

    assert crossbars(model, chip, images("groups")) == place(matmuls(model, (3, 8, 8)), chip).crossbars


def test_crossbars_whose_weights_are_all_zero_are_not_counted(make_chip):
    model, chip = two_layers(), make_chip()
    with torch.no_grad():
        model[3].weight[:8, 8:16] = 0
        model[0][0].weight[8:16] = 0

    layers = placement(model, chip, images("vgg8")).layers

    assert [layer.crossbars for layer in layers] == [4 * 3 - 4, 3 * 2 - 1]
    assert crossbars(model, chip, images("vgg8")) == 13
    assert layer_crossbars(model[3].weight, 1, chip) == 5


def test_factors_in_training_count_and_the_network_keeps_its_mode(make_chip):
    model = two_layers().train()
    blocks = CrossbarBlocks(model, images("vgg8"), make_chip())
    blocks.zero(0.5)

    assert crossbars(model, make_chip(), images("vgg8")) == 9
    assert model.training
    assert set(blocks.masks) == {"0.0", "3"}


@pytest.mark.parametrize(("kind", "table", "segment"), [("row", 27 * 3 + 20 * 2, 8), ("column", 20 * 4 + 10 * 3, 8)])
def test_fine_grained_pruning_removes_the_least_segments_and_needs_a_table(kind, table, segment, make_chip):
    model, x = two_layers(), images("vgg8")
    before = copy.deepcopy(model)

    found = fine_grained(model, x, make_chip(), 0.5, kind)
    with torch.no_grad():
        for name, mask in found.masks.items():
            model.get_submodule(name).weight *= mask

    assert found.table_bits == table
    assert sparsity(before, model) == pytest.approx(found.sparsity)
    assert 0.4 < found.sparsity < 0.6
    for name, mask in found.masks.items():
        matrix = mask.flatten(1) if kind == "row" else mask.flatten(1).t()
        pieces = matrix.split(segment)
        assert all(bool(((piece == 0) | (piece == 1)).all()) for piece in pieces)
        assert all(torch.equal(piece, piece[:1].expand_as(piece)) for piece in pieces), name
    assert found.crossbars == sum(
        math.ceil(int(piece[0].sum()) / 8)
        for mask in found.masks.values()
        for piece in (mask.flatten(1) if kind == "row" else mask.flatten(1).t()).split(segment)
    )
    assert found.crossbars < crossbars(before, make_chip(), x)


@pytest.mark.parametrize("kind", ["row", "column"])
def test_fine_grained_pruning_takes_the_segments_of_least_weight(kind, make_chip):
    model = two_layers()
    with torch.no_grad():
        matrix = model[3].weight.t()
        (matrix[5, :8] if kind == "row" else matrix[8:16, 9]).mul_(1e-4)

    found = fine_grained(model, images("vgg8"), make_chip(), 1 / 121 if kind == "row" else 1 / 110, kind)

    gone = (found.masks["3"].t() == 0).nonzero().tolist()
    assert gone == ([[5, c] for c in range(8)] if kind == "row" else [[r, 9] for r in range(8, 16)])
    assert bool((found.masks["0.0"] == 1).all())


def test_one_segment_stays_where_all_are_to_go(make_chip):
    found = fine_grained(two_layers(), images("vgg8"), make_chip(), 1.0)

    assert [int(mask.flatten(1)[:, :].sum()) for mask in found.masks.values()] == [20, 10]
    assert found.crossbars == 3 + 2


def test_a_kind_that_there_is_not_is_refused(make_chip):
    with pytest.raises(ConversionError, match="did you mean 'row'"):
        fine_grained(two_layers(), images("vgg8"), make_chip(), 0.5, "rows")
    with pytest.raises(ConversionError, match="allowed: 0 to 1"):
        fine_grained(two_layers(), images("vgg8"), make_chip(), 2)
